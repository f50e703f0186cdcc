//! What a world costs its node, read from `/proc`: CPU, memory, threads and descriptors of the
//! daemons and of the shims, CPU of all cores; and the room that it takes on disk.
//!
//! Memory is in bytes. A shim is told by the name of its executable, wherever that lies: ours and Debian's have the
//! same. Times come in ticks of 10 ms, so only sums over seconds mean anything.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use e2e::World;
use shared_sys::usage;

/// Ticks of the kernel's clock in a second, as user space is told them on every Linux.
const TICKS: f64 = 100.0;
/// The file name of a shim's executable.
const SHIM: &str = "containerd-shim-runc-v2";

/// A megabyte, as all benches print it.
pub const MB: f64 = 1e6;

/// Processes of one kind at one moment.
#[derive(Default, Clone, Copy)]
pub struct Usage {
    pub processes: usize,
    /// User and system time, without that of children.
    pub cpu_seconds: f64,
    /// Memory, shared pages counted in parts.
    pub pss: f64,
    /// Memory, shared pages counted in full.
    pub rss: f64,
    pub threads: usize,
    /// Open files.
    pub descriptors: usize,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.processes += other.processes;
        self.cpu_seconds += other.cpu_seconds;
        self.pss += other.pss;
        self.rss += other.rss;
        self.threads += other.threads;
        self.descriptors += other.descriptors;
    }
}

/// The daemons, both of them in `split`.
pub fn daemons(world: &World) -> anyhow::Result<Usage> {
    sum(&world.daemon_pids())
}

/// The shims of a world.
pub fn shims(world: &World) -> anyhow::Result<Usage> {
    sum(&shim_pids(world))
}

/// Where the executable of the world's shims lies; none while there is no shim.
pub fn shim_binary(world: &World) -> Option<String> {
    let pid = *shim_pids(world).first()?;
    Some(std::fs::read_link(format!("/proc/{pid}/exe")).ok()?.display().to_string())
}

/// How many shims there are, while they come and go.
pub fn shims_alive(world: &World) -> usize {
    shim_pids(world).len()
}

/// What the daemons have open: how many of each file, socket, pipe and so on.
pub fn open_files(world: &World) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for pid in world.daemon_pids() {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            *all.entry(nameless(&target.display().to_string())).or_default() += 1;
        }
    }
    all
}

/// What an open file is, without the number of a `socket:[7]` and the ids in a path.
fn nameless(target: &str) -> String {
    if let Some((kind @ ("socket" | "pipe"), _)) = target.split_once(":[") {
        return kind.to_owned();
    }
    let is_id = |word: &str| word.trim_start_matches('.').len() == 64;
    target.split('/').map(|word| if is_id(word) { "ID" } else { word }).collect::<Vec<_>>().join("/")
}

/// The shim of a pod, which names it on its command line.
pub fn shim_of(world: &World, pod: &str) -> anyhow::Result<i32> {
    let found = world.processes().into_iter().find(|(pid, line)| line.contains(pod) && is_shim(*pid));
    Ok(found.with_context(|| format!("no shim of pod {pod}"))?.0)
}

/// Bytes on disk below a folder, without what is mounted there. What vanishes meanwhile counts as nothing.
pub fn disk(dir: &Path) -> u64 {
    let Ok(own) = dir.symlink_metadata() else { return 0 };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter_map(|entry| {
        let meta = entry.path().symlink_metadata().ok().filter(|meta| meta.dev() == own.dev())?;
        Some(if meta.is_dir() { disk(&entry.path()) } else { meta.blocks() * 512 })
    });
    own.blocks() * 512 + below.sum::<u64>()
}

fn shim_pids(world: &World) -> Vec<i32> {
    world.processes().into_iter().map(|(pid, _)| pid).filter(|pid| is_shim(*pid)).collect()
}

fn is_shim(pid: i32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| is_named(&exe, SHIM))
}

/// Whether an executable, which may have been replaced on disk meanwhile, has this file name.
fn is_named(exe: &Path, name: &str) -> bool {
    exe.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.trim_end_matches(" (deleted)") == name)
}

/// Some processes together.
pub fn sum(pids: &[i32]) -> anyhow::Result<Usage> {
    let mut all = Usage::default();
    for pid in pids {
        all += of(*pid).with_context(|| format!("read what process {pid} uses"))?;
    }
    Ok(all)
}

fn of(pid: i32) -> anyhow::Result<Usage> {
    let used = usage::of(u32::try_from(pid)?)?;
    Ok(Usage {
        processes: 1,
        cpu_seconds: used.cpu.as_secs_f64(),
        pss: used.pss as f64,
        rss: used.rss as f64,
        threads: used.threads as usize,
        descriptors: used.descriptors as usize,
    })
}

/// CPU that this process has used.
fn own_seconds() -> anyhow::Result<f64> {
    Ok(usage::cpu(std::process::id())?.as_secs_f64())
}

/// CPU that all cores have spent on anything, since the machine started.
fn machine_seconds() -> anyhow::Result<f64> {
    busy_seconds(&std::fs::read_to_string("/proc/stat")?)
}

/// CPU of the machine but for this process: daemons, shims, engines, plugins, containers, and the kernel for them.
pub fn others_seconds() -> anyhow::Result<f64> {
    Ok(machine_seconds()? - own_seconds()?)
}

/// user, nice, system, irq and softirq of the first line of a `/proc/stat`. Guests' time is in user's already; what
/// the hypervisor took (steal) nobody here has used.
fn busy_seconds(stat: &str) -> anyhow::Result<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("no line of all cores")?;
    let ticks: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        anyhow::bail!("a short line of all cores: {line}");
    };
    Ok((user + nice + system + irq + softirq) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_busy() {
        let stat = "cpu  100 10 50 9000 800 5 35 700 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_seconds(stat).unwrap(), 2.0);
    }

    #[test]
    fn open_files_of_a_kind_are_one() {
        let id = "a".repeat(64);
        assert_eq!(nameless("socket:[7]"), "socket");
        assert_eq!(nameless(&format!("/run/.{id}/log (deleted)")), "/run/ID/log (deleted)");
        assert_eq!(nameless("anon_inode:[eventfd]"), "anon_inode:[eventfd]");
    }

    #[test]
    fn a_replaced_executable_keeps_its_name() {
        assert!(is_named(Path::new("/usr/bin/containerd-shim-runc-v2 (deleted)"), SHIM));
        assert!(!is_named(Path::new("/usr/bin/containerd-shim-runc-v1"), SHIM));
    }
}
