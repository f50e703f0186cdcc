//! Runs the binary of a shim: `start`, which leaves the shim behind and says where it listens, and `delete`, which
//! cleans up after a shim that is gone.
//!
//! Both are short; they are killed when they take longer than their deadline. What they print on standard error goes
//! into the error. The shim itself is no child of this process: `start` detaches it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use sha2::{Digest, Sha256};
use shared_proto::meter::Way;
use shared_proto::seam::v1 as seam;
use shared_proto::ttrpc::task::DeleteResponse;
use shared_sys::{child, program};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::bootstrap::Bootstrap;
use super::bundle::Bundle;
use super::engines::Engines;
use super::error::RuntimeError;
use super::manager::RuntimeConfig;
use super::process::Exit;
use super::shim::exit_of;
use crate::domain::Payload;
use crate::stages;

/// For `start`: more than any machine needs that is not hopelessly overloaded.
const START: Duration = Duration::from_secs(60);
/// For `delete`: it kills what runs, and unmounts.
const DELETE: Duration = Duration::from_secs(30);
/// How long output may still come once the process has ended: its children may hold the pipe open.
const REST: Duration = Duration::from_millis(500);
/// More than this of an output is not kept, bytes.
const MAX_OUTPUT: u64 = 256 << 10;

/// The runtime of containers that name none.
const DEFAULT_RUNTIME: &str = "io.containerd.runc.v2";

/// The binary of a runtime: `io.containerd.runc.v2` is `containerd-shim-runc-v2` beside `own`, where ours is, or in
/// `PATH`; an absolute path is itself.
pub(super) fn resolve(runtime: &str, path: &str, own: &Path) -> Result<PathBuf, RuntimeError> {
    let invalid = |reason| RuntimeError::Runtime { name: runtime.to_owned(), reason };
    for given in [path, runtime] {
        if given.starts_with('/') {
            let binary = PathBuf::from(given);
            let missing = || RuntimeError::NoBinary { name: runtime.to_owned(), binary: given.to_owned() };
            return if is_executable(&binary) { Ok(binary) } else { Err(missing()) };
        }
    }
    if !path.is_empty() {
        return Err(RuntimeError::Runtime { name: path.to_owned(), reason: "the path is not absolute" });
    }
    let name = if runtime.is_empty() { DEFAULT_RUNTIME } else { runtime };
    if name.contains('/') {
        return Err(invalid("the path is not absolute"));
    }
    let mut parts = name.rsplit('.');
    let binary = match (parts.next(), parts.next()) {
        (Some(version), Some(kind)) if !version.is_empty() && !kind.is_empty() => {
            format!("containerd-shim-{kind}-{version}")
        }
        _ => return Err(invalid("a name has the form NAME.VERSION")),
    };
    let search = std::env::var_os("PATH").unwrap_or_default();
    let beside = own.parent().map(Path::to_owned);
    beside
        .into_iter()
        .chain(std::env::split_paths(&search))
        .map(|dir| dir.join(&binary))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| RuntimeError::NoBinary { name: name.to_owned(), binary })
}

pub(super) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Starts a shim for the task of `bundle`, or finds the one that it shares. Our own is told of a copy of its engine.
pub(super) async fn start(
    config: &RuntimeConfig,
    bundle: &Bundle,
    binary: &Path,
    options: Option<&Payload>,
    engines: &Arc<Engines>,
) -> Result<Bootstrap, RuntimeError> {
    let mut command = command(config, bundle, binary, "start");
    if binary.parent() == config.binary.parent() {
        let (engines, options) = (engines.clone(), options.cloned());
        let engine = shared_sys::blocking(move || engines.describe(options.as_ref())).await;
        command.envs(engine.map(|engine| (program::ENGINE, engine)));
    }
    let options = options.map(|o| Any { type_url: o.type_url.clone(), value: o.value.clone() }.encode_to_vec());
    stages::keep(Way::There, || {
        let command = command.as_std();
        seam::Message::command(std::iter::once(command.get_program()).chain(command.get_args()))
    });
    let output = run(command, binary, "start", &options.unwrap_or_default(), START).await?;
    stages::keep(Way::Back, || match output.first() {
        Some(b'{') => seam::Message::json(output.clone()),
        Some(_) | None => seam::Message::command([OsStr::from_bytes(&output)]),
    });
    Bootstrap::parse(&output).map_err(|reason| RuntimeError::Launch {
        binary: binary.to_owned(),
        action: "start",
        reason,
    })
}

/// Kills and cleans up what a dead shim has left. The exit is the shim's guess, made after the fact.
pub(super) async fn delete(config: &RuntimeConfig, bundle: &Bundle, binary: &Path) -> Result<Exit, RuntimeError> {
    let command = command(config, bundle, binary, "delete");
    let output = run(command, binary, "delete", &[], DELETE).await?;
    let failed = |reason| RuntimeError::Launch { binary: binary.to_owned(), action: "delete", reason };
    // An empty message would be an exit with status 0, which nobody means.
    if output.is_empty() {
        return Err(failed("it printed no exit status".into()));
    }
    let response = DeleteResponse::decode(output.as_slice()).map_err(|e| failed(format!("malformed answer: {e}")))?;
    Ok(exit_of(response.pid, response.exit_status, response.exited_at))
}

