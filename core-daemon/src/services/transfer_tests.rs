//! The Transfer service as a client sees it: over gRPC, with streams for progress, credentials and bytes.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use prost_types::Any;
use shared_proto::api::{RemoteStreaming, RemoteTransfer, Streaming, StreamingServer, Transfer, TransferServer};
use shared_proto::containerd::streaming::StreamInit;
use shared_proto::containerd::transfer::{TransferOptions, TransferRequest};
use shared_proto::containerd::transfer_types::{
    AuthRequest, AuthResponse, AuthType, ContainerPath, Data, ImageImportStream, ImageStore, OciRegistry, Progress,
    RegistryResolver, UnpackConfiguration, WindowUpdate,
};
use shared_proto::{Code, Context, any};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};

use super::streaming::StreamManager;
use super::transfer::TransferService;
use crate::images::tests::fake::Answer;
use crate::images::tests::local::{DockerRegistry, Image, noise};
use crate::images::tests::node::{Node, SNAPSHOTTER, serve};

/// A core that only transfers, behind a socket.
struct Remote {
    node: Node,
    streaming: RemoteStreaming,
    transfer: RemoteTransfer,
    server: tokio::task::JoinHandle<()>,
}

impl Remote {
    async fn start() -> Self {
        let node = Node::new().await;
        let streams = StreamManager::default();
        let service = TransferService::new(node.puller.clone(), streams.clone(), SNAPSHOTTER);
        let path = node.dir.path().join("core.sock");
        let incoming = UnixListenerStream::new(tokio::net::UnixListener::bind(&path).unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(StreamingServer::service(Arc::new(streams)))
            .add_service(TransferServer::service(Arc::new(service)));
        let server = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        let channel = shared_proto::transport::unix(&path);
        let (streaming, transfer) = (RemoteStreaming::new(channel.clone()), RemoteTransfer::new(channel));
        Self { node, streaming, transfer, server }
    }

    /// Opens a stream and waits for the answer that its name is known.
    async fn open(&self, name: &str) -> (mpsc::UnboundedSender<Any>, shared_proto::api::Items<Any>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(any::pack(&StreamInit { id: name.into() })).unwrap();
        let messages = UnboundedReceiverStream::new(receiver).map(Ok).boxed();
        let mut answers = self.streaming.stream(&cx(), messages).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().type_url, "google.protobuf.Empty");
        (sender, answers)
    }

