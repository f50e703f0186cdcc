//! Attach over SPDY and WebSocket.

use e2e::Wiring;
use e2e::cri::{Cri, refused};
use e2e::pod::{ready, script};
use e2e::streaming::{Spdy, WebSocket};
use shared_proto::cri::v1::*;
use tonic::Code;

use crate::V4;

const ALL: [&str; 4] = ["error", "stdin", "stdout", "stderr"];

/// A container that tells what it reads, on both outputs.
fn parrot(name: &str) -> ContainerConfig {
    let text = "while read -r line; do echo \"got $line\"; echo \"err $line\" >&2; done; echo end; exit 3";
    ContainerConfig { stdin: true, ..script(name, text) }
}

async fn url(cri: &Cri, id: &str, stdin: bool) -> String {
    let request = AttachRequest { container_id: id.into(), stdin, stdout: true, stderr: true, ..Default::default() };
    cri.attach(request).await.url
}

pub async fn attaching(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "attach").await;
    let id = cri.run(&pod, &config, &parrot("main")).await;

    // Two clients see the same; one of them types.
    let mut typist = Spdy::with(&url(&cri, &id, true).await, V4, &ALL).await;
    let mut watcher = WebSocket::connect(&url(&cri, &id, false).await, "v4.channel.k8s.io").await;
    // The first message says that it is attached.
    assert_eq!(watcher.next().await, Some((1, vec![])));
    typist.send("stdin", b"one\n", false).await;
    typist.until("got one").await;
    let mut seen = [String::new(), String::new()];
    while !(seen[0].contains("got one") && seen[1].contains("err one")) {
        let (channel, data) = watcher.next().await.expect("output");
        seen[usize::from(channel) - 1] += &String::from_utf8_lossy(&data);
    }

    // Whoever has typed all is detached; the container reads on, and the next one types.
    typist.send("stdin", b"two\n", true).await;
    let outcome = typist.collect().await;
    assert_eq!(outcome.code(), 0);
    drop(watcher);
    let mut next = WebSocket::connect(&url(&cri, &id, true).await, "v5.channel.k8s.io").await;
    next.send(0, b"three\n").await;
    let mut text = String::new();
    while !text.contains("got three") {
        text += &String::from_utf8_lossy(&next.next().await.expect("output").1);
    }
    drop(next);

    // A daemon that stops ends attachments, not what they are attached to.
    let mut left = Spdy::with(&url(&cri, &id, true).await, V4, &ALL).await;
    left.send("stdin", b"more\n", false).await;
    left.until("got more").await;
    let ended = tokio::spawn(async move { left.collect().await });
    let mut world = world.stopped().await;
    let status = ended.await.expect("the end").status();
    assert!(status["message"].as_str().is_some_and(|m| m.contains("stopping")), "{status}");
    world.run().await;
    let cri = world.cri();
    let mut after = Spdy::with(&url(&cri, &id, true).await, V4, &ALL).await;
    after.send("stdin", b"four\n", false).await;
    after.until("got four").await;

    // The end of the container is the end of the attachment.
    let collected = tokio::spawn(async move { after.collect().await });
    cri.try_stop(&id, 0).await.expect("stop");
    assert_eq!(collected.await.expect("the end").code(), 0);
    let log = std::fs::read_to_string(world.log("attach", "main")).expect("the log");
    for word in ["one", "two", "three", "more", "four"] {
        for text in [format!("stdout F got {word}\n"), format!("stderr F err {word}\n")] {
            assert_eq!(log.matches(&text).count(), 1, "{text} in {log}");
        }
    }
    let request = AttachRequest { container_id: id.clone(), stdout: true, ..Default::default() };
    refused("one that has ended", cri.try_attach(request.clone()).await, Code::FailedPrecondition, &id);
    let unknown = AttachRequest { container_id: "none-such".into(), ..request.clone() };
    refused("an unknown container", cri.try_attach(unknown).await, Code::NotFound, "\"none-such\"");
    let nowhere = AttachRequest { container_id: String::new(), ..request.clone() };
    refused("nowhere", cri.try_attach(nowhere).await, Code::InvalidArgument, "container_id");
    let none = AttachRequest { stdout: false, ..request.clone() };
    refused("no stream", cri.try_attach(none).await, Code::InvalidArgument, "stdin, stdout and stderr");
    let both = AttachRequest { tty: true, stderr: true, ..request };
    refused("two outputs of a terminal", cri.try_attach(both).await, Code::InvalidArgument, "tty and stderr");
    cri.end_pod(&pod).await;
}

