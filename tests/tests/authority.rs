//! Clients of every age on the real sockets: what they put into `:authority`, and CRI v1alpha2.
//!
//! The requests are written byte by byte, since no client library of today still sends them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::sleeper;
use e2e::{Wiring, world};
use prost::Message;
use shared_proto::cri::v1::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

e2e::wirings!(every_authority_gets_in, the_alpha_api_answers);

/// How a client writes a header: literal with its name spelled out (C-core), or with the name's index (Go, Java).
#[derive(Debug, Clone, Copy)]
enum Style {
    CCore,
    Go,
}

fn literal(out: &mut Vec<u8>, prefix: u8, name: &str, value: &str) {
    out.push(prefix);
    for text in [name, value] {
        let length = u8::try_from(text.len()).ok().filter(|l| *l < 127).expect("a short header");
        out.push(length);
        out.extend_from_slice(text.as_bytes());
    }
}

fn indexed_name(out: &mut Vec<u8>, index: u8, value: &str) {
    out.push(0x40 | index);
    out.push(u8::try_from(value.len()).ok().filter(|l| *l < 127).expect("a short header"));
    out.extend_from_slice(value.as_bytes());
}

/// A header block of a gRPC request.
fn headers(style: Style, authority: &str, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match style {
        Style::CCore => {
            literal(&mut out, 0x40, ":path", path);
            literal(&mut out, 0x40, ":authority", authority);
            out.extend([0x83, 0x86]); // :method POST, :scheme http
        }
        Style::Go => {
            out.extend([0x83, 0x86]);
            indexed_name(&mut out, 4, path); // :path
            indexed_name(&mut out, 1, authority); // :authority
        }
    }
    literal(&mut out, 0x40, "content-type", "application/grpc");
    literal(&mut out, 0x40, "te", "trailers");
    out
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Calls `path` `calls` times on one connection and answers the messages.
async fn call(socket: &Path, style: Style, authority: &str, path: &str, calls: u32, message: &[u8]) -> Vec<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await.unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(4, 0, 0, &[]));
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(message);
    for i in 0..calls {
        out.extend(frame(1, 4, 1 + 2 * i, &headers(style, authority, path)));
        out.extend(frame(0, 1, 1 + 2 * i, &body));
    }
    stream.write_all(&out).await.expect("send the calls");

    let mut answers = vec![Vec::new(); calls as usize];
    let mut open = calls;
    while open > 0 {
        let mut head = [0; 9];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut head)).await;
        read.expect("an answer in time").unwrap_or_else(|e| panic!("{style:?} {authority:?} {path}: {e}"));
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.expect("the frame's payload");
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            0 => answers[(number as usize - 1) / 2].extend(payload),
            3 => panic!("{style:?} {authority:?} {path}: stream {number} was reset: {payload:?}"),
            7 => panic!("{style:?} {authority:?} {path}: the connection was closed: {payload:?}"),
            _ => {}
        }
        // HEADERS or DATA with END_STREAM.
        if matches!(head[3], 0 | 1) && head[4] & 1 == 1 {
            open -= 1;
        }
    }
    answers.into_iter().map(|answer| answer.get(5..).map(<[u8]>::to_vec).unwrap_or_default()).collect()
}

/// Every spelling that clients have used for a Unix socket.
fn authorities(socket: &Path) -> Vec<String> {
    let raw = socket.display().to_string();
    let encoded = raw.replace('/', "%2F");
    let relative = encoded.replacen("%2F", "", 1);
    vec![raw.clone(), format!("unix://{raw}"), encoded, relative, "localhost".into()]
}

async fn every_authority_gets_in(wiring: Wiring) {
    let world = world(wiring).await;
    let request = VersionRequest { version: "0.1.0".into() }.encode_to_vec();
    let mut doors: Vec<(PathBuf, &str, &[u8])> = vec![
        (world.paths.core_socket.clone(), "/containerd.services.version.v1.Version/Version", b""),
        (world.paths.cri_socket.clone(), "/runtime.v1.RuntimeService/Version", &request),
        (world.paths.cri_socket.clone(), "/runtime.v1alpha2.RuntimeService/Version", &request),
    ];
    if wiring != Wiring::Split {
        // As in containerd 1.1: CRI on the core's socket as well.
        doors.push((world.paths.core_socket.clone(), "/runtime.v1.RuntimeService/Version", &request));
        doors.push((world.paths.core_socket.clone(), "/runtime.v1alpha2.RuntimeService/Version", &request));
    }
    for (socket, path, request) in doors {
        for authority in authorities(&socket) {
            for style in [Style::CCore, Style::Go] {
                for answer in call(&socket, style, &authority, path, 5, request).await {
                    assert!(!answer.is_empty(), "{style:?} {authority:?} {path}: no message");
                }
            }
        }
    }
}

/// A unary call under the old package name, on the CRI socket.
async fn alpha<Q: Message, A: Message + Default>(socket: &Path, service: &str, method: &str, request: Q) -> A {
    let path = format!("/runtime.v1alpha2.{service}/{method}");
    let raw = socket.display().to_string();
    let answers = call(socket, Style::Go, &raw, &path, 1, &request.encode_to_vec()).await;
    A::decode(answers[0].as_slice()).unwrap_or_else(|e| panic!("{path}: {e}"))
}

async fn the_alpha_api_answers(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let socket = &world.paths.cri_socket;
    let version: VersionResponse = alpha(socket, "RuntimeService", "Version", VersionRequest::default()).await;
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1alpha2"));
    let request = ImageStatusRequest { image: Some(e2e::cri::image(BUSYBOX)), verbose: false };
    let found: ImageStatusResponse = alpha(socket, "ImageService", "ImageStatus", request).await;
    assert_eq!(found.image.expect("the image").repo_tags, [BUSYBOX]);

    let config = world.pod("alpha");
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let pod: RunPodSandboxResponse = alpha(socket, "RuntimeService", "RunPodSandbox", request).await;
    let pod = pod.pod_sandbox_id;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    // Both versions see the same pods.
    let list: ListContainersResponse =
        alpha(socket, "RuntimeService", "ListContainers", ListContainersRequest::default()).await;
    assert_eq!(list.containers[0].id, id);
    let exec = ExecSyncRequest { container_id: id, cmd: vec!["hostname".into()], timeout: 10 };
    let said: ExecSyncResponse = alpha(socket, "RuntimeService", "ExecSync", exec).await;
    assert_eq!(said.stdout, b"alpha\n");
    let stop = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    let _: StopPodSandboxResponse = alpha(socket, "RuntimeService", "StopPodSandbox", stop).await;
    let remove = RemovePodSandboxRequest { pod_sandbox_id: pod };
    let _: RemovePodSandboxResponse = alpha(socket, "RuntimeService", "RemovePodSandbox", remove).await;
    world.no_pods().await;
}
