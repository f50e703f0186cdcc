//! What a process uses, as `/proc` tells it.
//!
//! Memory, threads and descriptors are those of the moment. CPU is that of the whole life of the process, without its
//! children, in the kernel's ticks of 10 ms: only sums over seconds mean anything. Another user's process can't be
//! looked at without being root.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Ticks of the kernel's clock in a second, as user space is told them on every Linux.
const TICKS: u64 = 100;

/// Fields of a `/proc/PID/stat`, counted from the state, which is the first one after the name.
const PARENT: usize = 1;
const UTIME: usize = 11;
const STIME: usize = 12;
const THREADS: usize = 17;

/// What one process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes: a page that several processes have counts for each in part.
    pub pss: u64,
    /// Memory in bytes: such a page counts in full.
    pub rss: u64,
    /// User and system time.
    pub cpu: Duration,
    pub threads: u64,
    /// Open files.
    pub descriptors: u64,
}

/// What the process uses now. `NotFound` when it is gone.
pub fn of(pid: u32) -> io::Result<Usage> {
    let memory = read(pid, "smaps_rollup")?;
    let stat = read(pid, "stat")?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
    let parsed = || {
        let (pss, rss) = (kib(&memory, "Pss:")?, kib(&memory, "Rss:")?);
        Some(Usage { pss, rss, cpu: cpu_time(&stat)?, threads: field(&stat, THREADS)?, descriptors })
    };
    // A process that has just ended has no memory any more: the file is there, and empty.
    parsed().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// CPU that the process has used.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    cpu_time(&read(pid, "stat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The process that it came from, or that adopted it.
pub fn parent(pid: u32) -> io::Result<u32> {
    let parent = field(&read(pid, "stat")?, PARENT).and_then(|parent| parent.try_into().ok());
    parent.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Every process and its command line. Those without one, the kernel's own, are left out.
pub fn processes() -> io::Result<Vec<(u32, Vec<String>)>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    let process = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        // One that ends meanwhile is none.
        let line = std::fs::read(entry.path().join("cmdline")).ok().filter(|line| !line.is_empty())?;
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        Some((pid, line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()))
    };
    Ok(entries.filter_map(process).collect())
}

/// Whether the process has the socket that listens at `path` among its descriptors.
pub fn listens(pid: u32, path: &Path) -> bool {
    let Ok(sockets) = read(pid, "net/unix") else { return false };
    let inodes: Vec<String> = inodes_of(&sockets, path).map(|inode| format!("socket:[{inode}]")).collect();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
}

fn read(pid: u32, file: &str) -> io::Result<String> {
    match std::fs::read(format!("/proc/{pid}/{file}")) {
        // The name of a process may be anything.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(io::ErrorKind::NotFound.into()),
        Err(e) => Err(e),
    }
}

/// User and system time of a `/proc/PID/stat`.
fn cpu_time(stat: &str) -> Option<Duration> {
    let ticks = field(stat, UTIME)? + field(stat, STIME)?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

/// What stands behind the name, which may hold spaces and parentheses.
fn field(stat: &str, at: usize) -> Option<u64> {
    stat.rsplit(')').next()?.split_whitespace().nth(at)?.parse().ok()
}

/// A line of a `/proc/PID/smaps_rollup`, in bytes.
fn kib(smaps: &str, name: &str) -> Option<u64> {
    let line = smaps.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Sockets of a `/proc/PID/net/unix` with this path: `ADDRESS: REFS PROTOCOL FLAGS TYPE STATE INODE PATH`.
fn inodes_of<'a>(sockets: &'a str, path: &'a Path) -> impl Iterator<Item = &'a str> {
    sockets.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        let inode = words.nth(6)?;
        (words.next()? == path.as_os_str()).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_bad_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 3 0 100 0 0";
        assert_eq!((cpu_time(stat), field(stat, THREADS)), (Some(Duration::from_secs(2)), Some(3)));
        assert_eq!(cpu_time("7 (a) S 1"), None);
    }

    #[test]
    fn memory_by_name() {
        let smaps = "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:    1200 kB\nPss:     300 kB\nPss_Anon:  10 kB\n";
        assert_eq!(
            (kib(smaps, "Pss:"), kib(smaps, "Rss:"), kib(smaps, "Swap:")),
            (Some(300 << 10), Some(1200 << 10), None)
        );
    }

    #[test]
    fn this_process_and_one_that_is_gone() {
        let me = std::process::id();
        let usage = of(me).unwrap();
        assert!(usage.rss >= usage.pss && usage.pss > 0 && usage.threads > 0 && usage.descriptors > 2, "{usage:?}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(of(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(parent(me).unwrap(), std::os::unix::process::parent_id());
        assert!(processes().unwrap().iter().any(|(pid, line)| *pid == me && !line[0].is_empty()));
    }

    #[test]
    fn who_listens() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("s"), dir.path().join("s2"));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(listens(std::process::id(), &path) && !listens(std::process::id(), &other));
    }
}
