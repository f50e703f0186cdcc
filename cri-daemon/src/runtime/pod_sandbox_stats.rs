//! PodSandboxStats and ListPodSandboxStats: a pod's cgroup, its network, and the stats of its containers, in one pass.
//!
//! Only a ready sandbox has stats: `Unavailable` for any other, and a list leaves it out. The pod's cgroup is the one
//! around its pause process's. A pod that was given none of its own is shown as the sum of its containers.

use std::sync::Arc;

use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result};

use crate::Cri;
use crate::container::Container;
use crate::pod::{Sandbox, State};
use crate::stats::cgroup::Buffer;
use crate::stats::{Look, StatsError, Target, message, network, target};

/// The interface that the kubelet is shown as the pod's.
const DEFAULT: &str = "eth0";

/// What is needed for one pod, collected before the blocking pass.
struct Pod {
    sandbox: Arc<Sandbox>,
    pid: u32,
    containers: Vec<Arc<Container>>,
}

impl Cri {
    pub async fn pod_sandbox_stats(&self, req: v1::PodSandboxStatsRequest) -> Result<v1::PodSandboxStatsResponse> {
        let sandbox = self.0.sandboxes.get(&req.pod_sandbox_id)?;
        let id = sandbox.record().id.clone();
        let state = sandbox.life.state();
        let containers = self.0.containers_of(&id);
        let Some(pod) = pod(sandbox, containers) else {
            let problem = format!("stats of sandbox {id}: it is {}; it must be ready", state.name());
            return Err(Error::unavailable(problem));
        };
        let cri = self.clone();
        let stats = shared_sys::blocking(move || cri.pod_stats(&pod, &mut Buffer::new())).await;
        let stats = stats.with_context(|| format!("stats of sandbox {id}"))?;
        Ok(v1::PodSandboxStatsResponse { stats: Some(stats) })
    }

    pub async fn list_pod_sandbox_stats(
        &self,
        req: v1::ListPodSandboxStatsRequest,
    ) -> Result<v1::ListPodSandboxStatsResponse> {
        let v1::PodSandboxStatsFilter { id, label_selector } = req.filter.unwrap_or_default();
        let sandboxes = self.select_sandboxes(&v1::PodSandboxFilter { id, label_selector, state: None });
        let mut of = std::collections::HashMap::<String, Vec<Arc<Container>>>::new();
        for container in self.0.containers.list() {
            of.entry(container.record.sandbox_id.clone()).or_default().push(container);
        }
        let pods = sandboxes.into_iter().filter_map(|sandbox| {
            let containers = of.remove(&sandbox.record().id).unwrap_or_default();
            pod(sandbox, containers)
        });
        let pods: Vec<Pod> = pods.collect();
        let cri = self.clone();
        let stats = shared_sys::blocking(move || {
            let mut buffer = Buffer::new();
            let each = pods.iter().filter_map(|pod| match cri.pod_stats(pod, &mut buffer) {
                Ok(stats) => Some(stats),
                // It ended while we looked.
                Err(StatsError::Gone { .. }) => None,
                Err(error) => {
                    tracing::debug!(sandbox = pod.sandbox.record().id, %error, "left out of the list of stats");
                    None
                }
            });
            each.collect()
        });
        Ok(v1::ListPodSandboxStatsResponse { stats: stats.await })
    }

    /// Blocks, for the kernel's own work only.
    fn pod_stats(&self, pod: &Pod, buffer: &mut Buffer) -> Result<v1::PodSandboxStats, StatsError> {
        let record = pod.sandbox.record();
        let own = record.config.linux.as_ref().is_some_and(|linux| !linux.cgroup_parent.is_empty());
        let pause = Target { id: record.id.clone(), pid: pod.pid, pod: own };
        let mut look = self.0.stats.look(&pause, buffer)?;
        if !own {
            for container in pod.containers.iter().filter_map(|container| target(container)) {
                look.add(self.0.stats.look(&container, buffer).unwrap_or_default());
            }
        }
        let now = self.0.host.now();
        let network = match record.host_network() {
            // Those are the machine's.
            true => None,
            false => Some(network_usage(network::read(&record.id, pod.pid)?, now)),
        };
        Ok(v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            linux: Some(v1::LinuxPodSandboxStats {
                cpu: message::cpu(&look, now),
                memory: message::memory(&look, now),
                network,
                process: message::processes(&look, now),
                containers: self.stats_of_all(&pod.containers, buffer),
                io: message::io(&look, now),
            }),
            windows: None,
        })
    }
}

/// Nothing for a sandbox that is not ready.
fn pod(sandbox: Arc<Sandbox>, containers: Vec<Arc<Container>>) -> Option<Pod> {
    match sandbox.life.state() {
        State::Ready { pid } => Some(Pod { sandbox, pid, containers }),
        State::Creating | State::NotReady { .. } | State::Unknown { .. } => None,
    }
}

/// The default interface apart, the others beside it, as the kubelet reads them.
fn network_usage(interfaces: Vec<network::Interface>, timestamp: i64) -> v1::NetworkUsage {
    let mut usage = v1::NetworkUsage { timestamp, ..Default::default() };
    for interface in interfaces.iter().map(message::interface) {
        if interface.name == DEFAULT {
            usage.default_interface = Some(interface);
        } else {
            usage.interfaces.push(interface);
        }
    }
    usage
}

impl Look {
    /// Adds the figures of another cgroup. Limits and pressure of several say nothing about their sum.
    fn add(&mut self, other: Look) {
        let sum = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a + b.unwrap_or(0)));
        self.nano_cores = sum(self.nano_cores, other.nano_cores);
        let (own, other) = (&mut self.reading, other.reading);
        own.cpu = sum(own.cpu, other.cpu);
        own.processes = sum(own.processes, other.processes);
        (own.cpu_pressure, own.memory_pressure, own.io_pressure) = (None, None, None);
        if let (Some(own), Some(other)) = (&mut own.memory, other.memory) {
            own.usage += other.usage;
            own.working_set += other.working_set;
            own.rss += other.rss;
            own.page_faults += other.page_faults;
            own.major_page_faults += other.major_page_faults;
            own.limit = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::parse::{Memory, Reading};

    #[test]
    fn the_default_interface_stands_apart() {
        let named = |name: &str| network::Interface { name: name.into(), rx_bytes: 1, ..Default::default() };
        let usage = network_usage(vec![named("net1"), named("eth0"), named("eth1")], 5);
        assert_eq!(usage.default_interface.unwrap().name, "eth0");
        assert_eq!(usage.interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["net1", "eth1"]);
        assert!(network_usage(Vec::new(), 5).default_interface.is_none());
    }

    #[test]
    fn cgroups_are_summed_up() {
        let look = |cpu: u64, usage: u64| Look {
            reading: Reading {
                cpu: Some(cpu),
                memory: Some(Memory { usage, working_set: usage, limit: Some(9), ..Memory::default() }),
                processes: Some(1),
                ..Reading::default()
            },
            nano_cores: (cpu > 1).then_some(cpu),
        };
        let mut sum = look(1, 10);
        sum.add(look(2, 20));
        sum.add(Look::default());
        assert_eq!((sum.reading.cpu, sum.nano_cores, sum.reading.processes), (Some(3), Some(2), Some(2)));
        let memory = sum.reading.memory.unwrap();
        assert_eq!((memory.usage, memory.limit), (30, None));
    }
}
