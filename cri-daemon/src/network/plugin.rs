//! Runs one plugin: configuration on its standard input, the rest in its environment, a result on its output.
//!
//! A plugin that outlives its deadline is killed with all that it started, and one that is slow is logged while it
//! runs, each with the end of what it wrote to stderr: it knows best what it waits for. Something that a plugin leaves
//! running on purpose (a DHCP daemon) may go on holding its output; that delays nobody.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use shared_proto::seam::v1::Message;
use shared_sys::child;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::NetworkError;
use super::error::said;

/// A result or an error is a few hundred bytes; more than this is not read.
const OUTPUT_LIMIT: u64 = 1 << 20;
/// How much of a plugin's own words goes into an error: the end of them.
const STDERR_LIMIT: usize = 1024;
/// A plugin that runs for so long is logged.
const SLOW: Duration = Duration::from_secs(10);
/// How long the output of a plugin that has ended is waited for, when something else still holds it.
const DRAIN: Duration = Duration::from_millis(500);

/// One execution.
pub(super) struct Call<'a> {
    pub network: &'a str,
    pub plugin: &'a str,
    /// `ADD` or `DEL`.
    pub command: &'static str,
    pub container_id: &'a str,
    pub netns: &'a Path,
    pub interface: &'a str,
    pub args: &'a [[String; 2]],
    pub bin_dirs: &'a [PathBuf],
    pub deadline: Duration,
}

/// The first executable file of the plugin's name. Blocks for a few `stat` calls.
pub(super) fn find(plugin: &str, dirs: &[PathBuf]) -> Result<PathBuf, NetworkError> {
    let executable = |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let missing = || NetworkError::NoPlugin { plugin: plugin.to_owned(), dirs: dirs.to_vec() };
    if plugin.is_empty() || plugin.contains('/') {
        return Err(missing());
    }
    dirs.iter().map(|dir| dir.join(plugin)).find(executable).ok_or_else(missing)
}

impl Call<'_> {
    /// What the plugin is told, for people: its environment, and what it reads.
    pub fn shown(&self, config: &Map<String, Value>) -> Message {
        let told = serde_json::json!({
            "CNI_COMMAND": self.command, "CNI_CONTAINERID": self.container_id, "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.interface, "CNI_ARGS": self.args.iter().map(|arg| arg.join("=")).collect::<Vec<_>>(),
            "stdin": config,
        });
        Message::json(told.to_string())
    }

    /// What the plugin answered; `Null` for an empty answer. A plugin that outlives the deadline, or a dropped call,
    /// is killed with all that it started.
    pub async fn run(&self, config: &Map<String, Value>) -> Result<Value, NetworkError> {
        let path = find(self.plugin, self.bin_dirs)?;
        let input = serde_json::to_vec(config).map_err(|e| self.spawn(e.into()))?;
        let join = |parts: Vec<String>, separator: &str| parts.join(separator);
        let mut child = Command::new(path)
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", self.netns)
            .env("CNI_IFNAME", self.interface)
            .env("CNI_ARGS", join(self.args.iter().map(|[key, value]| format!("{key}={value}")).collect(), ";"))
            .env("CNI_PATH", join(self.bin_dirs.iter().map(|dir| dir.display().to_string()).collect(), ":"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| self.spawn(e))?;
        let group = Group(child.id());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A plugin may end without reading all; its exit tells what went wrong.
                let _ = stdin.write_all(&input).await;
            }
        };
        let (mut out, stderr_end) = (Vec::new(), Mutex::default());
        let ended = {
            let pipes = async { tokio::join!(feed, collect(stdout, &mut out), follow(stderr, &stderr_end)) };
            tokio::pin!(pipes);
            let work = async {
                tokio::select! {
                    status = child::ended(&child) => {
                        // Not to its end: what the plugin left running may hold it.
                        let _ = tokio::time::timeout(DRAIN, &mut pipes).await;
                        status
                    }
                    _ = &mut pipes => child::ended(&child).await,
                }
            };
            tokio::select! {
                ended = tokio::time::timeout(self.deadline, work) => ended,
                never = self.complain(&stderr_end) => match never {},
            }
        };
        let err = end_of(&stderr_end);
        let status = ended.map_err(|_| self.late(text(&err)))?.map_err(|e| self.spawn(e))?;
        group.gone();
        child::reap_later(child);
        if status.success() {
            return self.result(&out);
        }
        let failure = Failure { status, out: &out, err: &err };
        Err(NetworkError::Failed {
            network: self.network.to_owned(),
            plugin: self.plugin.to_owned(),
            command: self.command,
            message: failure.message(),
        })
    }

    /// A DEL that succeeds has no result, whatever the plugin prints.
    fn result(&self, out: &[u8]) -> Result<Value, NetworkError> {
        if out.trim_ascii().is_empty() || self.command == "DEL" {
            return Ok(Value::Null);
        }
        serde_json::from_slice(out).map_err(|e| NetworkError::BadResult {
            network: self.network.to_owned(),
            plugin: self.plugin.to_owned(),
            command: self.command,
            problem: format!("{e}: {}", text(out)),
        })
    }

    fn spawn(&self, source: std::io::Error) -> NetworkError {
        NetworkError::Spawn {
            network: self.network.to_owned(),
            plugin: self.plugin.to_owned(),
            command: self.command,
            source,
        }
    }

    /// Logs that the plugin is slow, once. Never ends.
    async fn complain(&self, said: &Mutex<Vec<u8>>) -> Infallible {
        tokio::time::sleep(SLOW).await;
        let stderr = text(&end_of(said));
        let (network, plugin, command, pod) = (self.network, self.plugin, self.command, self.container_id);
        tracing::warn!(network, plugin, command, pod, stderr, limit = ?self.deadline, "CNI plugin is slow");
        std::future::pending().await
    }

    fn late(&self, stderr: String) -> NetworkError {
        NetworkError::Deadline {
            network: self.network.to_owned(),
            plugin: self.plugin.to_owned(),
            command: self.command,
            after: self.deadline,
            stderr,
        }
    }
}

