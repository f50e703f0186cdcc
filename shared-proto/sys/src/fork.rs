//! A child in namespaces of its own, made from a process of one thread.
//!
//! The child is a copy of its parent and may do what a process may: with one thread there is nobody who could have held
//! a lock at the moment of the copy. What it must not do is to go on as its parent, so it ends with its work.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

use rustix::thread::UnshareFlags;

/// The exit code of a child whose work panicked.
const PANICKED: i32 = 101;

/// Makes a child in the new namespaces that are named, and answers its pid. The child does `work`, and ends with the
/// exit code that this answers. Refused in a process with more than one thread.
pub fn fork_into(namespaces: UnshareFlags, work: impl FnOnce() -> i32) -> io::Result<u32> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has several threads"));
    }
    // SAFETY: all-zero bytes are valid arguments: a child like that of `fork`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(namespaces.bits());
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: the arguments live for the whole call, and their size is given. No memory is shared with the child, which
    // goes on with its own stack; there are no other threads whose locks it could miss.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let work = std::panic::AssertUnwindSafe(work);
            let code = std::panic::catch_unwind(work).unwrap_or(PANICKED);
            // SAFETY: ends the process at once, without what the parent has registered for its own end.
            unsafe { libc::_exit(code) }
        }
        pid => u32::try_from(pid).map_err(io::Error::other),
    }
}

/// Marks all descriptors from `first` on: a program that this process becomes does not get them.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(io::Error::other)?;
    // SAFETY: a plain system call; it closes nothing now.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes a descriptor that the parent owns: the child's copy of it.
pub fn close(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: the number is all that the call gets; who owns the descriptor is in the other process.
    if unsafe { libc::close(descriptor) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves the parent's session keyring for a new one.
pub fn new_session_keyring(name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: the name is a C string that lives for the whole call.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if answer >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test harness has threads; what a child does is shown by the shim, which has one.
    #[test]
    fn refused_with_several_threads() {
        let thread = std::thread::spawn(|| fork_into(UnshareFlags::empty(), || 0));
        let refused = thread.join().unwrap().unwrap_err();
        assert!(refused.to_string().contains("several threads"), "{refused}");
    }

    #[test]
    fn descriptors_are_kept_from_the_next_program() {
        let (read, _write) = io::pipe().unwrap();
        let kept = rustix::io::fcntl_dupfd_cloexec(&read, 500).unwrap();
        rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
        close_on_exec_from(500).unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&kept).unwrap(), rustix::io::FdFlags::CLOEXEC);
        assert!(close_on_exec_from(-1).is_err());
    }
}