    async fn run(&self, source: Any, store: ImageStore, progress: &str) -> shared_proto::Result<()> {
        let request = TransferRequest {
            source: Some(source),
            destination: Some(any::pack(&store)),
            options: Some(TransferOptions { progress_stream: progress.into() }),
        };
        self.transfer.transfer(&cx(), request).await
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn cx() -> Context {
    Context::new("k8s.io")
}

fn sample() -> Image {
    Image::of(&[&[("bin/", b""), ("bin/sh", &noise(1, 300_000))], &[("etc/", b"")]])
}

fn store(name: &str) -> ImageStore {
    let unpack = UnpackConfiguration { platform: None, snapshotter: SNAPSHOTTER.into() };
    ImageStore { name: name.into(), unpacks: vec![unpack], ..Default::default() }
}

fn registry(reference: &str, auth_stream: &str) -> Any {
    let resolver = RegistryResolver { auth_stream: auth_stream.into(), ..Default::default() };
    any::pack(&OciRegistry { reference: reference.into(), resolver: Some(resolver) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_with_credentials_and_progress() {
    let server = DockerRegistry::start(true).await;
    server.push("x", "1", &sample()).await;
    let reference = format!("{}/x:1", server.name());
    let core = Remote::start().await;
    let (_progress, reports) = core.open("progress").await;
    let (answers, mut questions) = core.open("auth").await;
    let client = tokio::spawn(async move {
        let mut asked = Vec::new();
        while let Some(Ok(question)) = questions.next().await {
            asked.push(any::unpack::<AuthRequest>(&question).unwrap());
            let (username, secret) = ("ann".to_owned(), "pw".to_owned());
            let auth_type = AuthType::Credentials as i32;
            let answer = AuthResponse { auth_type, username, secret, ..Default::default() };
            answers.send(any::pack(&answer)).unwrap();
        }
        asked
    });
    core.run(registry(&reference, "auth"), store(&reference), "progress").await.unwrap();
    assert_eq!(core.node.images().await, std::slice::from_ref(&reference));

    // Both streams end with the transfer.
    let asked = client.await.unwrap();
    assert_eq!(asked.len(), 1, "credentials are asked for once");
    assert_eq!((asked[0].host.as_str(), asked[0].reference.as_str()), (server.name().as_str(), reference.as_str()));
    assert!(asked[0].wwwauthenticate[0].starts_with("Basic"));
    let reports: Vec<Progress> = reports.map(|r| any::unpack(&r.unwrap()).unwrap()).collect().await;
    assert!(reports.iter().any(|r| r.event == "extracted" && r.name.starts_with("layer-") && r.desc.is_some()));
    assert!(reports.last().unwrap().event.starts_with("Completed pull"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_obeys_the_credit_and_keeps_it_flowing() {
    let core = Remote::start().await;
    let image = Image::of(&[&[("big", &noise(7, 12 << 20))]]);
    let archive = crate::images::tests::archive::layout(&[(&image, &[("io.containerd.image.name", "a.b/c:1")])]);
    let (bytes, mut credits) = core.open("bytes").await;
    let client = tokio::spawn(async move {
        let (mut credit, mut sent) = (0usize, 0);
        while sent < archive.len() {
            while credit == 0 {
                let update = credits.next().await.expect("credit").unwrap();
                credit += any::unpack::<WindowUpdate>(&update).unwrap().update as usize;
            }
            let length = credit.min(32 << 10).min(archive.len() - sent);
            bytes.send(any::pack(&Data { data: archive[sent..sent + length].to_vec() })).unwrap();
            (sent, credit) = (sent + length, credit - length);
        }
        drop(bytes);
        while credits.next().await.is_some() {}
    });
    let source = any::pack(&ImageImportStream { stream: "bytes".into(), ..Default::default() });
    core.run(source, store(""), "").await.unwrap();
    client.await.unwrap();
    assert_eq!(core.node.images().await, ["a.b/c:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_without_credit_and_streams_that_break_end_the_import() {
    for (last, why) in [(Some(vec![0u8; 5 << 20]), "were allowed"), (None, "archive")] {
        let core = Remote::start().await;
        let (bytes, _credits) = core.open("bytes").await;
        match last {
            Some(data) => bytes.send(any::pack(&Data { data })).unwrap(),
            None => drop(bytes),
        }
        let source = any::pack(&ImageImportStream { stream: "bytes".into(), ..Default::default() });
        let e = core.run(source, store("x:1"), "").await.unwrap_err();
        assert!(e.message.contains(why), "{e}");
        core.node.assert_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_cancels_its_pull() {
    let image = sample();
    let layer = crate::domain::Digest::of(&image.layers[0]).to_string();
    let served = image.layers[0].clone();
    let server = serve(image, move |seen| {
        seen.target.contains(&layer).then(|| Answer { hang: true, ..Answer::blob(&served, seen) })
    })
    .await;
    let core = Arc::new(Remote::start().await);
    let reference = format!("{}/x:1", server.addr);
    let call = {
        let (core, reference) = (core.clone(), reference.clone());
        tokio::spawn(async move { core.run(registry(&reference, ""), store(&reference), "").await })
    };
    while !core.node.snapshot_names().await.iter().any(|name| name.starts_with("extract-")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    call.abort();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !core.node.query("SELECT id FROM leases").await.is_empty() && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    core.node.assert_clean().await;
}

#[tokio::test]
async fn what_can_not_be_transferred_is_named() {
    let core = Remote::start().await;
    let path = any::pack(&ContainerPath::default());
    let e = core.run(path.clone(), store("x:1"), "").await.unwrap_err();
    assert_eq!(e.code, Code::Unimplemented);
    assert!(e.message.contains("ContainerPath") && e.message.contains("ImageStore"), "{e}");
    for (source, progress, code) in [
        (registry("not a reference", ""), "", Code::InvalidArgument),
        (registry("x.test/a:1", "nobody"), "", Code::NotFound),
        (registry("x.test/a:1", ""), "nobody", Code::NotFound),
    ] {
        assert_eq!(core.run(source, store("x:1"), progress).await.unwrap_err().code, code);
    }
    let missing = core.transfer.transfer(&cx(), TransferRequest::default()).await.unwrap_err();
    assert_eq!(missing.code, Code::InvalidArgument);
}
