//! `Content`, call by call: what a client that resumes, races or lies is told, and what the store has afterwards.

use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, Unavailable};
use e2e::Wiring;
use e2e::world;
use futures::StreamExt as _;
use futures::channel::mpsc;
use shared_proto::api::Items;
use shared_proto::containerd::content::{self as ct, WriteAction};
use shared_proto::containerd::leases as l;
use shared_proto::core::Core;
use shared_proto::{Code, Context, Result};

use crate::{UNKNOWN, fails};

/// A stream of writes, one answer a request.
struct Writer {
    requests: mpsc::UnboundedSender<Result<ct::WriteContentRequest>>,
    answers: Items<ct::WriteContentResponse>,
}

impl Writer {
    /// Opens it with its first request; the answer to that.
    async fn open(
        core: &Core,
        cx: &Context,
        first: ct::WriteContentRequest,
    ) -> Result<(Self, ct::WriteContentResponse)> {
        let (requests, stream) = mpsc::unbounded();
        requests.unbounded_send(Ok(first)).expect("the stream is open");
        let mut answers = core.content.write(cx, stream.boxed()).await?;
        let answer = answers.next().await.expect("an answer")?;
        Ok((Self { requests, answers }, answer))
    }

    async fn ask(&mut self, request: ct::WriteContentRequest) -> Result<ct::WriteContentResponse> {
        self.requests.unbounded_send(Ok(request)).expect("the stream is open");
        self.answers.next().await.expect("an answer")
    }
}

fn request(action: WriteAction, offset: i64, data: &'static [u8]) -> ct::WriteContentRequest {
    ct::WriteContentRequest {
        action: action.into(),
        r#ref: "bad-ref".into(),
        offset,
        data: bytes::Bytes::from_static(data),
        ..Default::default()
    }
}

pub async fn content(wiring: Wiring) {
    use WriteAction::{Commit, Stat, Write};
    let world = world(wiring).await;
    let core = world.core();
    let before = world.inventory().await;
    let (core, none) = (&core, Context::new("e2e"));
    // Or it may be collected while we look.
    core.leases.create(&none, l::CreateRequest { id: "work".into(), ..Default::default() }).await.expect("a lease");
    let with_lease = world.inventory().await;
    let cx = &none.with_lease("work");
    let open = async |first: ct::WriteContentRequest| Writer::open(core, cx, first).await;

    // The first message.
    let nameless = ct::WriteContentRequest { r#ref: String::new(), ..request(Stat, 0, b"") };
    fails("no ref", open(nameless).await, InvalidArgument, "ref");
    let action = ct::WriteContentRequest { action: 9, ..request(Stat, 0, b"") };
    fails("an action that is none", open(action).await, InvalidArgument, "action 9");
    let expected = ct::WriteContentRequest { expected: "md5:abc".into(), ..request(Stat, 0, b"") };
    fails("a digest that is none", open(expected).await, InvalidArgument, "md5:abc");
    let under = Writer::open(core, &cx.with_lease("no-such-lease"), request(Write, 0, b"hello")).await;
    fails("under a lease that is gone", under, NotFound, "no-such-lease");
    world.assert_as_before(&with_lease).await;

    // One writer at a time; places; what is told of what there is.
    let (mut writer, _) = open(request(Write, 0, b"hello")).await.expect("write");
    fails("a second writer", open(request(Stat, 0, b"")).await, Unavailable, "bad-ref locked");
    fails("a gap", writer.ask(request(Write, 7, b"x")).await, OutOfRange, "bad-ref");
    drop(writer);
    let (mut writer, answer) = open(request(Stat, 0, b"")).await.expect("the lock is free again");
    assert_eq!(answer.offset, 5, "what was written is kept");
    let other = ct::WriteContentRequest { r#ref: "another".into(), ..request(Write, 5, b"x") };
    fails("a second ref", writer.ask(other).await, InvalidArgument, "another");
    drop(writer);
    for offset in [-1, 4] {
        let (mut writer, _) = open(request(Stat, 0, b"")).await.expect("stat");
        fails("a place that is none", writer.ask(request(Write, offset, b"x")).await, OutOfRange, "bad-ref");
    }

    // Commits that lie leave the ingest, which can be finished or aborted.
    let (mut writer, _) = open(request(Stat, 0, b"")).await.expect("stat");
    let size = ct::WriteContentRequest { total: 6, ..request(Commit, 5, b"") };
    fails("a wrong size", writer.ask(size).await, FailedPrecondition, "unexpected commit size 5, expected 6");
    let (mut writer, _) = open(request(Stat, 0, b"")).await.expect("stat");
    let wrong = format!("sha256:{UNKNOWN}");
    let digest = ct::WriteContentRequest { expected: wrong.clone(), ..request(Commit, 5, b"") };
    fails("a wrong digest", writer.ask(digest).await, FailedPrecondition, &wrong);
    let info = core.content.info(cx, ct::InfoRequest { digest: wrong.clone() }).await;
    fails("and nothing has it", info, NotFound, &wrong);
    let (mut writer, _) = open(request(Stat, 0, b"")).await.expect("stat");
    let hello = writer.ask(request(Commit, 5, b"")).await.expect("commit").digest;

    // What is there already, from the first word and at the end: the ingest goes.
    let known = ct::WriteContentRequest { expected: hello.clone(), ..request(Stat, 0, b"") };
    fails("a known digest", open(known).await, AlreadyExists, &hello);
    let (mut writer, _) = open(request(Write, 0, b"hello")).await.expect("write");
    fails("known at the end", writer.ask(request(Commit, 5, b"")).await, AlreadyExists, &hello);
    let statuses = core.content.list_statuses(cx, Default::default()).await.expect("list").statuses;
    assert!(statuses.is_empty(), "{statuses:?}");

    let status = core.content.status(cx, ct::StatusRequest { r#ref: "no-ref".into() }).await;
    fails("status of none", status, NotFound, "no-ref");
    fails(
        "abort of none",
        core.content.abort(cx, ct::AbortRequest { r#ref: "no-ref".into() }).await,
        NotFound,
        "no-ref",
    );
    let read = |digest: &str, offset| {
        core.content.read(cx, ct::ReadContentRequest { digest: digest.to_owned(), offset, size: 0 })
    };
    // Over a stream the refusal may come with the call or with the first block.
    let read = async |digest: &str, offset| read(digest, offset).await?.next().await.expect("an answer").map(drop);
    fails("read past the end", read(&hello, 6).await, OutOfRange, &hello);
    fails("read of none", read(&wrong, 0).await, NotFound, &wrong);
    fails("read of no digest", read("md5:abc", 0).await, InvalidArgument, "md5:abc");
    let update = ct::UpdateRequest {
        info: Some(ct::Info { digest: hello.clone(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["size".into()] }),
    };
    fails("a field that stays", core.content.update(cx, update).await, InvalidArgument, "size");
    let delete = |digest: &str| core.content.delete(cx, ct::DeleteContentRequest { digest: digest.to_owned() });
    fails("delete of none", delete(&wrong).await, NotFound, &wrong);
    let filters = vec!["digest~=(".to_owned()];
    let list = core.content.list(cx, ct::ListContentRequest { filters }).await;
    fails("a filter that is none", list, InvalidArgument, "digest~=(");
    delete(&hello).await.expect("delete");
    core.leases.delete(cx, l::DeleteRequest { id: "work".into(), sync: true }).await.expect("delete the lease");
    world.assert_as_before(&before).await;
}
