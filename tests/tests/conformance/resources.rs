//! `LinuxContainerResources`: what the kernel says about the container's cgroup and process.

use std::path::Path;

use e2e::cases::Cases;
use e2e::pod::resources as of;
use e2e::world::peer;
use e2e::{Wiring, slot};
use shared_proto::cri::v1::*;
use tonic::Code::InvalidArgument;

const MIB: i64 = 1 << 20;

pub async fn resources(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "resources", &[]).await;
    limits(&mut cases).await;
    swap(&mut cases).await;
    unlimited(&mut cases).await;
    oom_scores(&mut cases).await;
    unified_and_hugepages(&mut cases).await;
    refusals(&mut cases).await;
    cases.end().await;
}

fn v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A file of a container's cgroup: `(controller, name)` of version 1, or a name of version 2.
fn read(cases: &Cases, id: &str, v1: (&str, &str), unified: &str) -> String {
    let roots = slot::cgroup_roots();
    let root = if v2() { roots.first() } else { roots.iter().find(|root| root.ends_with(v1.0)) };
    let root = root.unwrap_or_else(|| panic!("no cgroup hierarchy for {}", v1.0));
    let path = root.join(cases.world.slot.name()).join(id).join(if v2() { unified } else { v1.1 });
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())).trim().to_owned()
}

async fn limits(cases: &mut Cases) {
    let wanted = LinuxContainerResources {
        cpu_period: 50_000,
        cpu_quota: 20_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 * MIB,
        cpuset_cpus: "0".into(),
        cpuset_mems: "0".into(),
        ..Default::default()
    };
    let asked = wanted.clone();
    let id = cases.runs("cpu-cpuset-and-memory", |c| *of(c) = asked).await;
    if v2() {
        assert_eq!(read(cases, &id, ("", ""), "cpu.max"), "20000 50000");
        // (512 - 2) * 9999 / 262142 + 1
        assert_eq!(read(cases, &id, ("", ""), "cpu.weight"), "20");
    } else {
        assert_eq!(read(cases, &id, ("cpu", "cpu.cfs_period_us"), ""), "50000");
        assert_eq!(read(cases, &id, ("cpu", "cpu.cfs_quota_us"), ""), "20000");
        assert_eq!(read(cases, &id, ("cpu", "cpu.shares"), ""), "512");
    }
    assert_eq!(read(cases, &id, ("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0");
    assert_eq!(read(cases, &id, ("cpuset", "cpuset.mems"), "cpuset.mems"), "0");
    assert_eq!(read(cases, &id, ("memory", "memory.limit_in_bytes"), "memory.max"), (64 * MIB).to_string());
    let allowed = cases.cri.exec_ok(&id, &["grep", "Cpus_allowed_list", "/proc/self/status"]).await;
    assert_eq!(allowed.split_whitespace().last(), Some("0"));
    if !cases.peer_lacks("status-tells-the-resources", "1.6 has no ContainerStatus.resources") {
        cases.case("status-tells-the-resources");
        let told = cases.cri.container(&id).await.resources.and_then(|resources| resources.linux);
        assert_eq!(told, Some(wanted));
    }
    cases.cri.try_remove(&id).await.expect("remove");
}

async fn swap(cases: &mut Cases) {
    if !v2() && !Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        return cases.skip("memory-swap-limit", "this machine does not account for swap");
    }
    let both = |memory: i64, swap: i64| {
        move |c: &mut ContainerConfig| {
            (of(c).memory_limit_in_bytes, of(c).memory_swap_limit_in_bytes) = (memory * MIB, swap * MIB);
        }
    };
    // Version 1 counts both together, version 2 swap alone.
    let expected = |memory: i64, swap: i64| if v2() { (swap - memory) * MIB } else { swap * MIB }.to_string();
    let file = ("memory", "memory.memsw.limit_in_bytes");
    let id = cases.runs("memory-swap-limit", both(32, 48)).await;
    assert_eq!(read(cases, &id, file, "memory.swap.max"), expected(32, 48));
    cases.cri.try_remove(&id).await.expect("remove");
    let id = cases.runs("memory-swap-limit-unset", both(32, 0)).await;
    assert_eq!(read(cases, &id, file, "memory.swap.max"), expected(32, 32), "nobody swaps unasked");
    cases.cri.try_remove(&id).await.expect("remove");
}

async fn unlimited(cases: &mut Cases) {
    let id = cases.runs("nothing-is-limited", |c| *of(c) = LinuxContainerResources::default()).await;
    let (quota, memory) = if v2() { ("max 100000", "max") } else { ("-1", "9223372036854771712") };
    assert_eq!(read(cases, &id, ("cpu", "cpu.cfs_quota_us"), "cpu.max"), quota);
    assert_eq!(read(cases, &id, ("memory", "memory.limit_in_bytes"), "memory.max"), memory);
    cases.cri.try_remove(&id).await.expect("remove");
    let id = cases.runs("cpu-quota-of-minus-one", |c| of(c).cpu_quota = -1).await;
    assert_eq!(read(cases, &id, ("cpu", "cpu.cfs_quota_us"), "cpu.max"), quota);
    cases.cri.try_remove(&id).await.expect("remove");
}

async fn oom_scores(cases: &mut Cases) {
    let own = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", cases.world.cri_daemon().pid()));
    let own: i64 = own.expect("the daemon runs").trim().parse().expect("a score");
    let mask = u64::from_str_radix(&e2e::cases::status_line(cases.world.cri_daemon().pid(), "CapEff"), 16);
    let may_lower = mask.expect("a mask") & (1 << 24) != 0 && peer().is_none();
    for (name, asked) in [("oom-score-adj", 777), ("oom-score-adj-zero", 0), ("oom-score-adj-low", -500)] {
        let out = cases.prints(name, "cat /proc/self/oom_score_adj", |c| of(c).oom_score_adj = asked).await;
        // Without CAP_SYS_RESOURCE nobody gets below the daemon's own score.
        let expected = if may_lower { asked } else { asked.max(own) };
        assert_eq!(out, format!("{expected}\n"), "{name}");
    }
}

async fn unified_and_hugepages(cases: &mut Cases) {
    let unified = |key: &str, value: &str| {
        let pair = (key.to_owned(), value.to_owned());
        move |c: &mut ContainerConfig| of(c).unified = [pair].into()
    };
    if v2() {
        let id = cases.runs("unified", unified("memory.high", "33554432")).await;
        assert_eq!(read(cases, &id, ("", ""), "memory.high"), "33554432");
        cases.cri.try_remove(&id).await.expect("remove");
        cases.refused("unified-with-a-path", InvalidArgument, "unified", unified("../memory.max", "1")).await;
    } else if !cases.peer_lacks("unified", "1.6 ignores it on cgroup version 1") {
        cases.refused("unified", InvalidArgument, "linux.resources.unified", unified("memory.high", "1")).await;
    }
    // The controller is off by default, so limits on huge pages are taken and not set.
    let pages = vec![HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }];
    let out = cases.prints("hugepage-limits", "echo ran", |c| of(c).hugepage_limits = pages).await;
    assert_eq!(out, "ran\n");
    if !cases.peer_lacks("hugepage-limits-wrong", "1.6 takes any page size") {
        let pages = vec![HugepageLimit { page_size: "huge".into(), limit: 1 }];
        let wrong = |c: &mut ContainerConfig| of(c).hugepage_limits = pages;
        cases.refused("hugepage-limits-wrong", InvalidArgument, "hugepage_limits[0].page_size", wrong).await;
    }
}

