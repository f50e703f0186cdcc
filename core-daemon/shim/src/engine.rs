//! runc or crun: one child process a command, from the copy in memory that the core has made, or from its file.
//!
//! Limits: an engine that never returns blocks its own call only; the core has a deadline for each.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use serde::Deserialize;
use shared_sys::program::Program;

use crate::error::Error;
use crate::options::Options;
use crate::reaper::{Birth, Reaper};

/// More than this of an engine's log is not read for the reason of a failure, bytes.
const MAX_LOG: u64 = 64 << 10;

/// The engine of one container.
#[derive(Clone)]
pub struct Engine {
    pub options: Options,
    bundle: PathBuf,
    reaper: Arc<Reaper>,
    /// A copy of this engine.
    program: Option<Arc<Program>>,
}

/// The standard streams of a process to be made.
pub struct Streams {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Streams {
    /// All of `/dev/null`: the engine's own words are read from its log.
    fn none() -> (Stdio, Stdio, Stdio) {
        (Stdio::null(), Stdio::null(), Stdio::null())
    }
}

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

impl Engine {
    /// `program` is a copy of some engine, not of this one for sure.
    pub fn new(options: Options, bundle: &Path, reaper: Arc<Reaper>, program: Option<Arc<Program>>) -> Self {
        let program = program.filter(|program| is(&options.binary, program.path()));
        Self { options, bundle: bundle.to_owned(), reaper, program }
    }

    /// Makes the container `id`: its first process waits to be started. Answers its pid, and the birth that must be
    /// held until the pid's exit is expected.
    pub async fn create(&self, id: &str, streams: Streams, console: Option<&Path>) -> Result<(u32, Birth), Error> {
        let pid_file = self.bundle.join("init.pid");
        let mut command = self.command("create");
        command.arg("--bundle").arg(&self.bundle).arg("--pid-file").arg(&pid_file);
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
        if self.options.no_pivot_root {
            command.arg("--no-pivot");
        }
        if self.options.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        let birth = self.reaper.birth();
        self.run(command.arg(id), "create", Some(streams)).await?;
        Ok((read_pid(&pid_file)?, birth))
    }

    /// Lets the first process go.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        self.run(self.command("start").arg(id), "start", None).await
    }

    /// Runs another process in the container. `process` is the OCI process, JSON, in a file.
    pub async fn exec(
        &self,
        id: &str,
        process: &Path,
        streams: Streams,
        console: Option<&Path>,
    ) -> Result<(u32, Birth), Error> {
        let pid_file = process.with_extension("pid");
        let mut command = self.command("exec");
        command.arg("--process").arg(process).arg("--pid-file").arg(&pid_file).arg("--detach");
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
        let birth = self.reaper.birth();
        let ran = self.run(command.arg(id), "exec", Some(streams)).await;
        let pid = ran.and_then(|()| read_pid(&pid_file));
        let _ = std::fs::remove_file(&pid_file);
        Ok((pid?, birth))
    }

    /// Takes the container away; kills what still runs.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        self.run(self.command("delete").args(["--force", id]), "delete", None).await
    }

    /// Sets limits: OCI resources in JSON.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<(), Error> {
        let path = self.bundle.join("resources.json");
        std::fs::write(&path, resources).map_err(Error::io("write", &path))?;
        let ran = self.run(self.command("update").arg("--resources").arg(&path).arg(id), "update", None).await;
        let _ = std::fs::remove_file(&path);
        ran
    }

    /// Saves the container's processes to a folder, with CRIU.
    pub async fn checkpoint(&self, id: &str, arguments: &[String]) -> Result<(), Error> {
        self.run(self.command("checkpoint").args(arguments).arg(id), "checkpoint", None).await
    }

    /// Whether it is one that the core knows, and that makes containers by cgroupfs and with `pivot_root`.
    pub fn is_plain(&self) -> bool {
        let Options { systemd_cgroup, no_pivot_root, no_new_keyring, .. } = self.options;
        self.program.is_some() && !systemd_cgroup && !no_pivot_root && !no_new_keyring
    }

    /// The engine's folder for a container.
    pub fn state(&self, id: &str) -> PathBuf {
        self.options.root.join(id)
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("log.json")
    }

    fn command(&self, action: &str) -> Command {
        let mut command = match &self.program {
            Some(program) if program.is_current() => {
                let mut command = Command::new(program.executable());
                command.arg0(program.path());
                command
            }
            Some(_) | None => Command::new(&self.options.binary),
        };
        command.current_dir(&self.bundle).arg("--root").arg(&self.options.root);
        command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        if self.options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(action);
        command
    }

    async fn run(&self, command: &mut Command, action: &'static str, streams: Option<Streams>) -> Result<(), Error> {
        let (stdin, stdout, stderr) = match streams {
            Some(streams) => (streams.stdin.into(), streams.stdout.into(), streams.stderr.into()),
            None => Streams::none(),
        };
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let said_before = std::fs::metadata(self.log()).map_or(0, |meta| meta.len());
        let spawned = self.reaper.spawn(command);
        let binary = || self.options.binary.clone();
        let (_, exit) = spawned.map_err(|source| Error::Spawn { binary: binary(), source })?;
        // Our ends of the streams: an end of output must show when the container's are closed.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let exit = exit.await.map_err(|_| Error::Server("the reaper is gone".into()))?;
        if exit.status == 0 {
            return Ok(());
        }
        let said = last_error(&self.log(), said_before);
        Err(Error::Engine { action, said: said.unwrap_or_else(|| format!("{} ended with {}", binary(), exit.status)) })
    }
}

/// Whether a file is the binary that is meant: a whole path, or a name that was looked for in `PATH`.
fn is(binary: &str, file: &Path) -> bool {
    Path::new(binary) == file || (!binary.contains('/') && file.file_name().is_some_and(|name| name == binary))
}

fn read_pid(path: &Path) -> Result<u32, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.trim().parse().map_err(|_| Error::Malformed { path: path.into(), reason: format!("{text:?} is no pid") })
}

/// The last error that an engine has logged since the log had `from` bytes.
fn last_error(log: &Path, from: u64) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut text).ok()?;
    let lines = text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    let mut errors = lines.filter(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic"));
    errors.next_back().map(|line| line.msg)
}

/// Runs the engine where no server is: for the `delete` command. Its output, and what it said when it failed.
pub fn run_alone(options: &Options, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Vec<u8>, Error> {
    let mut command = Command::new(&options.binary);
    command.arg("--root").arg(&options.root);
    if options.systemd_cgroup {
        command.arg("--systemd-cgroup");
    }
    let output = command.args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Spawn { binary: options.binary.clone(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Engine { action: "command", said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_used_for_its_own_engine_only() {
        for (binary, yes) in [("runc", true), ("/usr/sbin/runc", true), ("/usr/bin/runc", false), ("crun", false)] {
            assert_eq!(is(binary, Path::new("/usr/sbin/runc")), yes, "{binary}");
        }
    }

    #[test]
    fn the_reason_is_the_last_error_of_this_run() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        let old = "{\"level\":\"error\",\"msg\":\"old\",\"time\":\"t\"}\n";
        let new = "{\"level\":\"warning\",\"msg\":\"hm\"}\nnot json\n{\"level\":\"error\",\"msg\":\"no such file\"}\n";
        std::fs::write(&log, format!("{old}{new}")).unwrap();
        assert_eq!(last_error(&log, old.len() as u64).as_deref(), Some("no such file"));
        assert_eq!(last_error(&log, (old.len() + new.len()) as u64), None);
        assert_eq!(last_error(&dir.path().join("none"), 0), None);
    }
}
