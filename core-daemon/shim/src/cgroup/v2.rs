//! Statistics of version 2, in the message that containerd's clients read.

use std::path::Path;

use shared_proto::containerd::cgroups::v2::*;

use super::file::{fields, number, page_sizes, parse, pids_limit, text};

pub fn read(folder: &Path) -> Metrics {
    let has = |name: &str| folder.join(name).exists();
    Metrics {
        pids: has("pids.current")
            .then(|| PidsStat { current: number(folder, "pids.current"), limit: pids_limit(folder) }),
        cpu: has("cpu.stat").then(|| cpu(folder)),
        memory: has("memory.stat").then(|| memory(folder)),
        memory_events: has("memory.events").then(|| events(folder)),
        io: has("io.stat").then(|| io(folder)),
        hugetlb: hugetlb(folder),
        ..Metrics::default()
    }
}

fn cpu(folder: &Path) -> CpuStat {
    let mut stat = CpuStat::default();
    fields(&text(folder, "cpu.stat"), |key, value| match key {
        "usage_usec" => stat.usage_usec = value,
        "user_usec" => stat.user_usec = value,
        "system_usec" => stat.system_usec = value,
        "nr_periods" => stat.nr_periods = value,
        "nr_throttled" => stat.nr_throttled = value,
        "throttled_usec" => stat.throttled_usec = value,
        "nr_bursts" => stat.nr_bursts = value,
        "burst_usec" => stat.burst_usec = value,
        _ => {}
    });
    stat.psi = pressure(&text(folder, "cpu.pressure"));
    stat
}

fn memory(folder: &Path) -> MemoryStat {
    let mut stat = MemoryStat::default();
    fields(&text(folder, "memory.stat"), |key, value| {
        let field = match key {
            "anon" => &mut stat.anon,
            "file" => &mut stat.file,
            "kernel_stack" => &mut stat.kernel_stack,
            "slab" => &mut stat.slab,
            "sock" => &mut stat.sock,
            "shmem" => &mut stat.shmem,
            "file_mapped" => &mut stat.file_mapped,
            "file_dirty" => &mut stat.file_dirty,
            "file_writeback" => &mut stat.file_writeback,
            "anon_thp" => &mut stat.anon_thp,
            "inactive_anon" => &mut stat.inactive_anon,
            "active_anon" => &mut stat.active_anon,
            "inactive_file" => &mut stat.inactive_file,
            "active_file" => &mut stat.active_file,
            "unevictable" => &mut stat.unevictable,
            "slab_reclaimable" => &mut stat.slab_reclaimable,
            "slab_unreclaimable" => &mut stat.slab_unreclaimable,
            "pgfault" => &mut stat.pgfault,
            "pgmajfault" => &mut stat.pgmajfault,
            "workingset_refault" => &mut stat.workingset_refault,
            "workingset_activate" => &mut stat.workingset_activate,
            "workingset_nodereclaim" => &mut stat.workingset_nodereclaim,
            "pgrefill" => &mut stat.pgrefill,
            "pgscan" => &mut stat.pgscan,
            "pgsteal" => &mut stat.pgsteal,
            "pgactivate" => &mut stat.pgactivate,
            "pgdeactivate" => &mut stat.pgdeactivate,
            "pglazyfree" => &mut stat.pglazyfree,
            "pglazyfreed" => &mut stat.pglazyfreed,
            "thp_fault_alloc" => &mut stat.thp_fault_alloc,
            "thp_collapse_alloc" => &mut stat.thp_collapse_alloc,
            _ => return,
        };
        *field = value;
    });
    stat.usage = number(folder, "memory.current");
    stat.usage_limit = number(folder, "memory.max");
    stat.swap_usage = number(folder, "memory.swap.current");
    stat.swap_limit = number(folder, "memory.swap.max");
    stat.max_usage = number(folder, "memory.peak");
    stat.swap_max_usage = number(folder, "memory.swap.peak");
    stat.psi = pressure(&text(folder, "memory.pressure"));
    stat
}

fn events(folder: &Path) -> MemoryEvents {
    let mut events = MemoryEvents::default();
    fields(&text(folder, "memory.events"), |key, value| match key {
        "low" => events.low = value,
        "high" => events.high = value,
        "max" => events.max = value,
        "oom" => events.oom = value,
        "oom_kill" => events.oom_kill = value,
        "oom_group_kill" => events.oom_group_kill = value,
        _ => {}
    });
    events
}

/// Lines of `major:minor rbytes=1 wbytes=2 …`.
fn io(folder: &Path) -> IoStat {
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = words.next()?.split_once(':')?;
        let mut entry = IoEntry { major: parse(major), minor: parse(minor), ..IoEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "rbytes" => entry.rbytes = parse(value),
                "wbytes" => entry.wbytes = parse(value),
                "rios" => entry.rios = parse(value),
                "wios" => entry.wios = parse(value),
                _ => {}
            }
        }
        Some(entry)
    };
    let usage = text(folder, "io.stat").lines().filter_map(entry).collect();
    IoStat { usage, psi: pressure(&text(folder, "io.pressure")) }
}

fn hugetlb(folder: &Path) -> Vec<HugeTlbStat> {
    let stat = |pagesize: String| HugeTlbStat {
        current: number(folder, &format!("hugetlb.{pagesize}.current")),
        max: number(folder, &format!("hugetlb.{pagesize}.max")),
        failcnt: 0,
        pagesize,
    };
    page_sizes(folder, ".current").map(stat).collect()
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(text: &str) -> Option<PsiStats> {
    let line = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let mut data = PsiData::default();
        for (key, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().ok()?,
                "avg60" => data.avg60 = value.parse().ok()?,
                "avg300" => data.avg300 = value.parse().ok()?,
                "total" => data.total = parse(value),
                _ => {}
            }
        }
        Some(data)
    };
    Some(PsiStats { some: Some(line("some")?), full: line("full") })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_become_a_message() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file("pids.current", "3\n");
        file("pids.max", "100\n");
        file("cpu.stat", "usage_usec 500\nuser_usec 300\nsystem_usec 200\nnr_periods 7\n");
        file("memory.stat", "anon 10\nfile 20\npgfault 5\n");
        file("memory.current", "30\n");
        file("memory.max", "max\n");
        file("memory.events", "low 0\noom 1\noom_kill 2\n");
        file("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n");
        file("memory.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\n");
        let metrics = read(dir.path());
        assert_eq!(metrics.pids, Some(PidsStat { current: 3, limit: 100 }));
        let cpu = metrics.cpu.unwrap();
        assert_eq!((cpu.usage_usec, cpu.system_usec, cpu.nr_periods), (500, 200, 7));
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.anon, memory.usage, memory.usage_limit), (10, 30, u64::MAX));
        assert_eq!(memory.psi.unwrap().some.unwrap().total, 12);
        assert_eq!(metrics.memory_events.unwrap().oom_kill, 2);
        let io = metrics.io.unwrap().usage;
        assert_eq!((io[0].major, io[0].wbytes, io[0].wios), (254, 2, 4));
    }
}
