//! Exec over SPDY and WebSocket.

use std::time::Duration;

use e2e::cri::{Cri, refused};
use e2e::pod::{ready, sleeper};
use e2e::streaming::{Spdy, WebSocket, request};
use e2e::{Wiring, World, eventually};
use shared_proto::cri::v1::*;
use tonic::Code;

use crate::V4;

/// A world with one container that sleeps.
async fn sleeping(wiring: Wiring, name: &str) -> (World, Cri, String, String) {
    let (world, cri, config, pod) = ready(wiring, name).await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    // Its shell has started its sleep, so that no process is still to come.
    cri.asleep(&id).await;
    (world, cri, pod, id)
}

fn asked(id: &str, script: &str) -> ExecRequest {
    let cmd = ["sh", "-c", script].map(String::from).to_vec();
    ExecRequest { container_id: id.into(), cmd, stdout: true, stderr: true, ..Default::default() }
}

async fn url(cri: &Cri, request: ExecRequest) -> String {
    cri.exec(request).await.url
}

pub async fn exec_over_spdy(wiring: Wiring) {
    let (world, cri, pod, id) = sleeping(wiring, "spdy").await;
    let before = world.inventory().await;

    let both = url(&cri, asked(&id, "echo out; echo err >&2; exit 7")).await;
    let mut client = Spdy::connect(&both, &["v9.channel.k8s.io", V4, "channel.k8s.io"]).await;
    assert!(
        client.head.to_ascii_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"),
        "{}",
        client.head
    );
    for kind in ["error", "stdout", "stderr"] {
        client.open(kind, &[]).await;
    }
    let outcome = client.collect().await;
    assert_eq!((outcome.out().as_str(), outcome.err().as_str(), outcome.code()), ("out\n", "err\n", 7));

    // More than a window, there and back, ended by the end of stdin.
    let input: Vec<u8> = (0..150_000u32).map(|i| (i % 251) as u8).collect();
    let cat = url(&cri, ExecRequest { stdin: true, ..asked(&id, "cat; echo done >&2") }).await;
    let mut client = Spdy::with(&cat, V4, &["error", "stdin", "stdout", "stderr"]).await;
    client.send("stdin", &input[..100_000], false).await;
    client.send("stdin", &input[100_000..], true).await;
    let outcome = client.collect().await;
    assert!(outcome.stdout == input, "{} bytes came back", outcome.stdout.len());
    assert_eq!((outcome.err().as_str(), outcome.code()), ("done\n", 0));

    // A client that knows no windows gets megabytes; one that means them is not overrun.
    let flood = "yes 0123456789abcde | head -c 3000000";
    let mut client = Spdy::with(&url(&cri, asked(&id, flood)).await, V4, &["error", "stdout", "stderr"]).await;
    let outcome = client.collect().await;
    assert_eq!((outcome.stdout.len(), outcome.code()), (3_000_000, 0));
    let mut client = Spdy::connect(&url(&cri, asked(&id, flood)).await, &[V4]).await;
    client.open("stdout", &[]).await;
    client.widen("stdout", 1).await;
    for kind in ["stderr", "error"] {
        client.open(kind, &[]).await;
    }
    let mut got = 0;
    while got < (64 << 10) + 1 {
        got += client.next().await.expect("data").1.len();
    }
    let more = tokio::time::timeout(Duration::from_millis(500), client.next()).await;
    assert!(got == (64 << 10) + 1 && more.is_err(), "{got} bytes into a window of 65537, and then {more:?}");
    drop(client);

    // Before v4 there is text, and only when something is wrong.
    for (script, error) in [("true", ""), ("exit 3", "command terminated with non-zero exit code: exit status 3")] {
        let address = url(&cri, asked(&id, script)).await;
        let mut client = Spdy::with(&address, "channel.k8s.io", &["error", "stdout", "stderr"]).await;
        let outcome = client.collect().await;
        assert!(outcome.error.starts_with(error) && outcome.error.is_empty() == error.is_empty(), "{outcome:?}");
    }
    let missing = ExecRequest { cmd: vec!["/no/such/command".into()], ..asked(&id, "") };
    let mut client = Spdy::with(&url(&cri, missing).await, V4, &["error", "stdout", "stderr"]).await;
    let status = client.collect().await.status();
    assert_eq!(status["reason"], "InternalError");
    assert!(status["message"].as_str().is_some_and(|m| m.contains("/no/such/command")), "{status}");

    world.assert_as_before(&before).await;
    cri.end_pod(&pod).await;
}

