//! Logs of real FIFOs and a writing process, through restarts and rotation.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use shared_sys::fifo;

fn input(dir: &Path, both: bool) -> LogInput {
    let stdout = dir.join("stdout");
    let stderr = both.then(|| dir.join("stderr"));
    for path in [Some(&stdout), stderr.as_ref()].into_iter().flatten() {
        fifo::make(path, 0o600).unwrap();
    }
    LogInput { id: "c".into(), stdout: Some(stdout), stderr, log_path: Some(dir.join("logs/0.log")), max_line: 16384 }
}

/// The texts of one stream's entries.
fn texts(log: &Path, stream: &str) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let entries = text.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>());
    entries.filter(|e| e[1] == stream).map(|e| format!("{} {}", e[2], e[3])).collect()
}

#[tokio::test]
async fn both_streams_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let input = input(dir.path(), true);
    let log = input.log_path.clone().unwrap();
    let handle = Logs::new().attach(input.clone()).await.unwrap();
    let mut out = fifo::open_write(input.stdout.as_ref().unwrap()).unwrap();
    let mut err = fifo::open_write(input.stderr.as_ref().unwrap()).unwrap();
    out.write_all(b"one\ntwo\nend").unwrap();
    err.write_all(b"bad\n").unwrap();
    drop(err);
    let drained = handle.drained(Duration::from_secs(10));
    tokio::pin!(drained);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut drained).await.is_err(), "stdout is still open");
    drop(out);
    assert!(drained.await);
    assert_eq!(texts(&log, "stdout"), ["F one", "F two", "P end"]);
    assert_eq!(texts(&log, "stderr"), ["F bad"]);
    assert!(handle.reopen().await.is_err());
    assert!(handle.drained(Duration::ZERO).await);
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["logs", "stderr", "stdout"]);
}

#[tokio::test]
async fn a_writer_that_comes_and_goes_at_once_and_one_that_never_goes() {
    let dir = tempfile::tempdir().unwrap();
    let input = input(dir.path(), false);
    let log = input.log_path.clone().unwrap();
    let handle = Logs::new().attach(input.clone()).await.unwrap();
    let mut out = fifo::open_write(input.stdout.as_ref().unwrap()).unwrap();
    out.write_all(b"held\nopen").unwrap();
    assert!(!handle.drained(Duration::from_millis(200)).await, "the writer is still there");
    assert_eq!(texts(&log, "stdout"), ["F held", "P open"]);

    let handle = Logs::new().attach(input.clone()).await.unwrap();
    drop(out);
    drop(fifo::open_write(input.stdout.as_ref().unwrap()).unwrap());
    assert!(handle.drained(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn rotation_and_restarts_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let input = input(dir.path(), false);
    let log = input.log_path.clone().unwrap();
    let logs = Logs::new();
    let mut handle = logs.attach(input.clone()).await.unwrap();
    // The shim's part: a process that keeps both ends open, and blocks while nobody reads.
    let path = input.stdout.as_ref().unwrap().display();
    let script =
        format!("exec 3<>{path}; i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done >&3; sleep 0.2");
    let mut writer = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    let mut files = Vec::new();
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(15)).await;
        match round % 3 {
            0 => {
                let old = dir.path().join(format!("logs/0.log.{round}"));
                fs::rename(&log, &old).unwrap();
                files.push(old);
                handle.reopen().await.unwrap();
            }
            1 => {
                handle.detach().await;
                handle = logs.attach(input.clone()).await.unwrap();
            }
            _ => {
                drop(handle);
                handle = logs.attach(input.clone()).await.unwrap();
            }
        }
    }
    tokio::task::spawn_blocking(move || writer.wait().unwrap()).await.unwrap();
    assert!(handle.drained(Duration::from_secs(20)).await);
    files.push(log);
    let lines: Vec<_> = files.iter().flat_map(|file| texts(file, "stdout")).collect();
    let expected: Vec<_> = (0..30000).map(|i| format!("F line {i}")).collect();
    assert!(lines == expected, "{} lines", lines.len());
}

#[tokio::test]
async fn without_a_log_output_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let input = LogInput { log_path: None, ..input(dir.path(), false) };
    let handle = Logs::new().attach(input.clone()).await.unwrap();
    let path = input.stdout.clone().unwrap();
    let writer = tokio::task::spawn_blocking(move || {
        // More than a FIFO holds: somebody must read.
        let mut out = fs::OpenOptions::new().write(true).open(path).unwrap();
        out.write_all(&vec![b'x'; 3 << 20]).unwrap();
    });
    writer.await.unwrap();
    assert!(handle.drained(Duration::from_secs(10)).await);
}