pub async fn stdin_once(wiring: Wiring) {
    let (_world, cri, config, pod) = ready(wiring, "once").await;
    for (name, vanishes) in [("ends", false), ("vanishes", true)] {
        let id = cri.run(&pod, &config, &ContainerConfig { stdin_once: true, ..parrot(name) }).await;
        let mut client = Spdy::with(&url(&cri, &id, true).await, V4, &ALL).await;
        if vanishes {
            client.send("stdin", b"last\n", false).await;
            client.until("got last").await;
            drop(client);
        } else {
            client.send("stdin", b"last\n", true).await;
            let outcome = client.collect().await;
            assert!(outcome.out() == "got last\nend\n" && outcome.err() == "err last\n", "{outcome:?}");
            assert_eq!(outcome.code(), 0);
        }
        assert_eq!(cri.exited(&id).await.exit_code, 3, "{name}");
    }
    cri.end_pod(&pod).await;
}

pub async fn attached_terminals(wiring: Wiring) {
    let (_world, cri, config, pod) = ready(wiring, "terminal").await;
    let text = "while read x; do [ \"$x\" = quit ] && exit 5; stty size; done";
    let id = cri.run(&pod, &config, &ContainerConfig { stdin: true, tty: true, ..script("main", text) }).await;
    let request =
        AttachRequest { container_id: id.clone(), stdin: true, stdout: true, tty: true, ..Default::default() };
    for size in [(90, 33), (70, 22)] {
        let url = cri.attach(request.clone()).await.url;
        let mut client = Spdy::with(&url, V4, &["error", "stdin", "stdout", "resize"]).await;
        client.send("resize", format!(r#"{{"Width":{},"Height":{}}}"#, size.0, size.1).as_bytes(), false).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        client.send("stdin", b"\r", false).await;
        client.until(&format!("{} {}\r\n", size.1, size.0)).await;
        // The terminal outlives who was attached.
    }
    let mut client = WebSocket::connect(&cri.attach(request).await.url, "v5.channel.k8s.io").await;
    client.send(0, b"quit\r").await;
    assert_eq!(client.collect().await.code(), 0);
    assert_eq!(cri.exited(&id).await.exit_code, 5);
    cri.end_pod(&pod).await;
}

/// Lines of 65,536 bytes that the container of the test below writes.
const LINES: usize = 400;

pub async fn slow_clients_of_an_attach(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "slow").await;
    let text = format!(
        "line=$(head -c 65535 /dev/zero | tr '\\0' x); read -r go; i=0; \
         while [ $i -lt {LINES} ]; do echo $line; usleep 5000; i=$((i+1)); done; read -r end"
    );
    let id = cri.run(&pod, &config, &ContainerConfig { stdin: true, ..script("main", &text) }).await;
    // It reads nothing at all.
    let mut slow = Spdy::with(&url(&cri, &id, false).await, V4, &["error", "stdout", "stderr"]).await;
    let mut quick = Spdy::with(&url(&cri, &id, true).await, V4, &ALL).await;
    quick.send("stdin", b"go\n", false).await;
    let mut got = 0;
    while got < LINES << 16 {
        got += quick.next().await.expect("output").1.len();
    }
    assert_eq!(got, LINES << 16);
    let outcome = slow.collect().await;
    let message = outcome.status()["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("too slowly") && outcome.stdout.len() < LINES << 16, "{message}");
    quick.send("stdin", b"end\n", false).await;
    assert_eq!(quick.collect().await.code(), 0);
    cri.exited(&id).await;
    let log = std::fs::read(world.log("slow", "main")).expect("the log");
    assert_eq!(log.iter().filter(|byte| **byte == b'x').count(), LINES * 65_535, "the log has all of it");
    cri.end_pod(&pod).await;
}
