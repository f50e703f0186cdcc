//! `Write` and `Read` as clients use them, over gRPC.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use pb::WriteAction::{Commit, Stat, Write};
use shared_proto::api::Content;
use tokio::time::timeout;

use super::*;
use crate::testing::{Node, map};

const HELLO: &[u8] = b"hello world";

/// One `Write` stream, driven step by step.
struct Client {
    requests: futures::channel::mpsc::Sender<Result<pb::WriteContentRequest>>,
    answers: Items<pb::WriteContentResponse>,
}

impl Client {
    async fn open(port: &Arc<dyn Content>, cx: &Context) -> Self {
        let (requests, stream) = futures::channel::mpsc::channel(1);
        let answers = port.write(cx, stream.boxed()).await.unwrap();
        Self { requests, answers }
    }

    async fn ask(&mut self, request: pb::WriteContentRequest) -> Result<pb::WriteContentResponse> {
        self.requests.send(Ok(request)).await.unwrap();
        // In lockstep: the answer comes before the next request.
        timeout(std::time::Duration::from_secs(10), self.answers.next()).await.expect("an answer").expect("no end")
    }
}

fn request(action: pb::WriteAction, name: &str, offset: i64, data: &'static [u8]) -> pb::WriteContentRequest {
    let data = Bytes::from_static(data);
    pb::WriteContentRequest { action: action.into(), r#ref: name.into(), offset, data, ..Default::default() }
}

#[tokio::test]
async fn writes_in_lockstep() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.over_pipe().await.content;
    let mut client = Client::open(&port, &cx).await;
    let stat = client.ask(pb::WriteContentRequest { total: 11, ..request(Stat, "r", 0, b"") }).await.unwrap();
    assert_eq!((stat.offset, stat.total, stat.digest), (0, 11, Digest::of(b"").to_string()));
    let one = client.ask(request(Write, "", 0, b"hello ")).await.unwrap();
    assert_eq!((one.offset, one.digest), (6, Digest::of(b"hello ").to_string()));

    // A second writer is turned away while the first one lives, and gets in when that has gone.
    let mut second = Client::open(&port, &cx).await;
    let e = second.ask(request(Stat, "r", 0, b"")).await.unwrap_err();
    assert_eq!((e.code, e.message.as_str()), (Code::Unavailable, "ref r locked"));
    let e = client.ask(request(Write, "", 7, b"x")).await.unwrap_err();
    assert!(e.code == Code::OutOfRange && e.message.contains("current offset 6"), "{e}");
    drop(client);

    let mut third = loop {
        let mut third = Client::open(&port, &cx).await;
        match third.ask(request(Stat, "r", 0, b"")).await {
            Ok(stat) => {
                assert_eq!((stat.offset, stat.total, stat.digest), (6, 11, Digest::of(b"hello ").to_string()));
                break third;
            }
            Err(e) => assert_eq!(e.code, Code::Unavailable, "{e}"),
        }
    };
    let again = third.ask(request(Write, "r", 0, b"HELLO")).await.unwrap();
    assert_eq!((again.offset, again.digest), (5, Digest::of(b"HELLO").to_string()));
    let e = third.ask(request(Commit, "other", 5, b"")).await.unwrap_err();
    assert_eq!(e.code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_commit_may_bring_everything() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.over_pipe().await.content;
    let commit = |expected: &[u8]| pb::WriteContentRequest {
        total: 11,
        expected: Digest::of(expected).to_string(),
        labels: map(&[("k", "v")]),
        ..request(Commit, "r", 0, HELLO)
    };
    let e = Client::open(&port, &cx).await.ask(commit(b"other")).await.unwrap_err();
    assert_eq!(e.code, Code::FailedPrecondition, "{e}");
    let mut client = Client::open(&port, &cx).await;
    let answer = client.ask(commit(HELLO)).await.unwrap();
    assert_eq!((answer.offset, answer.total, &answer.digest), (11, 11, &Digest::of(HELLO).to_string()));
    assert!(client.answers.next().await.is_none());
    let info = port.info(&cx, pb::InfoRequest { digest: answer.digest.clone() }).await.unwrap().info.unwrap();
    assert_eq!((info.size, info.labels), (11, map(&[("k", "v")])));

    // Known at the first message, or only at a later one: it ends the stream, and the lease holds the blob.
    node.lease("l", &[]).await;
    let leased = cx.with_lease("l");
    let e = Client::open(&port, &leased).await.ask(commit(HELLO)).await.unwrap_err();
    assert_eq!(e.code, Code::AlreadyExists);
    let mut client = Client::open(&port, &leased).await;
    client.ask(request(Write, "late", 0, b"hello")).await.unwrap();
    let late = pb::WriteContentRequest { expected: answer.digest, ..request(Stat, "late", 0, b"") };
    assert_eq!(client.ask(late).await.unwrap_err().code, Code::AlreadyExists);
    assert!(port.list_statuses(&cx, Default::default()).await.unwrap().statuses.is_empty());
    node.gc.collect().await.unwrap();
    assert!(node.on_disk(&Digest::of(HELLO)));
}

#[tokio::test]
async fn bad_first_messages() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.over_pipe().await.content;
    let unknown = pb::WriteContentRequest { action: 9, ..request(Stat, "r", 0, b"") };
    let digest = pb::WriteContentRequest { expected: "md5:1".into(), ..request(Stat, "r", 0, b"") };
    for bad in [request(Stat, "", 0, b""), unknown, digest] {
        let e = Client::open(&port, &cx).await.ask(bad).await.unwrap_err();
        assert_eq!(e.code, Code::InvalidArgument, "{e}");
    }
    let requests = futures::stream::iter([Ok(request(Stat, "r", 0, b""))]).boxed();
    let e = port.write(&Context::default(), requests).await.map(drop).unwrap_err();
    assert_eq!(e.code, Code::FailedPrecondition);
}

