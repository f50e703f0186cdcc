//! Signals by number, and children that are given descriptors.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sends any signal, real-time ones included. The caller makes sure that the pid is still the one it means.
pub fn kill(pid: u32, signal: u32) -> io::Result<()> {
    let number = |n: u32| i32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (pid, signal) = (number(pid)?, number(signal)?);
    if pid == 0 {
        // That would be our own process group.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a plain system call without pointers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives a command descriptors: the first becomes number 3, the next 4, and so on.
pub fn pass(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let install = move || {
        // Out of the way first: a source may have the number of a target.
        let mut copies = [0; MAX_PASSED];
        for (copy, descriptor) in copies.iter_mut().zip(&descriptors) {
            // SAFETY: the descriptor is open, and fcntl with this command takes a number.
            *copy = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST + 64) };
            if *copy < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (target, copy) in (FIRST..).zip(&copies[..descriptors.len().min(MAX_PASSED)]) {
            // SAFETY: both are numbers; whatever the target was in this child, it is not used any more.
            if unsafe { libc::dup2(*copy, target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(install) };
}

/// The number that the first of [`pass`]'s descriptors gets.
const FIRST: i32 = 3;
/// More are not passed.
const MAX_PASSED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn any_signal_is_sent_and_nobody_else_is_hit() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        kill(child.id(), 35).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(35));
        assert!(kill(0, 15).is_err());
        assert!(kill(u32::MAX, 15).is_err());
    }

    #[test]
    fn descriptors_arrive_in_their_order() {
        let (one, mut write_one) = io::pipe().unwrap();
        let (mut read_two, two) = io::pipe().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read -r word <&3; echo got $word >&4"]);
        pass(&mut command, vec![one.into(), two.into()]);
        let mut child = command.spawn().unwrap();
        drop(command);
        writeln!(write_one, "hello").unwrap();
        let mut text = String::new();
        read_two.read_to_string(&mut text).unwrap();
        assert_eq!(text, "got hello\n");
        assert!(child.wait().unwrap().success());
    }
}
