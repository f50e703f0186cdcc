//! Statistics of version 1, in the message that containerd's clients read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shared_proto::containerd::cgroups::v1::*;

use super::file::{fields, number, page_sizes, parse, pids_limit, text};

/// One tick of `cpuacct.stat`, nanoseconds.
const TICK: u64 = 10_000_000;

pub fn read(folders: &BTreeMap<String, PathBuf>) -> Metrics {
    let of = |name: &str| folders.get(name).map(PathBuf::as_path);
    Metrics {
        hugetlb: of("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: of("pids").map(|folder| PidsStat { current: number(folder, "pids.current"), limit: pids_limit(folder) }),
        cpu: of("cpuacct").map(|accounts| cpu(accounts, of("cpu"))),
        memory: of("memory").map(memory),
        blkio: of("blkio").map(blkio),
        memory_oom_control: of("memory").map(oom),
        ..Metrics::default()
    }
}

fn cpu(accounts: &Path, folder: Option<&Path>) -> CpuStat {
    let mut usage = CpuUsage {
        total: number(accounts, "cpuacct.usage"),
        per_cpu: text(accounts, "cpuacct.usage_percpu").split_whitespace().map(parse).collect(),
        ..CpuUsage::default()
    };
    fields(&text(accounts, "cpuacct.stat"), |key, value| match key {
        "user" => usage.user = value * TICK,
        "system" => usage.kernel = value * TICK,
        _ => {}
    });
    let throttling = folder.map(|folder| {
        let mut throttle = Throttle::default();
        fields(&text(folder, "cpu.stat"), |key, value| match key {
            "nr_periods" => throttle.periods = value,
            "nr_throttled" => throttle.throttled_periods = value,
            "throttled_time" => throttle.throttled_time = value,
            _ => {}
        });
        throttle
    });
    CpuStat { usage: Some(usage), throttling }
}

fn memory(folder: &Path) -> MemoryStat {
    let mut stat = MemoryStat::default();
    fields(&text(folder, "memory.stat"), |key, value| {
        let field = match key {
            "cache" => &mut stat.cache,
            "rss" => &mut stat.rss,
            "rss_huge" => &mut stat.rss_huge,
            "mapped_file" => &mut stat.mapped_file,
            "dirty" => &mut stat.dirty,
            "writeback" => &mut stat.writeback,
            "pgpgin" => &mut stat.pg_pg_in,
            "pgpgout" => &mut stat.pg_pg_out,
            "pgfault" => &mut stat.pg_fault,
            "pgmajfault" => &mut stat.pg_maj_fault,
            "inactive_anon" => &mut stat.inactive_anon,
            "active_anon" => &mut stat.active_anon,
            "inactive_file" => &mut stat.inactive_file,
            "active_file" => &mut stat.active_file,
            "unevictable" => &mut stat.unevictable,
            "hierarchical_memory_limit" => &mut stat.hierarchical_memory_limit,
            "hierarchical_memsw_limit" => &mut stat.hierarchical_swap_limit,
            "total_cache" => &mut stat.total_cache,
            "total_rss" => &mut stat.total_rss,
            "total_rss_huge" => &mut stat.total_rss_huge,
            "total_mapped_file" => &mut stat.total_mapped_file,
            "total_dirty" => &mut stat.total_dirty,
            "total_writeback" => &mut stat.total_writeback,
            "total_pgpgin" => &mut stat.total_pg_pg_in,
            "total_pgpgout" => &mut stat.total_pg_pg_out,
            "total_pgfault" => &mut stat.total_pg_fault,
            "total_pgmajfault" => &mut stat.total_pg_maj_fault,
            "total_inactive_anon" => &mut stat.total_inactive_anon,
            "total_active_anon" => &mut stat.total_active_anon,
            "total_inactive_file" => &mut stat.total_inactive_file,
            "total_active_file" => &mut stat.total_active_file,
            "total_unevictable" => &mut stat.total_unevictable,
            _ => return,
        };
        *field = value;
    });
    let entry = |kind: &str| {
        let name = |what: &str| format!("memory.{kind}{what}");
        folder.join(name("usage_in_bytes")).exists().then(|| MemoryEntry {
            limit: number(folder, &name("limit_in_bytes")),
            usage: number(folder, &name("usage_in_bytes")),
            max: number(folder, &name("max_usage_in_bytes")),
            failcnt: number(folder, &name("failcnt")),
        })
    };
    stat.usage = entry("");
    stat.swap = entry("memsw.");
    stat.kernel = entry("kmem.");
    stat.kernel_tcp = entry("kmem.tcp.");
    stat
}

fn oom(folder: &Path) -> MemoryOomControl {
    let mut control = MemoryOomControl::default();
    fields(&text(folder, "memory.oom_control"), |key, value| match key {
        "oom_kill_disable" => control.oom_kill_disable = value,
        "under_oom" => control.under_oom = value,
        "oom_kill" => control.oom_kill = value,
        _ => {}
    });
    control
}

fn hugetlb(folder: &Path) -> Vec<HugetlbStat> {
    let stat = |pagesize: String| HugetlbStat {
        usage: number(folder, &format!("hugetlb.{pagesize}.usage_in_bytes")),
        max: number(folder, &format!("hugetlb.{pagesize}.max_usage_in_bytes")),
        failcnt: number(folder, &format!("hugetlb.{pagesize}.failcnt")),
        pagesize,
    };
    page_sizes(folder, ".usage_in_bytes").map(stat).collect()
}

fn blkio(folder: &Path) -> BlkIoStat {
    // Schedulers that count have their own files; the others are counted where throttling is.
    let entries = |names: [&str; 2]| {
        names.iter().map(|name| blkio_entries(&text(folder, name))).find(|found| !found.is_empty()).unwrap_or_default()
    };
    BlkIoStat {
        io_service_bytes_recursive: entries([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ]),
        io_serviced_recursive: entries(["blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"]),
        ..BlkIoStat::default()
    }
}

/// Lines of `major:minor operation value`.
fn blkio_entries(text: &str) -> Vec<BlkIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let (device, op, value) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = device.split_once(':')?;
        Some(BlkIoEntry {
            op: op.to_owned(),
            device: String::new(),
            major: parse(major),
            minor: parse(minor),
            value: parse(value),
        })
    };
    text.lines().filter_map(entry).collect()
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
        file("pids.max", "max\n");
        file("cpuacct.usage", "5000000000\n");
        file("cpuacct.usage_percpu", "2000000000 3000000000 \n");
        file("cpuacct.stat", "user 300\nsystem 100\n");
        file("memory.stat", "rss 10\ntotal_rss 20\nhierarchical_memory_limit 64\n");
        file("memory.usage_in_bytes", "30\n");
        file("memory.limit_in_bytes", "64\n");
        file("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        file("blkio.throttle.io_serviced_recursive", "254:0 Read 5\n254:0 Total 5\nTotal 5\n");
        let names = ["pids", "cpuacct", "memory", "blkio"];
        let metrics = read(&names.iter().map(|name| ((*name).to_owned(), dir.path().to_owned())).collect());
        assert_eq!(metrics.pids, Some(PidsStat { current: 3, limit: 0 }));
        let usage = metrics.cpu.unwrap().usage.unwrap();
        assert_eq!((usage.total, usage.user, usage.kernel), (5_000_000_000, 3_000_000_000, 1_000_000_000));
        assert_eq!(usage.per_cpu, [2_000_000_000, 3_000_000_000]);
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.rss, memory.total_rss, memory.hierarchical_memory_limit), (10, 20, 64));
        assert_eq!(memory.usage, Some(MemoryEntry { limit: 64, usage: 30, max: 0, failcnt: 0 }));
        assert_eq!(memory.swap, None);
        assert_eq!(metrics.memory_oom_control.unwrap().oom_kill, 2);
        let served = metrics.blkio.unwrap().io_serviced_recursive;
        assert_eq!((served.len(), served[0].major, served[0].value), (2, 254, 5));
    }
}