/// The plugin's process group, killed unless it ended by itself.
struct Group(Option<u32>);

impl Group {
    fn gone(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended this moment.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn collect(stream: Option<impl AsyncRead + Unpin>, out: &mut Vec<u8>) {
    if let Some(stream) = stream {
        // What was read before an error is still worth reporting.
        let _ = stream.take(OUTPUT_LIMIT).read_to_end(out).await;
    }
}

/// Reads all there is, and keeps the end of it.
async fn follow(stream: Option<impl AsyncRead + Unpin>, said: &Mutex<Vec<u8>>) {
    let Some(mut stream) = stream else { return };
    let mut piece = vec![0; STDERR_LIMIT];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&piece[..read]);
        let over = said.len().saturating_sub(STDERR_LIMIT);
        said.drain(..over);
    }
}

fn end_of(said: &Mutex<Vec<u8>>) -> Vec<u8> {
    said.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Failure<'a> {
    status: std::process::ExitStatus,
    out: &'a [u8],
    err: &'a [u8],
}

impl Failure<'_> {
    /// The plugin's own message and code, and what it wrote to stderr.
    fn message(&self) -> String {
        let answer: Option<Value> = serde_json::from_slice(self.out).ok();
        let field = |name: &str| answer.as_ref()?.get(name)?.as_str().filter(|text| !text.is_empty()).map(String::from);
        let code = answer.as_ref().and_then(|answer| answer.get("code")?.as_u64());
        let mut out = match (field("msg"), field("details")) {
            (Some(msg), Some(details)) => format!("{msg}: {details}"),
            (Some(msg), None) => msg,
            (None, _) => self.status.to_string(),
        };
        if let Some(code) = code {
            out += &format!(" (code {code})");
        }
        out + &said(&text(self.err))
    }
}

/// The end of some output, on one line.
fn text(bytes: &[u8]) -> String {
    let end = &bytes[bytes.len().saturating_sub(STDERR_LIMIT)..];
    String::from_utf8_lossy(end).trim().replace('\n', "; ")
}
