//! Runs one plugin: configuration on its standard input, the rest in its environment, a result on its output.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::NetworkError;

/// A result or an error is a few hundred bytes; more than this is not read.
const OUTPUT_LIMIT: u64 = 1 << 20;
/// How much of a plugin's own words goes into an error.
const STDERR_LIMIT: usize = 1024;

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
        let work = async { tokio::join!(feed, collect(stdout), collect(stderr), child.wait()) };
        let (_, out, err, status) = tokio::time::timeout(self.deadline, work).await.map_err(|_| self.late())?;
        let status = status.map_err(|e| self.spawn(e))?;
        group.gone();
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

    fn result(&self, out: &[u8]) -> Result<Value, NetworkError> {
        if out.trim_ascii().is_empty() {
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

    fn late(&self) -> NetworkError {
        NetworkError::Deadline {
            network: self.network.to_owned(),
            plugin: self.plugin.to_owned(),
            command: self.command,
            after: self.deadline,
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

async fn collect(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is still worth reporting.
        let _ = stream.take(OUTPUT_LIMIT).read_to_end(&mut out).await;
    }
    out
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
        let err = text(self.err);
        if !err.is_empty() {
            out += &format!("; stderr: {err}");
        }
        out
    }
}

/// The end of some output, on one line.
fn text(bytes: &[u8]) -> String {
    let end = &bytes[bytes.len().saturating_sub(STDERR_LIMIT)..];
    String::from_utf8_lossy(end).trim().replace('\n', "; ")
}
