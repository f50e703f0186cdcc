//! Processes of a shim that can't be reached any more: a `start` that lost its parent, a shim without a socket.
//!
//! A shim and its `start` run in the bundle's folder, and nothing of the container does. So the working directory
//! tells whose they are.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Kills every process that works in the bundle's folder. Blocks.
pub(super) fn kill(bundle: &Path) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if !works_in(pid, bundle) {
            continue;
        }
        let Some(process) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            continue;
        };
        // The handle is fixed now: look once more, lest the number has passed to another process.
        if works_in(pid, bundle) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            tracing::warn!(pid, bundle = %bundle.display(), "killed what was left of a shim");
        }
    }
}

fn works_in(pid: i32, dir: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_works_there_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let sleep = |dir: &Path| std::process::Command::new("sleep").arg("60").current_dir(dir).spawn().unwrap();
        let (mut inside, mut outside) = (sleep(dir.path()), sleep(Path::new("/")));
        kill(dir.path());
        assert!(!inside.wait().unwrap().success());
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
    }
}
