//! Behaves like runc towards a shim, and does next to nothing: `create` leaves a process that waits at a FIFO to be
//! released and then sleeps, `delete` takes it away. No namespaces, no root filesystem, no exec.
//!
//! A container has a cgroup in the one hierarchy by which shims find its processes: whoever kills the whole container
//! would otherwise kill whatever else is where this program was started.
//!
//! The waiting process is this program again, as `init FIFO`. It must be told from a stranger with the same pid: by its
//! command line, which names the container's folder.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde::{Deserialize, Serialize};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, fifo] = args.as_slice()
        && verb == "init"
    {
        return init(Path::new(fifo));
    }
    let value = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    let root = PathBuf::from(value("--root").context("no --root")?);
    let id = args.last().context("no container")?;
    let folder = root.join(id);
    match args.iter().find(|arg| ["create", "start", "delete"].contains(&arg.as_str())).map(String::as_str) {
        Some("create") => {
            let bundle = Path::new(value("--bundle").context("no --bundle")?);
            create(&folder, bundle, Path::new(value("--pid-file").context("no --pid-file")?))
        }
        Some("start") => start(&folder),
        Some("delete") => delete(&folder),
        _ => bail!("not a command of this runtime: {args:?}"),
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    pid: i32,
    cgroup: PathBuf,
}

fn create(folder: &Path, bundle: &Path, pid_file: &Path) -> anyhow::Result<()> {
    let config: serde_json::Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
    let path = config["linux"]["cgroupsPath"].as_str().context("no cgroup in the configuration")?;
    let cgroup = hierarchy().join(path.trim_start_matches('/'));
    fs::create_dir_all(&cgroup)?;
    fs::create_dir_all(folder)?;
    let fifo = folder.join("exec.fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // The shim, a subreaper, takes it.
    let mut child = Command::new("/proc/self/exe").arg("init").arg(&fifo).spawn()?;
    if let Err(e) = fs::write(cgroup.join("cgroup.procs"), child.id().to_string()) {
        child.kill()?;
        return Err(e).with_context(|| format!("put it into {}", cgroup.display()));
    }
    let state = State { pid: child.id() as i32, cgroup };
    fs::write(folder.join("state.json"), serde_json::to_vec(&state)?)?;
    fs::write(pid_file, child.id().to_string())?;
    Ok(())
}

/// Where shims look for a container's processes first.
fn hierarchy() -> &'static Path {
    const MEMORY: &str = "/sys/fs/cgroup/memory";
    Path::new(if Path::new(MEMORY).is_dir() { MEMORY } else { "/sys/fs/cgroup" })
}

/// As runc does: whoever opens the FIFO to read lets the process go.
fn start(folder: &Path) -> anyhow::Result<()> {
    let fifo = folder.join("exec.fifo");
    fs::read(&fifo)?;
    Ok(fs::remove_file(fifo)?)
}

fn delete(folder: &Path) -> anyhow::Result<()> {
    let Ok(text) = fs::read(folder.join("state.json")) else { return Ok(()) };
    let State { pid, cgroup } = serde_json::from_slice(&text)?;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if line.contains(&folder.display().to_string()) {
        // Fails only when it has ended meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // A process that was killed takes a moment to leave.
    for _ in 0..200 {
        if fs::remove_dir(&cgroup).is_ok() || !cgroup.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(fs::remove_dir_all(folder)?)
}

fn init(fifo: &Path) -> anyhow::Result<()> {
    fs::OpenOptions::new().write(true).open(fifo)?.write_all(b"0")?;
    loop {
        std::thread::park();
    }
}
