//! CPU, memory, huge pages and the OOM score.

use std::sync::Once;

use oci_spec::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxResources};
use shared_config::CriRuntime;
use shared_proto::cri::v1;

use super::{SpecError, bounds};
use crate::host::{CgroupMode, HostFacts};

/// OOM score of a pause container: the last process of its pod to be killed.
const SANDBOX_OOM_SCORE: i64 = -998;
/// CPU weight of a pause container: the lowest.
const SANDBOX_CPU_SHARES: u64 = LEAST_SHARES;
/// The kernel moves shares into these bounds on version 1; on version 2 OCI runtimes take none beyond them.
const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// Resources of a pause container.
pub(super) fn sandbox(devices: Vec<LinuxDeviceCgroup>) -> LinuxResources {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(SANDBOX_CPU_SHARES));
    let mut out = LinuxResources::default();
    out.set_devices(Some(devices)).set_cpu(Some(cpu));
    out
}

/// Zero and empty mean "not limited" throughout, as in CRI.
pub(super) fn container(
    request: &v1::LinuxContainerResources,
    settings: &CriRuntime,
    host: &HostFacts,
    devices: Vec<LinuxDeviceCgroup>,
) -> Result<LinuxResources, SpecError> {
    let mut out = LinuxResources::default();
    out.set_devices(Some(devices)).set_cpu(cpu(request)?).set_memory(memory(request, host)?);
    let pages = hugepages(request)?;
    if !settings.disable_hugetlb_controller && !pages.is_empty() {
        if host.controllers.contains("hugetlb") {
            out.set_hugepage_limits(Some(pages));
        } else if !settings.tolerate_missing_hugetlb_controller {
            return Err(SpecError::invalid(field("hugepage_limits"), "this machine has no hugetlb cgroup controller"));
        }
    }
    if !request.unified.is_empty() {
        if host.cgroups != CgroupMode::V2 {
            return Err(SpecError::invalid(
                field("unified"),
                "needs cgroup version 2, which this machine does not use",
            ));
        }
        request.unified.keys().try_for_each(|key| bounds::unified(key))?;
        out.set_unified(Some(request.unified.clone().into_iter().collect()));
    }
    Ok(out)
}

fn field(name: &str) -> String {
    format!("linux.resources.{name}")
}

/// A limit that must not be negative; zero is none.
fn positive(name: &str, value: i64) -> Result<Option<u64>, SpecError> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(SpecError::invalid(field(name), format!("{value} is negative"))),
    }
}

/// A limit where -1 means unlimited; zero is none.
fn limit(name: &str, value: i64) -> Result<Option<i64>, SpecError> {
    match value {
        0 => Ok(None),
        -1.. => Ok(Some(value)),
        _ => Err(SpecError::invalid(field(name), format!("{value} is negative"))),
    }
}