/// Where a shim that follows the convention listens for the task of `bundle`, unless it shares another's: the one trace
/// of a `start` that was killed before it could say anything.
pub(super) fn usual_socket(config: &RuntimeConfig, bundle: &Bundle) -> PathBuf {
    let owner = config.core_socket.join(bundle.ns.as_str()).join(bundle.id.as_str());
    Path::new("/run/containerd/s").join(hex::encode(Sha256::digest(owner.as_os_str().as_encoded_bytes())))
}

fn command(config: &RuntimeConfig, bundle: &Bundle, binary: &Path, action: &str) -> Command {
    let mut command = Command::new(binary);
    command
        .current_dir(&bundle.path)
        .arg("-namespace")
        .arg(bundle.ns.as_str())
        .arg("-address")
        .arg(&config.core_socket)
        .arg("-publish-binary")
        .arg(&config.binary)
        .args(["-id", bundle.id.as_str()]);
    if action == "delete" {
        command.arg("-bundle").arg(&bundle.path);
    }
    if tracing::enabled!(tracing::Level::DEBUG) {
        command.arg("-debug");
    }
    command
        .arg(action)
        .env("TTRPC_ADDRESS", &config.ttrpc_address)
        .env("GRPC_ADDRESS", &config.core_socket)
        .env("NAMESPACE", bundle.ns.as_str())
        .env("MAX_SHIM_VERSION", "3")
        // A shim has little to do; without this Go starts as many threads as there are cores.
        .env("GOMAXPROCS", "2")
        // runc would hand the service manager's socket on to containers.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_PID")
        .env_remove("LISTEN_FDS")
        // Signals to our process group are not meant for shims.
        .process_group(0);
    command
}

async fn run(
    mut command: Command,
    binary: &Path,
    action: &'static str,
    input: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, RuntimeError> {
    let failed = |reason: String| RuntimeError::Launch { binary: binary.to_owned(), action, reason };
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("run: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A process that doesn't read its input says why on standard error. The pipe holds any options.
        let _ = tokio::time::timeout(limit, stdin.write_all(input)).await;
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = {
        let out = read(child.stdout.take(), &mut stdout);
        let err = read(child.stderr.take(), &mut stderr);
        let read = async { tokio::join!(out, err) };
        tokio::pin!(read);
        let finish = async {
            // The pipes usually end with the process; then there is nothing more to wait for.
            let status = tokio::select! {
                _ = &mut read => return child::ended(&child).await,
                status = child::ended(&child) => status,
            };
            let _ = tokio::time::timeout(REST, read).await;
            status
        };
        tokio::time::timeout(limit, finish).await
    };
    let status: ExitStatus = match ended {
        Ok(status) => status.map_err(|e| failed(format!("wait: {e}")))?,
        Err(_) => {
            if let Err(e) = child.kill().await {
                tracing::warn!(binary = %binary.display(), action, error = %e, "can't kill");
            }
            return Err(RuntimeError::LaunchDeadline { binary: binary.to_owned(), action, limit });
        }
    };
    child::reap_later(child);
    let said = String::from_utf8_lossy(&stderr);
    let said = said.trim();
    if !status.success() {
        return Err(failed(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") }));
    }
    if !said.is_empty() {
        tracing::debug!(binary = %binary.display(), action, "shim: {said}");
    }
    Ok(stdout)
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(pipe) = pipe
        && let Err(e) = pipe.take(MAX_OUTPUT).read_to_end(into).await
    {
        tracing::debug!(error = %e, "reading a shim's output");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_found_by_name_and_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let shim = dir.path().join("containerd-shim-test-v9");
        std::fs::copy("/bin/true", &shim).unwrap();
        let own = dir.path().join("core-daemon");
        let path = shim.to_str().unwrap();
        assert_eq!(resolve("org.example.test.v9", "", &own).unwrap(), shim);
        assert_eq!(resolve(path, "", &own).unwrap(), shim);
        assert_eq!(resolve("io.containerd.runc.v2", path, &own).unwrap(), shim);
        for (name, path, part) in [
            ("test", "", "NAME.VERSION"),
            ("./test.v9", "", "not absolute"),
            ("org.example.test.v8", "", "containerd-shim-test-v8"),
            ("/nowhere/shim", "", "/nowhere/shim"),
            ("io.containerd.runc.v2", "shim", "not absolute"),
        ] {
            let e = resolve(name, path, &own).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        }
    }

    #[tokio::test]
    async fn output_input_failure_and_deadline() {
        let sh = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let go = |script: &str, limit| run(sh(script), Path::new("sh"), "start", b"in", Duration::from_millis(limit));
        assert_eq!(go("cat; echo out", 5000).await.unwrap(), b"inout\n");
        let e = go("echo oh no >&2; exit 3", 5000).await.unwrap_err().to_string();
        assert!(e.contains("oh no") && e.contains('3'), "{e}");
        assert!(matches!(go("sleep 60", 50).await.unwrap_err(), RuntimeError::LaunchDeadline { .. }));
        // A child that keeps the pipe open doesn't keep us.
        let started = std::time::Instant::now();
        assert_eq!(go("sleep 7 & echo out", 5000).await.unwrap(), b"out\n");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