pub async fn exec_over_websocket(wiring: Wiring) {
    let (world, cri, pod, id) = sleeping(wiring, "websocket").await;
    let before = world.inventory().await;
    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io", "v4.base64.channel.k8s.io", "v5.base64.channel.k8s.io"] {
        let address = url(&cri, ExecRequest { stdin: true, ..asked(&id, "head -n1; echo err >&2; exit 7") }).await;
        let mut client = WebSocket::connect(&address, protocol).await;
        client.send(0, b"hel").await;
        client.send(0, b"lo\n").await;
        let outcome = client.collect().await;
        let seen = (outcome.out(), outcome.err(), outcome.code());
        assert_eq!(seen, ("hello\n".into(), "err\n".into(), 7), "{protocol}");
    }
    for protocol in ["channel.k8s.io", "base64.channel.k8s.io", "v3.channel.k8s.io"] {
        let mut client = WebSocket::connect(&url(&cri, asked(&id, "echo out; exit 3")).await, protocol).await;
        let outcome = client.collect().await;
        assert!(outcome.out() == "out\n" && outcome.error.ends_with("exit status 3"), "{protocol}: {outcome:?}");
    }
    // Only v5 can end stdin.
    let address = url(&cri, ExecRequest { stdin: true, ..asked(&id, "cat; yes | head -c 2000000") }).await;
    let mut client = WebSocket::connect(&address, "v5.channel.k8s.io").await;
    client.send(0, b"all of it").await;
    client.end(0).await;
    let outcome = client.collect().await;
    assert!(outcome.stdout.starts_with(b"all of it") && outcome.stdout.len() == 2_000_009, "{}", outcome.stdout.len());
    assert_eq!(outcome.code(), 0);
    world.assert_as_before(&before).await;
    cri.end_pod(&pod).await;
}