fn cpu(request: &v1::LinuxContainerResources) -> Result<Option<LinuxCpu>, SpecError> {
    let period = positive("cpu_period", request.cpu_period)?;
    let quota = limit("cpu_quota", request.cpu_quota)?;
    bounds::cpu(period, quota)?;
    let mut cpu = LinuxCpu::default();
    cpu.set_period(period)
        .set_quota(quota)
        .set_shares(positive("cpu_shares", request.cpu_shares)?.map(|shares| shares.clamp(LEAST_SHARES, MOST_SHARES)))
        .set_cpus(bounds::set("cpuset_cpus", &request.cpuset_cpus)?)
        .set_mems(bounds::set("cpuset_mems", &request.cpuset_mems)?);
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

/// Swap is limited to the memory limit unless the request says otherwise, so that nobody swaps by default.
fn memory(request: &v1::LinuxContainerResources, host: &HostFacts) -> Result<Option<LinuxMemory>, SpecError> {
    let memory = limit("memory_limit_in_bytes", request.memory_limit_in_bytes)?;
    let swap = limit("memory_swap_limit_in_bytes", request.memory_swap_limit_in_bytes)?;
    if let (Some(memory @ 1..), Some(swap @ 1..)) = (memory, swap)
        && swap < memory
    {
        let problem = format!("{swap} is memory plus swap, and less than the memory limit {memory}");
        return Err(SpecError::invalid(field("memory_swap_limit_in_bytes"), problem));
    }
    let mut out = LinuxMemory::default();
    out.set_limit(memory);
    if host.swap_limit {
        out.set_swap(swap.or(memory));
    }
    Ok((out != LinuxMemory::default()).then_some(out))
}

fn hugepages(request: &v1::LinuxContainerResources) -> Result<Vec<LinuxHugepageLimit>, SpecError> {
    let convert = |(index, page): (usize, &v1::HugepageLimit)| {
        bounds::page_size(index, &page.page_size)?;
        let value = i64::try_from(page.limit).map_err(|_| {
            SpecError::invalid(field(&format!("hugepage_limits[{index}]")), format!("{} is too large", page.limit))
        })?;
        let mut out = LinuxHugepageLimit::default();
        out.set_page_size(page.page_size.clone()).set_limit(value);
        Ok(out)
    };
    request.hugepage_limits.iter().enumerate().map(convert).collect()
}

/// The OOM score of a pause container.
pub(super) fn sandbox_oom_score(settings: &CriRuntime, host: &HostFacts) -> i32 {
    restricted(SANDBOX_OOM_SCORE as i32, settings, host)
}

pub(super) fn oom_score(
    request: &v1::LinuxContainerResources,
    settings: &CriRuntime,
    host: &HostFacts,
) -> Result<i32, SpecError> {
    match i32::try_from(request.oom_score_adj) {
        Ok(score @ -1000..=1000) => Ok(restricted(score, settings, host)),
        _ => {
            Err(SpecError::invalid(field("oom_score_adj"), format!("{} is not in -1000..1000", request.oom_score_adj)))
        }
    }
}

/// Without CAP_SYS_RESOURCE nobody gets below our own score: the runtime would fail to start the process.
fn restricted(score: i32, settings: &CriRuntime, host: &HostFacts) -> i32 {
    if score >= host.oom_score_adj || (host.sys_resource && !settings.restrict_oom_score_adj) {
        return score;
    }
    if !settings.restrict_oom_score_adj {
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            tracing::warn!(
                own = host.oom_score_adj,
                "no CAP_SYS_RESOURCE: OOM scores of containers are not set below the daemon's own"
            );
        });
    }
    host.oom_score_adj
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{FakeHost, Host};

    fn facts() -> HostFacts {
        FakeHost::default().facts().clone()
    }

    fn of(request: v1::LinuxContainerResources) -> Result<LinuxResources, SpecError> {
        container(&request, &CriRuntime::default(), &facts(), Vec::new())
    }

    #[test]
    fn nothing_asked_nothing_set() {
        let out = of(v1::LinuxContainerResources::default()).unwrap();
        assert!(out.cpu().is_none() && out.memory().is_none() && out.pids().is_none() && out.unified().is_none());
    }

    #[test]
    fn swap_follows_memory() {
        let request = |memory, swap| v1::LinuxContainerResources {
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            ..Default::default()
        };
        let swap = |request| of(request).unwrap().memory().and_then(|m| m.swap());
        assert_eq!(swap(request(100, 0)), Some(100));
        assert_eq!(swap(request(100, 150)), Some(150));
        assert_eq!(swap(request(100, -1)), Some(-1));
        assert_eq!(swap(request(0, 0)), None);
        let host = HostFacts { swap_limit: false, ..facts() };
        let out = container(&request(100, 150), &CriRuntime::default(), &host, Vec::new()).unwrap();
        assert_eq!(out.memory().and_then(|m| m.swap()), None);
        let small = of(request(100, 50)).unwrap_err().to_string();
        assert!(small.starts_with("linux.resources.memory_swap_limit_in_bytes:"), "{small}");
    }

    #[test]
    fn impossible_values_are_named() {
        let fails = |request| of(request).unwrap_err().to_string();
        let period = v1::LinuxContainerResources { cpu_period: -1, ..Default::default() };
        assert_eq!(fails(period), "linux.resources.cpu_period: -1 is negative");
        let quota = v1::LinuxContainerResources { cpu_quota: -2, ..Default::default() };
        assert_eq!(fails(quota), "linux.resources.cpu_quota: -2 is negative");
        let oom = v1::LinuxContainerResources { oom_score_adj: 1001, ..Default::default() };
        assert!(oom_score(&oom, &CriRuntime::default(), &facts()).is_err());
    }

    #[test]
    fn hugepages_need_the_controller_and_the_setting() {
        let limits = vec![v1::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }];
        let request = v1::LinuxContainerResources { hugepage_limits: limits, ..Default::default() };
        assert!(of(request.clone()).unwrap().hugepage_limits().is_none(), "disabled by default");
        let mut settings = CriRuntime { disable_hugetlb_controller: false, ..Default::default() };
        let out = container(&request, &settings, &facts(), Vec::new()).unwrap();
        assert_eq!(out.hugepage_limits().as_ref().unwrap().len(), 1);
        let host = HostFacts { controllers: Default::default(), ..facts() };
        assert!(container(&request, &settings, &host, Vec::new()).unwrap().hugepage_limits().is_none());
        settings.tolerate_missing_hugetlb_controller = false;
        assert!(container(&request, &settings, &host, Vec::new()).is_err());
    }

    #[test]
    fn unified_needs_version_2_and_files_of_the_cgroup() {
        let unified = |key: &str| v1::LinuxContainerResources {
            unified: [(key.to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let out = of(unified("memory.oom.group")).unwrap();
        assert_eq!(out.unified().as_ref().and_then(|map| map.get("memory.oom.group")), Some(&"1".to_owned()));
        assert!(of(unified("../memory.max")).unwrap_err().to_string().starts_with("linux.resources.unified:"));
        for cgroups in [CgroupMode::V1, CgroupMode::Hybrid] {
            let host = HostFacts { cgroups, ..facts() };
            let refused = container(&unified("memory.high"), &CriRuntime::default(), &host, Vec::new()).unwrap_err();
            assert!(refused.to_string().contains("cgroup version 2"), "{refused}");
        }
    }

    #[test]
    fn shares_stay_in_the_kernel_s_bounds() {
        let shares = |asked| {
            let request = v1::LinuxContainerResources { cpu_shares: asked, ..Default::default() };
            of(request).unwrap().cpu().as_ref().and_then(|cpu| cpu.shares())
        };
        assert_eq!([1, 2, 512, 300_000].map(shares), [Some(2), Some(2), Some(512), Some(262_144)]);
        assert_eq!(shares(0), None);
    }

    #[test]
    fn scores_are_restricted_only_where_needed() {
        let request = v1::LinuxContainerResources { oom_score_adj: -900, ..Default::default() };
        let mut settings = CriRuntime::default();
        assert_eq!(oom_score(&request, &settings, &facts()).unwrap(), -900);
        let weak = HostFacts { sys_resource: false, oom_score_adj: -5, ..facts() };
        assert_eq!(oom_score(&request, &settings, &weak).unwrap(), -5);
        assert_eq!(sandbox_oom_score(&settings, &weak), -5);
        assert_eq!(sandbox_oom_score(&settings, &facts()), -998);
        settings.restrict_oom_score_adj = true;
        assert_eq!(oom_score(&request, &settings, &facts()).unwrap(), 0);
        let higher = v1::LinuxContainerResources { oom_score_adj: 3, ..Default::default() };
        assert_eq!(oom_score(&higher, &settings, &weak).unwrap(), 3);
    }
}
