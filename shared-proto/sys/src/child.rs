//! The end of a child process, told before the child is reaped.
//!
//! To reap a child the kernel clears what `/proc` has of it. While a thread of the child, on its way out, is at the same,
//! it spins until that is done; where all cores are busy that lasts until the thread has its turn, milliseconds in which
//! an async worker does nothing else. So the status is read at once, and the child is reaped a moment later.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// How long an ended child waits to be reaped.
const LATER: Duration = Duration::from_millis(10);

/// Waits for the end of a child, which is to be given to [`reap_later`] then.
pub async fn ended(child: &Child) -> io::Result<ExitStatus> {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let pid = pid.ok_or_else(|| io::Error::other("the child was reaped already"))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // SAFETY: the descriptor of an `OwnedFd` is valid, always the same, and open as long as the `AsyncFd`, which owns it
    // and which nobody takes it out of.
    let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
    let look = |process: &OwnedFd| {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(process.as_fd()), options)?;
        status.as_ref().and_then(of).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    };
    process.async_io(Interest::READABLE, look).await
}

fn of(status: &WaitIdStatus) -> Option<ExitStatus> {
    let code = status.exit_status().map(|code| code << 8);
    Some(ExitStatus::from_raw(code.or_else(|| status.terminating_signal())?))
}

/// Reaps a child that has ended, when its threads have gone for sure. Must be called inside a runtime.
pub fn reap_later(mut child: Child) {
    tokio::spawn(async move {
        tokio::time::sleep(LATER).await;
        if let Err(e) = child.wait().await {
            tracing::debug!(error = %e, "reap a child");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::process::Command;

    #[tokio::test]
    async fn the_status_is_told_and_the_child_is_reaped_after_it() {
        for (script, code, signal) in
            [("exit 0", Some(0), None), ("exit 7", Some(7), None), ("kill -9 $$", None, Some(9))]
        {
            let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let pid = child.id().unwrap();
            let status = ended(&child).await.unwrap();
            assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
            let there = || std::path::Path::new(&format!("/proc/{pid}")).exists();
            assert!(there(), "not reaped yet");
            assert_eq!(ended(&child).await.unwrap(), status, "asked again");
            reap_later(child);
            let began = std::time::Instant::now();
            while there() {
                assert!(began.elapsed() < Duration::from_secs(10), "never reaped");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