pub async fn terminals(wiring: Wiring) {
    let (world, cri, pod, id) = sleeping(wiring, "terminals").await;
    let before = world.inventory().await;
    let script = "test -t 0 && test -t 1 && echo ready; read x; stty size; exit 4";
    let terminal = |script| ExecRequest { stdin: true, tty: true, stderr: false, ..asked(&id, script) };

    let mut client = Spdy::with(&url(&cri, terminal(script)).await, V4, &["error", "stdin", "stdout", "resize"]).await;
    client.until("ready").await;
    client.send("resize", br#"{"Width":101,"Height":37}"#, false).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.send("stdin", b"\r", false).await;
    let outcome = client.collect().await;
    assert!(outcome.out().contains("37 101\r\n") && outcome.code() == 4, "{outcome:?}");

    let mut client = WebSocket::connect(&url(&cri, terminal(script)).await, "v5.channel.k8s.io").await;
    let mut seen = String::new();
    while !seen.contains("ready") {
        seen += &String::from_utf8_lossy(&client.next().await.expect("output").1);
    }
    client.send(4, br#"{"Width":55,"Height":11}"#).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.send(0, b"\r").await;
    let outcome = client.collect().await;
    assert!(outcome.out().contains("11 55\r\n") && outcome.code() == 4, "{outcome:?}");

    world.assert_as_before(&before).await;
    cri.end_pod(&pod).await;
}

pub async fn refusals(wiring: Wiring) {
    let (_world, cri, pod, id) = sleeping(wiring, "refusals").await;
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
    let address = url(&cri, asked(&id, "true")).await;
    let (head, _) = request(&address, &[]).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let unknown = [upgrade[0], upgrade[1], ("X-Stream-Protocol-Version", "v9.channel.k8s.io")];
    let (head, _) = request(&address, &unknown).await;
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("v4.channel.k8s.io"), "{head}");
    // Neither has used the address up; a client that is served has.
    Spdy::with(&address, V4, &["error", "stdout", "stderr"]).await.collect().await;
    let (head, _) = request(&address, &upgrade).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let other = url(&cri, asked(&id, "true")).await.replace("/exec/", "/attach/");
    let (head, _) = request(&other, &upgrade).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");

    let none = ExecRequest { stdout: false, stderr: false, ..asked(&id, "true") };
    refused("no stream", cri.try_exec(none).await, Code::InvalidArgument, "stdin, stdout and stderr");
    let two_outputs = ExecRequest { tty: true, ..asked(&id, "true") };
    refused("two outputs of a terminal", cri.try_exec(two_outputs).await, Code::InvalidArgument, "tty and stderr");
    let nothing = ExecRequest { cmd: vec![], ..asked(&id, "") };
    refused("no command", cri.try_exec(nothing).await, Code::InvalidArgument, &id);
    refused("nowhere", cri.try_exec(asked("", "true")).await, Code::InvalidArgument, "container_id");
    let unknown = cri.try_exec(asked("no-such-container", "true")).await;
    refused("an unknown container", unknown, Code::NotFound, "\"no-such-container\"");
    cri.try_stop(&id, 0).await.expect("stop");
    refused("one that has ended", cri.try_exec(asked(&id, "true")).await, Code::FailedPrecondition, &id);
    cri.end_pod(&pod).await;
}

pub async fn clients_that_vanish(wiring: Wiring) {
    let (world, cri, pod, id) = sleeping(wiring, "vanish").await;
    let before = world.inventory().await;

    // stdin ends and a terminal hangs up for commands whose clients are gone.
    let cat = url(&cri, ExecRequest { stdin: true, ..asked(&id, "echo ready; cat") }).await;
    let mut client = Spdy::with(&cat, V4, &["error", "stdin", "stdout", "stderr"]).await;
    client.until("ready").await;
    drop(client);
    world.assert_as_before(&before).await;
    let terminal = ExecRequest { stdin: true, tty: true, stderr: false, ..asked(&id, "echo ready; sleep 777") };
    let mut client = Spdy::with(&url(&cri, terminal).await, V4, &["error", "stdin", "stdout", "resize"]).await;
    client.until("ready").await;
    drop(client);
    world.assert_as_before(&before).await;

    // A client that speaks nonsense ends its own connection only.
    let mut client =
        Spdy::with(&url(&cri, asked(&id, "echo ready; sleep 1; echo more")).await, V4, &["error", "stdout", "stderr"])
            .await;
    client.until("ready").await;
    let (_, mut nonsense) = request(
        &url(&cri, asked(&id, "true")).await,
        &[("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", V4)],
    )
    .await;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    nonsense.write_all(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff, 1, 2, 3]).await.expect("send nonsense");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(15), nonsense.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(client.collect().await.out().contains("more"));

    // A daemon that stops tells the client, and kills the command.
    let mut client =
        Spdy::with(&url(&cri, asked(&id, "echo ready; sleep 778")).await, V4, &["error", "stdout", "stderr"]).await;
    client.until("ready").await;
    let ended = tokio::spawn(async move { client.collect().await });
    let mut world = world.stopped().await;
    let status = ended.await.expect("the end").status();
    assert!(status["message"].as_str().is_some_and(|m| m.contains("stopping")), "{status}");
    world.run().await;
    eventually("the command is gone", Duration::from_secs(10), || async {
        let left = world.cri().exec_ok(&id, &["ps"]).await;
        if left.contains("sleep 778") { Err(left) } else { Ok(()) }
    })
    .await;
    world.cri().end_pod(&pod).await;
}
