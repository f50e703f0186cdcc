//! Messages that are too large, events and streams that are none.

use std::time::Duration;

use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::sleeper;
use e2e::{Wiring, world};
use futures::StreamExt as _;
use shared_proto::containerd::{
    Envelope, events_service as ev, namespaces as ns, streaming, transfer, transfer_types as tt,
};
use shared_proto::{Code, Context, any};

use crate::fails;

pub async fn oversized_messages(wiring: Wiring) {
    let world = world(wiring).await;
    let (cri, core) = (world.cri(), world.core());
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let cx = Context::new("e2e");
    let big = "x".repeat(17 << 20);
    let raw = ns::GetNamespaceRequest { name: big.clone() };
    let error = core.namespaces.get(&cx, raw).await.expect_err("over the client's limit");
    let too_much = matches!(error.code, Code::OutOfRange | Code::ResourceExhausted);
    assert!(too_much, "{:?} {:.300}", error.code, error.message);
    // Past the client's own limit: only the server says no.
    let mut pod = world.pod("big");
    pod.annotations = [("big".to_owned(), big)].into();
    let status = cri.try_run_pod(&pod).await.expect_err("over the server's limit");
    let too_much = matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::ResourceExhausted);
    assert!(too_much, "{:?} {}", status.code(), status.message());
    world.assert_as_before(&before).await;
    // The connection and the daemons live on.
    tokio::time::timeout(Duration::from_secs(5), cri.version()).await.expect("in time").expect("Version");

    // A message close to the limit, and answers as large as a message may be, go through.
    let mut large = world.pod("large");
    large.annotations = [("large".to_owned(), "x".repeat(1 << 20))].into();
    let pod = cri.run_pod(&large).await;
    assert_eq!(cri.pod_status(&pod).await.annotations, large.annotations);
    let id = cri.run(&pod, &large, &sleeper("main")).await;
    let answer = cri.try_exec_in(&id, &["sh", "-c", "yes 0123456789abcde | head -c 20000000"], 60).await;
    // Output is cut at 16 MiB, or the answer would be larger than any client takes.
    let length = answer.expect("exec").stdout.len();
    assert!(length <= 16 << 20 && length > 15 << 20, "{length}");
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;
}

pub async fn streams_and_events(wiring: Wiring) {
    use Code::{AlreadyExists, InvalidArgument, NotFound};
    let world = world(wiring).await;
    let core = world.core();
    let before = world.inventory().await;
    let cx = Context::new("e2e");

    // Events.
    let publish = |topic: &str| {
        let event = Some(any::raw("containerd.events.TaskExit", Vec::new()));
        core.events.publish(&cx, ev::PublishRequest { topic: topic.to_owned(), event })
    };
    for topic in ["", "tasks/exit", "/", "/tasks//exit", "/tasks/ex it"] {
        fails("a topic that is none", publish(topic).await, InvalidArgument, &format!("topic {topic:?}"));
    }
    let envelope = |namespace: &str| ev::ForwardRequest {
        envelope: Some(Envelope { namespace: namespace.into(), topic: "/tasks/exit".into(), ..Default::default() }),
    };
    let forward = async |request: ev::ForwardRequest| core.events.forward(&cx, request).await;
    fails("no envelope", forward(ev::ForwardRequest::default()).await, InvalidArgument, "envelope");
    fails("an event of nowhere", forward(envelope("a/b")).await, InvalidArgument, "\"a/b\"");
    fails("an event of nothing", forward(envelope("e2e")).await, InvalidArgument, "event");
    let filters = vec!["topic~=|(|".to_owned()];
    let subscribe = core.events.subscribe(&cx, ev::SubscribeRequest { filters }).await;
    fails("a filter that is none", subscribe, InvalidArgument, "topic~=|(|");

    // Streams by name, and transfers that mention one.
    let stream = async |first: prost_types::Any| {
        let messages = futures::stream::iter([Ok(first)]).chain(futures::stream::pending()).boxed();
        let mut answers = core.streaming.stream(&cx, messages).await?;
        answers.next().await.expect("an answer").map(|_| answers)
    };
    let init = |id: &str| any::pack(&streaming::StreamInit { id: id.to_owned() });
    fails("no beginning", stream(any::raw("text/plain", Vec::new())).await, InvalidArgument, "text/plain");
    fails("no name", stream(init("")).await, InvalidArgument, "name");
    let held = stream(init("taken")).await.expect("a good one");
    fails("a taken name", stream(init("taken")).await, AlreadyExists, "\"taken\"");
    drop(held);
    let transfer = async |source: Option<prost_types::Any>, destination: Option<prost_types::Any>, progress: &str| {
        let options = Some(transfer::TransferOptions { progress_stream: progress.to_owned() });
        core.transfer.transfer(&cx, transfer::TransferRequest { source, destination, options }).await
    };
    let store = || Some(any::pack(&tt::ImageStore { name: "x".into(), ..Default::default() }));
    let registry =
        |reference: &str| Some(any::pack(&tt::OciRegistry { reference: reference.to_owned(), ..Default::default() }));
    let import =
        |stream: &str| Some(any::pack(&tt::ImageImportStream { stream: stream.to_owned(), ..Default::default() }));
    fails("from nowhere", transfer(None, store(), "").await, InvalidArgument, "source");
    fails("to nowhere", transfer(registry("x"), None, "").await, InvalidArgument, "destination");
    let garbage = Some(any::raw(any::name(&store().expect("an image store")), vec![0xff]));
    fails("to garbage", transfer(registry("x"), garbage, "").await, InvalidArgument, "ImageStore");
    fails("from no reference", transfer(registry("a b"), store(), "").await, InvalidArgument, "\"a b\"");
    fails("from no stream", transfer(import("none"), store(), "").await, NotFound, "\"none\"");
    fails("progress to no stream", transfer(registry("x.test/y:1"), store(), "none").await, NotFound, "\"none\"");
    world.assert_as_before(&before).await;
}