#[tokio::test]
async fn reads_in_blocks() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.over_pipe().await.content;
    let data: &'static [u8] = (0..(5 << 20) / 2).map(|n| (n % 251) as u8).collect::<Vec<_>>().leak();
    let digest = node.put(data, &[]).await.to_string();
    let read = |offset, size| {
        let (port, cx, digest) = (port.clone(), cx.clone(), digest.clone());
        async move {
            let blocks = port.read(&cx, pb::ReadContentRequest { digest, offset, size }).await?;
            let blocks: Vec<_> = blocks.collect().await;
            blocks.into_iter().collect::<Result<Vec<_>>>()
        }
    };
    let all = read(0, 0).await.unwrap();
    assert_eq!(
        all.iter().map(|b| (b.offset, b.data.len())).collect::<Vec<_>>(),
        [(0, 1 << 20), (1 << 20, 1 << 20), (2 << 20, 1 << 19)]
    );
    assert!(all.iter().flat_map(|b| b.data.iter()).eq(data));
    let part = read(3, 1 << 20).await.unwrap();
    assert!(part.iter().flat_map(|b| b.data.iter()).eq(&data[3..3 + (1 << 20)]));
    let end = data.len() as i64;
    let tail = read(end - 2, i64::MAX).await.unwrap();
    assert_eq!(tail[0].data, data[data.len() - 2..]);
    assert!(read(end, 0).await.unwrap().is_empty());
    assert_eq!(read(-5, 1).await.unwrap()[0].data, data[..1]);
    assert_eq!(read(end + 1, 0).await.unwrap_err().code, Code::OutOfRange);
}

#[tokio::test]
async fn lists_in_blocks_of_a_hundred() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.over_pipe().await.content;
    for n in 0..120u32 {
        node.put(n.to_string().into_bytes().leak(), if n < 3 { &[("few", "1")] } else { &[] }).await;
    }
    let list = |filters: &[&str]| {
        let request = pb::ListContentRequest { filters: filters.iter().map(|f| (*f).to_owned()).collect() };
        let (port, cx) = (port.clone(), cx.clone());
        async move {
            let blocks = port.list(&cx, request).await.unwrap();
            blocks.map(|block| block.unwrap().info.len()).collect::<Vec<_>>().await
        }
    };
    assert_eq!(list(&[]).await, [100, 20]);
    assert_eq!(list(&["labels.few==1"]).await, [3]);
    assert_eq!(list(&["size==2", "size==3"]).await, [100, 10]);
}

#[tokio::test]
async fn masks_of_content() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.core().content;
    let digest = node.put(HELLO, &[("a", "1"), ("b", "2")]).await.to_string();
    let update = |labels: &[(&str, &str)], paths: &[&str]| {
        let info = pb::Info { digest: digest.clone(), labels: map(labels), ..Default::default() };
        let mask = prost_types::FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() };
        let (port, cx) = (port.clone(), cx.clone());
        let request = pb::UpdateRequest { info: Some(info), update_mask: Some(mask) };
        async move { port.update(&cx, request).await.map(|answer| answer.info.unwrap().labels) }
    };
    assert_eq!(update(&[("c", "3")], &["labels.c", "labels.a"]).await.unwrap(), map(&[("b", "2"), ("c", "3")]));
    assert_eq!(update(&[("d", "4")], &[]).await.unwrap(), map(&[("d", "4")]));
    assert_eq!(update(&[("e", "5")], &["labels"]).await.unwrap(), map(&[("e", "5")]));
    assert_eq!(update(&[], &["size"]).await.unwrap_err().code, Code::InvalidArgument);
}
