//! Bytes on the core's socket that are no calls, calls that never end, and many who want the same.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use e2e::random::Random;
use e2e::{Wiring, World, eventually, world};
use futures::StreamExt as _;
use shared_proto::containerd::content::{self as ct, WriteAction};
use shared_proto::containerd::leases as l;
use shared_proto::core::Core;
use shared_proto::{Code, Context, transport};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Messages as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Calls `/SERVICE/METHOD` with these bytes.
async fn call(world: &World, method: &'static str, message: Bytes) -> Result<Bytes, tonic::Status> {
    let mut client = tonic::client::Grpc::new(transport::unix(&world.paths.core_socket));
    client.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "e2e".parse().expect("a value"));
    let answered = client.unary(request, http::uri::PathAndQuery::from_static(method), Raw);
    let answered = tokio::time::timeout(Duration::from_secs(10), answered).await;
    answered.expect("an answer in time").map(tonic::Response::into_inner)
}

/// A method of each service that takes a message with fields.
const METHODS: &[&str] = &[
    "/containerd.services.containers.v1.Containers/Create",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.diff.v1.Diff/Apply",
    "/containerd.services.events.v1.Events/Publish",
    "/containerd.services.images.v1.Images/Create",
    "/containerd.services.introspection.v1.Introspection/Plugins",
    "/containerd.services.leases.v1.Leases/Delete",
    "/containerd.services.namespaces.v1.Namespaces/Create",
    "/containerd.services.sandbox.v1.Store/Create",
    "/containerd.services.snapshots.v1.Snapshots/Prepare",
    "/containerd.services.tasks.v1.Tasks/Create",
    "/containerd.services.transfer.v1.Transfer/Transfer",
];

pub async fn bytes_that_are_no_message(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    // A tag without its value; a length beyond the end; a group that nobody closes; a text that is none.
    let broken: [&[u8]; 4] = [b"\x0a", b"\x0a\xff\xff\xff\x7f", b"\x0b", b"\x0a\x02\xff\xfe"];
    for method in METHODS {
        for bytes in broken {
            let status = call(&world, method, Bytes::from_static(bytes)).await.expect_err(method);
            let refused = matches!(status.code(), tonic::Code::Internal | tonic::Code::InvalidArgument);
            assert!(refused && !status.message().is_empty(), "{method} {bytes:?}: {status:?}");
        }
    }
    for method in ["/containerd.services.tasks.v1.Tasks/Nothing", "/containerd.services.nothing.v1.Nothing/Get"] {
        let status = call(&world, method, Bytes::new()).await.expect_err(method);
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{method}: {status:?}");
    }

    // Made up messages: an answer or an error, and the daemon lives on.
    let mut random = Random::new();
    for n in 0..300 {
        let method = METHODS[n % METHODS.len()];
        let length = random.below(64) as usize;
        let message: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let _ = call(&world, method, message.into()).await;
    }

    // No HTTP/2 at all, the beginning of it, and frames of nonsense: each only ends its own connection.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n", &[0xff; 4096]] {
        let mut socket = UnixStream::connect(&world.paths.core_socket).expect("connect");
        socket.write_all(bytes).expect("write");
        let mut preface = UnixStream::connect(&world.paths.core_socket).expect("connect");
        preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("write");
        let _ = preface.write_all(bytes);
    }
    world.core().version.version(&Context::default(), ()).await.expect("it lives");
    world.assert_as_before(&before).await;
}

