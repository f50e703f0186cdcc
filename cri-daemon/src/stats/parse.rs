//! The texts of cgroup files, versions 1 and 2, and what they mean.

/// What one look at a cgroup found. What the kernel does not offer is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Processor time since the cgroup was made, nanoseconds.
    pub cpu: Option<u64>,
    pub memory: Option<Memory>,
    pub processes: Option<u64>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// Bytes, unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    /// What can't be given back at once: the usage without file pages that were not used lately.
    pub working_set: u64,
    /// `None`: not limited.
    pub limit: Option<u64>,
    pub rss: u64,
    /// Counts.
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// `None`: swap is not accounted for.
    pub swap: Option<Swap>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swap {
    pub usage: u64,
    /// `None`: not limited.
    pub available: Option<u64>,
}

/// Pressure stall information: how long tasks waited.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Nanoseconds. The kernel counts microseconds.
    pub total: u64,
    /// Percent of the last 10, 60 and 300 seconds.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

/// Version 1 writes the largest number of pages for "no limit", which differs by page size.
const UNLIMITED: u64 = 1 << 62;

/// A file with one number; `max` is none.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `key` in a file with lines of `key value`.
pub fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).and_then(number)
}

/// `cpu.stat` of version 2, in nanoseconds.
pub fn v2_cpu(text: &str) -> Option<u64> {
    field(text, "usage_usec").map(|us| us.saturating_mul(1000))
}

/// `memory.usage_in_bytes` and `memory.stat` of version 1. The values with `total_` hold the cgroups below.
pub fn v1_memory(usage: u64, stat: &str) -> Memory {
    let mut memory = Memory { usage, ..Memory::default() };
    let (mut inactive_file, mut swap, mut swap_limit) = (0, None, None);
    for line in stat.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        let Some(value) = number(value) else { continue };
        match key {
            "total_inactive_file" => inactive_file = value,
            "total_rss" => memory.rss = value,
            "total_pgfault" => memory.page_faults = value,
            "total_pgmajfault" => memory.major_page_faults = value,
            "total_swap" => swap = Some(value),
            "hierarchical_memory_limit" => memory.limit = limited(value),
            "hierarchical_memsw_limit" => swap_limit = limited(value),
            _ => {}
        }
    }
    memory.working_set = usage.saturating_sub(inactive_file);
    memory.swap = swap.map(|usage| {
        // The second limit is that of memory and swap together.
        let limit = swap_limit.map(|both| both.saturating_sub(memory.limit.unwrap_or(both)));
        Swap { usage, available: limit.map(|limit| limit.saturating_sub(usage)) }
    });
    memory
}

/// A limit of version 1.
fn limited(value: u64) -> Option<u64> {
    (value < UNLIMITED).then_some(value)
}

/// The files of version 2: `memory.current`, `memory.max`, `memory.stat`, and those of swap, which may be missing.
pub fn v2_memory(current: u64, max: Option<u64>, stat: &str, swap: Option<u64>, swap_max: Option<u64>) -> Memory {
    let mut memory = Memory { usage: current, limit: max, ..Memory::default() };
    let mut inactive_file = 0;
    for line in stat.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        let Some(value) = number(value) else { continue };
        match key {
            "inactive_file" => inactive_file = value,
            "anon" => memory.rss = value,
            "pgfault" => memory.page_faults = value,
            "pgmajfault" => memory.major_page_faults = value,
            _ => {}
        }
    }
    memory.working_set = current.saturating_sub(inactive_file);
    memory.swap = swap.map(|usage| Swap { usage, available: swap_max.map(|max| max.saturating_sub(usage)) });
    memory
}

/// A `*.pressure` file. `None` when it has no line for `some`.
pub fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let mut stall = Stall::default();
        for (key, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total = value.parse::<u64>().ok()?.saturating_mul(1000),
                _ => {}
            }
        }
        Some(stall)
    };
    // Old kernels have no `full` for the processor.
    Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_STAT: &str = "cache 1\nrss 2\nswap 3\npgfault 4\nhierarchical_memory_limit 67108864\n\
        hierarchical_memsw_limit 134217728\ntotal_cache 8192000\ntotal_rss 20480000\ntotal_swap 4096\n\
        total_pgfault 777\ntotal_pgmajfault 3\ntotal_inactive_anon 5\ntotal_inactive_file 1000000\n";

    #[test]
    fn version_1_counts_the_cgroups_below() {
        let memory = v1_memory(30_000_000, V1_STAT);
        let swap = Some(Swap { usage: 4096, available: Some((64 << 20) - 4096) });
        let limit = Some(64 << 20);
        let expected = Memory {
            usage: 30_000_000,
            working_set: 29_000_000,
            limit,
            rss: 20_480_000,
            page_faults: 777,
            major_page_faults: 3,
            swap,
        };
        assert_eq!(memory, expected);
    }

    #[test]
    fn version_1_without_limits() {
        let stat = "hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file 10\ntotal_swap 0\n\
                    hierarchical_memsw_limit 9223372036854771712\n";
        let memory = v1_memory(5, stat);
        assert_eq!((memory.limit, memory.working_set), (None, 0), "never below zero");
        assert_eq!(memory.swap, Some(Swap { usage: 0, available: None }));
        assert_eq!(v1_memory(5, "total_rss 5\n").swap, None, "a kernel without accounting of swap");
    }

    #[test]
    fn version_2() {
        let stat = "anon 20480\nfile 8192\ninactive_file 4096\nactive_file 4096\npgfault 99\npgmajfault 2\n";
        let memory = v2_memory(40_960, Some(65_536), stat, Some(512), Some(1024));
        assert_eq!((memory.working_set, memory.rss, memory.limit), (36_864, 20_480, Some(65_536)));
        assert_eq!((memory.page_faults, memory.major_page_faults), (99, 2));
        assert_eq!(memory.swap, Some(Swap { usage: 512, available: Some(512) }));
        assert_eq!(v2_memory(1, number("max\n"), stat, None, None).limit, None);
        assert_eq!(v2_cpu("usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n"), Some(1_234_000));
        assert_eq!(v2_cpu("usage_used 1\n"), None);
    }

    #[test]
    fn pressure_of_all_kernels() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7\n";
        let found = pressure(text).unwrap();
        assert_eq!(found.some, Stall { total: 1_234_000, avg10: 1.5, avg60: 0.25, avg300: 0.0 });
        assert_eq!(found.full.total, 7000);
        assert_eq!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap().full, Stall::default());
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field("low 0\noom 2\noom_kill 1\n", "oom"), Some(2));
        assert_eq!(field(text, "oom"), None);
    }
}
