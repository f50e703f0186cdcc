//! A daemon that is killed again and again while a container writes, and once more while it ends: every line is in
//! the log, once, in order.
//!
//! This program is the daemon, the FIFO keeper and the test in one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cri_daemon::logs::{LogInput, Logs, keeper};

const LINES: usize = 200_000;

fn main() {
    keeper::run_if_asked();
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("daemon") => daemon(Path::new(&args[2])),
        Some("shim") => shim(Path::new(&args[2]), args[3].parse().expect("a number")),
        // Whatever cargo passes on to tests.
        Some(_) | None => test(),
    }
}

fn input(dir: &Path) -> LogInput {
    LogInput {
        id: "c".into(),
        stdout: Some(dir.join("stdout")),
        stderr: None,
        log_path: Some(dir.join("0.log")),
        max_line: 16384,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn daemon(dir: &Path) {
    runtime().block_on(async {
        let logs = Logs::keeping(&dir.join("keeper.sock"));
        logs.start().await;
        let _handle = logs.attach(input(dir)).await.expect("attach");
        println!("ready");
        std::future::pending::<()>().await;
    });
}

/// The n-th line: numbers, and between them lines that are all the same.
fn line(n: usize) -> String {
    if n.is_multiple_of(3) { format!("line {n}") } else { "the same".into() }
}

/// Holds both ends, as a shim does, and closes them when its container has ended.
fn shim(dir: &Path, lines: usize) {
    let _reader = shared_sys::fifo::open_read(&dir.join("stdout")).expect("open the FIFO");
    let mut fifo = File::options().write(true).open(dir.join("stdout")).expect("open the FIFO");
    for n in 0..lines {
        fifo.write_all(format!("{}\n", line(n)).as_bytes()).expect("write");
    }
}

fn start(role: &str, dir: &Path, lines: usize) -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).arg(dir).arg(lines.to_string()).stdout(Stdio::piped()).spawn().expect("start")
}

/// A daemon that is reading.
fn start_daemon(dir: &Path) -> Child {
    let mut daemon = start("daemon", dir, 0);
    let mut ready = String::new();
    BufReader::new(daemon.stdout.take().expect("stdout")).read_line(&mut ready).expect("read");
    assert_eq!(ready, "ready\n");
    daemon
}

fn kill(mut daemon: Child) {
    daemon.kill().expect("kill");
    daemon.wait().expect("wait");
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    shared_sys::fifo::make(&dir.path().join("stdout"), 0o600).expect("a FIFO");
    dir
}

fn test() {
    killed_while_it_writes();
    killed_before_it_ends();
}

fn killed_while_it_writes() {
    let dir = folder();
    let mut running: Option<Child> = None;
    for kills in 1.. {
        let daemon = start_daemon(dir.path());
        let shim = running.get_or_insert_with(|| start("shim", dir.path(), LINES));
        // Short and uneven, so that the kill hits every step in the end.
        std::thread::sleep(Duration::from_micros(300 + 700 * (kills % 17)));
        kill(daemon);
        std::thread::sleep(Duration::from_millis(2));
        if shim.try_wait().expect("wait").is_some() {
            check(dir.path(), LINES);
            println!("{LINES} lines through {kills} kills: each once, in order");
            return;
        }
    }
}

/// The shim opens, writes and closes the FIFO while no daemon runs.
fn killed_before_it_ends() {
    let dir = folder();
    kill(start_daemon(dir.path()));
    start("shim", dir.path(), 500).wait().expect("wait");
    check(dir.path(), 500);
}

/// The shim is gone, and so is the daemon. What is left is in the keeper's hands.
fn check(dir: &Path, expected: usize) {
    let socket = dir.join("keeper.sock");
    runtime().block_on(async {
        let logs = Logs::keeping(&socket);
        let handle = logs.attach(input(dir)).await.expect("attach");
        assert!(handle.drained(Duration::from_secs(20)).await, "drained");
    });
    let text = fs::read_to_string(dir.join("0.log")).expect("read the log");
    let lines: Vec<&str> = text.lines().map(|line| line.splitn(4, ' ').nth(3).expect("an entry")).collect();
    let wrong = (0..expected).find(|n| lines.get(*n).copied() != Some(line(*n).as_str()));
    assert!(wrong.is_none() && lines.len() == expected, "{} lines, wrong from {wrong:?}", lines.len());

    let started = Instant::now();
    while UnixStream::connect(&socket).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(5), "the keeper ends when it holds nothing for nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
}