fn stat(reference: &str) -> ct::WriteContentRequest {
    ct::WriteContentRequest { action: WriteAction::Stat.into(), r#ref: reference.to_owned(), ..Default::default() }
}

/// Opens writes: every other one says what it wants to write, and no more.
async fn open_writes(core: &Core, cx: &Context, count: usize) -> Vec<Box<dyn std::any::Any>> {
    let mut open: Vec<Box<dyn std::any::Any>> = Vec::new();
    for n in 0..count {
        let first = (n % 2 == 1).then(|| Ok(stat(&format!("half-{n}"))));
        let messages = futures::stream::iter(first).chain(futures::stream::pending()).boxed();
        let (core, cx) = (core.clone(), cx.clone());
        let mut answers = Box::pin(async move { core.content.write(&cx, messages).await });
        // The call without a message has no answer yet.
        match tokio::time::timeout(Duration::from_millis(20), &mut answers).await {
            Ok(answered) => open.push(Box::new(answered.expect("a stream"))),
            Err(_) => open.push(Box::new(answers)),
        }
    }
    open
}

pub async fn calls_that_never_end(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    let core = world.core();
    let cx = Context::new("e2e");
    core.version.version(&cx, ()).await.expect("the connection of this test stands");
    let (descriptors, _) = world.descriptors();

    // Connections that say nothing, half a greeting, or a greeting and no more.
    let half: Vec<UnixStream> = (0..150)
        .map(|n| {
            let mut socket = UnixStream::connect(&world.paths.core_socket).expect("connect");
            let said: &[u8] = [&b""[..], b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"][n % 3];
            socket.write_all(said).expect("write");
            socket
        })
        .collect();
    // Writes of which the first message never comes, and writes that stop after it. Their client has a runtime of its
    // own: only with that a connection with open streams ends.
    let (opened, all_open) = tokio::sync::oneshot::channel();
    let (leave, left) = tokio::sync::oneshot::channel();
    let (socket, namespace) = (world.paths.core_socket.clone(), cx.clone());
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let core = Core::remote(transport::unix(&socket));
            let _held = open_writes(&core, &namespace, 100).await;
            opened.send(()).expect("the test waits");
            left.await.expect("the test says when");
        });
    });
    all_open.await.expect("streams");
    tokio::time::timeout(Duration::from_secs(5), core.version.version(&cx, ()))
        .await
        .expect("in time")
        .expect("Version");
    let active = world.ctr(&["-n", "e2e", "content", "active"]);
    assert_eq!(active.lines().count(), 1 + 50, "a line for each that has begun:\n{active}");

    // They go, and with them their locks and descriptors.
    drop(half);
    leave.send(()).expect("the client waits");
    client.join().expect("the client ends");
    eventually("the descriptors are back", Duration::from_secs(10), || async {
        let (now, _) = world.descriptors();
        if now <= descriptors + 3 { Ok(()) } else { Err(format!("{now} descriptors, {descriptors} before")) }
    })
    .await;
    for n in (1..100).step_by(2) {
        let reference = format!("half-{n}");
        match core.content.abort(&cx, ct::AbortRequest { r#ref: reference.clone() }).await {
            Ok(()) => {}
            Err(e) => assert_eq!(e.code, Code::NotFound, "{reference}: {e}"),
        }
    }
    world.assert_as_before(&before).await;
}

pub async fn many_who_write_the_same(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    let cx = Context::new("e2e");
    let core = world.core();
    core.leases.create(&cx, l::CreateRequest { id: "fight".into(), ..Default::default() }).await.expect("a lease");
    let cx = cx.with_lease("fight");
    let data = Bytes::from("all the same ".repeat(20_000));
    let digest = e2e::image::digest(&data);
    let writers = (0..24).map(|_| write_until_there(&world, &cx, &data, &digest));
    let committed: usize = futures::future::join_all(writers).await.into_iter().map(usize::from).sum();
    assert_eq!(committed, 1, "one of them commits");
    let statuses = core.content.list_statuses(&cx, Default::default()).await.expect("list").statuses;
    assert!(statuses.is_empty(), "{statuses:?}");
    let info = core.content.info(&cx, ct::InfoRequest { digest: digest.clone() }).await.expect("it is there");
    assert_eq!(info.info.expect("its record").size, data.len() as i64);
    core.leases.delete(&cx, l::DeleteRequest { id: "fight".into(), sync: true }).await.expect("delete the lease");
    world.assert_as_before(&before).await;
}

/// Writes as clients do: waits while it is locked, goes on where somebody stopped, and often stops itself. Whether it
/// was this one who committed.
async fn write_until_there(world: &World, cx: &Context, data: &Bytes, digest: &str) -> bool {
    for attempt in 0..500usize {
        let core = world.core();
        let (send, messages) = futures::channel::mpsc::unbounded();
        let expected =
            ct::WriteContentRequest { expected: digest.to_owned(), total: data.len() as i64, ..stat("fought-over") };
        send.unbounded_send(Ok(expected.clone())).expect("send");
        let begun = match core.content.write(cx, messages.boxed()).await {
            Ok(mut answers) => answers.next().await.expect("an answer").map(|answer| (answers, answer.offset)),
            Err(e) => Err(e),
        };
        let (mut answers, offset) = match begun {
            Ok(begun) => begun,
            Err(e) if e.code == Code::AlreadyExists => return false,
            Err(e) => {
                assert_eq!(e.code, Code::Unavailable, "{e}");
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let rest = data.slice(offset as usize..);
        // The first half of all attempts ends in the middle, with the connection.
        let stops = attempt < 3 && rest.len() > 50_000;
        let part = if stops { rest.slice(..20_000) } else { rest };
        let action = if stops { WriteAction::Write } else { WriteAction::Commit };
        let write = ct::WriteContentRequest { action: action.into(), offset, data: part, ..expected };
        send.unbounded_send(Ok(write)).expect("send");
        match answers.next().await.expect("an answer") {
            Ok(_) if stops => {}
            Ok(_) => return true,
            Err(e) => {
                assert_eq!(e.code, Code::AlreadyExists, "{e}");
                return false;
            }
        }
    }
    panic!("the lock never came free");
}
