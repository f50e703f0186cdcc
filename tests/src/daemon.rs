//! One daemon process: its binary, its log file, its end.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A started process. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`; everything that it prints is appended to `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.unwrap_or_else(|e| panic!("open {}: {e}", log.display()));
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("clone the log's descriptor"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("start {name} ({:?}): {e}", command.get_program()));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Whether the process has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|e| panic!("wait for {}: {e}", self.name))
    }

    /// Sends SIGTERM and waits; a daemon that does not end in ten seconds, or not with 0, is a failure.
    pub fn stop(mut self) {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                assert!(status.success(), "{} ended with {status} after SIGTERM\n{}", self.name, self.log_tail(30));
                return;
            }
            if started.elapsed() > Duration::from_secs(10) {
                panic!("{} ignores SIGTERM for 10 s\n{}", self.name, self.log_tail(30));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGTERM and waits, with whatever code it ends; after ten seconds it is killed.
    pub fn terminate(mut self) {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let started = Instant::now();
        while self.ended().is_none() && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// The number of open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map(Iterator::count).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// The last `lines` of a text file, with its name on top.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let shown = all[all.len().saturating_sub(lines)..].join("\n");
    format!("--- {} (last {} of {} lines)\n{shown}\n", path.display(), lines.min(all.len()), all.len())
}

/// The folder with `core-daemon`, `cri-daemon` and this package's own helpers.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("SEAM_BIN_DIR") {
        return dir.into();
    }
    let exe = std::env::current_exe().expect("find the test's own path");
    let dir = exe.parent().expect("the test is in a folder");
    // Tests are in target/PROFILE/deps, binaries in target/PROFILE.
    let dir = if dir.ends_with("deps") { dir.parent().expect("deps has a parent") } else { dir };
    dir.to_owned()
}

/// The path of one of our binaries.
pub fn binary(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(path.exists(), "{} is missing: run `make bins`, or set SEAM_BIN_DIR", path.display());
    path
}
