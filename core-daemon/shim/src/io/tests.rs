//! Streams without an engine: a shell stands for the container.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use super::*;

fn owner() -> Owner {
    Owner { namespace: "ns".into(), id: "box".into(), uid: 0, gid: 0 }
}

/// Runs a script on the streams.
async fn run(streams: Streams, script: &str) -> std::process::Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr).spawn().unwrap()
}

async fn text(mut file: File) -> String {
    shared_sys::blocking(move || {
        rustix::io::ioctl_fionbio(&file, false).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    })
    .await
}

#[tokio::test]
async fn output_waits_for_a_late_reader_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let address = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let stdio = Stdio { stdout: address("out"), stderr: format!("fifo://{}", address("err")), ..Stdio::default() };
    let (streams, io) = open(&stdio, &owner()).await.unwrap();
    let mut child = run(streams, "echo out; echo err >&2; cat").await;
    assert!(child.wait().unwrap().success(), "no input is an end at once");
    let reader = |name: &str| fifo::open_read(&dir.path().join(name)).unwrap();
    assert_eq!(text(reader("out")).await, "out\n");
    assert_eq!(text(reader("err")).await, "err\n");
    drop(io);
}

#[tokio::test]
async fn input_ends_when_it_is_closed_and_not_with_a_client() {
    let dir = tempfile::tempdir().unwrap();
    for leaving in [false, true] {
        let path = dir.path().join(format!("in-{leaving}"));
        let log = dir.path().join(format!("log-{leaving}"));
        let stdio = Stdio {
            stdin: path.to_str().unwrap().into(),
            stdout: format!("file://{}", log.display()),
            ..Stdio::default()
        };
        let (streams, io) = open(&stdio, &owner()).await.unwrap();
        let mut child = run(streams, "cat; echo end").await;
        // Nobody has opened it yet: no end.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(child.try_wait().unwrap().is_none());
        let mut client = fifo::open_write(&path).unwrap();
        client.write_all(b"hello ").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.write_all(b"world\n").unwrap();
        if leaving {
            drop(client);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(child.try_wait().unwrap().is_none());
        }
        io.close_stdin();
        let status = shared_sys::blocking(move || child.wait().unwrap());
        assert!(tokio::time::timeout(Duration::from_secs(10), status).await.unwrap().success());
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "hello world\nend\n");
    }
}

#[tokio::test]
async fn a_logger_takes_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("logger");
    let log = dir.path().join("log");
    let script = "#!/bin/sh\nexec 5>&-\n{ echo $CONTAINER_NAMESPACE $CONTAINER_ID $@; cat <&3; cat <&4; } > $2\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let stdout = format!("binary://{}?file={}", program.display(), log.display());
    let (streams, io) = open(&Stdio { stdout, ..Stdio::default() }, &owner()).await.unwrap();
    run(streams, "echo out; echo err >&2").await.wait().unwrap();
    let expected = format!("ns box file {}\nout\nerr\n", log.display());
    for _ in 0..500 {
        if std::fs::read_to_string(&log).is_ok_and(|text| text == expected) {
            drop(io);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", std::fs::read_to_string(&log));
}

#[tokio::test]
async fn addresses_that_are_not_known_are_named() {
    for stdio in [
        Stdio { stdout: "http://here".into(), ..Stdio::default() },
        Stdio { stdin: "relative".into(), ..Stdio::default() },
        Stdio { stdout: "binary:///nowhere/logger".into(), ..Stdio::default() },
    ] {
        let e = open(&stdio, &owner()).await.err().unwrap().to_string();
        assert!(["http://here", "relative", "/nowhere/logger"].iter().any(|name| e.contains(name)), "{e}");
    }
}