async fn refusals(cases: &mut Cases) {
    type Change = fn(&mut LinuxContainerResources);
    // The peer hands all of it on to runc, which takes some of it.
    let wrong: [(&str, &str, Change); 13] = [
        ("cpu-period-negative", "cpu_period: -1", |r| r.cpu_period = -1),
        ("cpu-period-too-long", "cpu_period: 2000000", |r| (r.cpu_period, r.cpu_quota) = (2_000_000, 10_000)),
        ("cpu-period-too-short", "cpu_period: 10", |r| (r.cpu_period, r.cpu_quota) = (10, 10_000)),
        ("cpu-quota-negative", "cpu_quota: -2", |r| r.cpu_quota = -2),
        ("cpu-quota-too-small", "cpu_quota: 10", |r| (r.cpu_period, r.cpu_quota) = (100_000, 10)),
        ("cpu-shares-negative", "cpu_shares: -1", |r| r.cpu_shares = -1),
        ("memory-negative", "memory_limit_in_bytes: -2", |r| r.memory_limit_in_bytes = -2),
        ("swap-negative", "memory_swap_limit_in_bytes: -2", |r| r.memory_swap_limit_in_bytes = -2),
        ("swap-below-memory", "memory_swap_limit_in_bytes", |r| {
            (r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes) = (64 * MIB, 32 * MIB);
        }),
        ("oom-score-too-high", "oom_score_adj: 1001", |r| r.oom_score_adj = 1001),
        ("oom-score-too-low", "oom_score_adj: -1001", |r| r.oom_score_adj = -1001),
        ("cpuset-cpus-wrong", "cpuset_cpus: \"zero\"", |r| r.cpuset_cpus = "zero".into()),
        ("cpuset-mems-wrong", "cpuset_mems: \"0-\"", |r| r.cpuset_mems = "0-".into()),
    ];
    for (name, names, change) in wrong {
        if !cases.peer_lacks(name, "1.6 leaves such values to runc and the kernel") {
            cases.refused(name, InvalidArgument, names, |c| change(of(c))).await;
        }
    }
}
