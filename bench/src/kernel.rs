//! What the kernel does for processes, counted by Debian's `perf` where it is installed and may look.
//!
//! One `perf stat` is attached to the processes and told over a FIFO when to count. What they start meanwhile counts
//! as well, threads and children alike. What the telling itself costs the teller is measured first, and taken off.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

const EVENTS: [&str; 4] =
    ["raw_syscalls:sys_enter", "syscalls:sys_enter_fsync", "syscalls:sys_enter_fdatasync", "context-switches"];

/// How long a living perf may take to answer.
const PATIENCE_MS: u16 = 2000;

/// Events, of one call where they were divided.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    pub syscalls: f64,
    /// fsync and fdatasync.
    pub syncs: f64,
    pub switches: f64,
}

impl Counts {
    /// Of one of `times`, without what counting itself has cost.
    pub fn each(self, base: Self, times: usize) -> Self {
        let each = |all: f64, base: f64| (all / times.max(1) as f64 - base).max(0.0);
        Self {
            syscalls: each(self.syscalls, base.syscalls),
            syncs: each(self.syncs, base.syncs),
            switches: each(self.switches, base.switches),
        }
    }
}

/// A `perf` that counts when it is told to.
pub struct Counter {
    perf: Child,
    tell: File,
    hear: File,
    // Removes FIFOs and output.
    dir: tempfile::TempDir,
}

impl Counter {
    /// Attached to processes; not counting yet.
    pub fn attach(pids: &[i32]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let [tell, hear] = ["tell", "hear"].map(|name| dir.path().join(name));
        for path in [&tell, &hear] {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
        let open = |path: &Path| File::options().read(true).write(true).open(path);
        // Open for both: neither side waits for the other, and a perf that ends is seen by what it writes.
        let (tell_end, hear_end) = (open(&tell)?, open(&hear)?);
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-D", "-1", "-e", &EVENTS.join(",")]).args(["-p", &pids.join(",")]);
        perf.args(["--control", &format!("fifo:{},{}", tell.display(), hear.display())]);
        perf.arg("-o").arg(dir.path().join("counts"));
        let perf =
            perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start perf")?;
        let mut counter = Self { perf, tell: tell_end, hear: hear_end, dir };
        // One that can't count ends at once, and would never answer.
        std::thread::sleep(std::time::Duration::from_millis(15));
        ensure!(counter.perf.try_wait()?.is_none(), "perf can't count these events here");
        Ok(counter)
    }

    /// From now on it counts, or not any more.
    pub fn count(&mut self, on: bool) -> anyhow::Result<()> {
        self.tell.write_all(if on { b"enable\n" } else { b"disable\n" })?;
        let mut answer = [0; 5];
        let ready = poll(&mut [PollFd::new(self.hear.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MS))?;
        ensure!(ready > 0, "perf does not answer");
        self.hear.read_exact(&mut answer).context("perf answers")?;
        Ok(())
    }

    /// All that was counted.
    pub fn finish(mut self) -> anyhow::Result<Counts> {
        kill(Pid::from_raw(self.perf.id() as i32), Signal::SIGINT)?;
        self.perf.wait()?;
        parse(&std::fs::read_to_string(self.dir.path().join("counts"))?)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

/// What telling costs, once; an error says why nothing can be counted here.
pub fn base(pids: &[i32]) -> anyhow::Result<Counts> {
    const TIMES: usize = 20;
    let mut counter = Counter::attach(pids)?;
    for _ in 0..TIMES {
        counter.count(true)?;
        counter.count(false)?;
    }
    Ok(counter.finish()?.each(Counts::default(), TIMES))
}

fn parse(text: &str) -> anyhow::Result<Counts> {
    let of = |event: &str| -> anyhow::Result<f64> {
        let fields = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let line = fields.filter(|fields| fields.len() > 2).find(|fields| fields[2] == event);
        let line = line.with_context(|| format!("perf says nothing of {event}"))?;
        match line[0] {
            // The processes did not run meanwhile.
            "<not counted>" => Ok(0.0),
            count => count.parse().with_context(|| format!("perf says {count:?} of {event}")),
        }
    };
    Ok(Counts { syscalls: of(EVENTS[0])?, syncs: of(EVENTS[1])? + of(EVENTS[2])?, switches: of(EVENTS[3])? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_shared_out() {
        let text = "# started on Sat\n\n1018,,raw_syscalls:sys_enter,66,100.00,,\n<not counted>,,syscalls:sys_enter_fsync,0,0,,\n\
                    4,,syscalls:sys_enter_fdatasync,66,100.00,,\n2,,context-switches,66,100.00,,\n";
        let counts = parse(text).unwrap();
        assert_eq!(counts, Counts { syscalls: 1018.0, syncs: 4.0, switches: 2.0 });
        let base = Counts { syscalls: 9.0, syncs: 0.0, switches: 3.0 };
        assert_eq!(counts.each(base, 2), Counts { syscalls: 500.0, syncs: 2.0, switches: 0.0 });
        assert!(parse("<not supported>,,raw_syscalls:sys_enter,0,0,,\n").is_err());
    }
}
