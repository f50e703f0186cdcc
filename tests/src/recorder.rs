//! The flight recorder in front of a world, and its recordings replayed on another one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::cri::Cri;
use crate::daemon::{Daemon, binary};
use crate::{World, eventually};

/// A running `cri-daemon record`.
#[derive(Debug)]
pub struct Recorder {
    process: Daemon,
    /// What clients connect to.
    pub socket: PathBuf,
    file: PathBuf,
}

impl Recorder {
    /// Starts one in front of a world's CRI socket.
    pub async fn start(world: &World, name: &str) -> Self {
        let dir = &world.paths.dir;
        let (socket, file) = (dir.join(format!("{name}.sock")), dir.join(format!("{name}.jsonl")));
        let mut command = Command::new(binary("cri-daemon"));
        command.arg("record").arg("--listen").arg(&socket).arg("--to").arg(world.cri_socket());
        command.arg("--output").arg(&file);
        let process = Daemon::spawn("recorder", &mut command, &dir.join("recorder.log"));
        eventually("the recorder listens", Duration::from_secs(10), || async {
            if socket.exists() { Ok(()) } else { Err("no socket yet".into()) }
        })
        .await;
        let answer = Cri::connect(&socket).version().await;
        answer.unwrap_or_else(|e| panic!("{e:?}\n{}", process.log_tail(20)));
        Self { process, socket, file }
    }

    /// Ends the recording: its file and its lines.
    pub fn stop(self) -> (PathBuf, Vec<Value>) {
        self.process.stop();
        let text = std::fs::read_to_string(&self.file).expect("read the recording");
        let line = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        (self.file, text.lines().map(line).collect())
    }
}

/// Replays `file`, recorded in the world `from`, on `on`.
pub fn replay(file: &Path, from: &World, on: &World, more: &[&str]) -> Output {
    let mut command = Command::new(binary("cri-daemon"));
    command.arg("replay").arg(file).arg("--endpoint").arg(on.cri_socket());
    command.arg("--map").arg(format!("{}={}", from.paths.dir.display(), on.paths.dir.display()));
    command.arg("--map").arg(format!("/{}=/{}", from.slot.name(), on.slot.name()));
    command.args(more);
    tokio::task::block_in_place(|| command.output()).expect("run cri-daemon replay")
}

/// What a replay without unexplained differences has printed.
#[track_caller]
pub fn explained(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// The lines of calls whose method ends with `method`.
pub fn calls<'a>(lines: &'a [Value], method: &str) -> Vec<&'a Value> {
    let of = |line: &&Value| line["kind"] == "call" && line["method"].as_str().is_some_and(|m| m.ends_with(method));
    lines.iter().filter(of).collect()
}
