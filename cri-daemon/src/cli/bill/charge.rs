//! Who pays what: pure sums over what was read.

use std::iter::Sum;
use std::ops::{Add, Div};

use serde::Serialize;
use shared_sys::usage::Usage;

/// An amount of each thing that is charged. Parts of daemons are no whole numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Amount {
    pub pss_bytes: f64,
    pub rss_bytes: f64,
    pub cpu_seconds: f64,
    pub threads: f64,
    pub descriptors: f64,
}

/// A process that serves all pods.
#[derive(Debug, Clone, Serialize)]
pub struct Daemon {
    pub role: &'static str,
    pub pid: u32,
    pub uses: Amount,
}

/// A shim, and whom it names on its command line.
#[derive(Debug, Clone, Serialize)]
pub struct Shim {
    pub pid: u32,
    pub id: String,
    pub namespace: String,
    /// Whether it is in CRI's namespace.
    #[serde(skip)]
    pub ours: bool,
    pub uses: Amount,
}

/// A pod as CRI lists it, with the ids of its containers.
#[derive(Debug, Clone)]
pub struct Pod {
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub ready: bool,
    pub containers: Vec<String>,
}

/// What one pod pays.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub containers: usize,
    /// Its shims, one as a rule.
    pub shims: Vec<u32>,
    /// Of its shims.
    pub own: Amount,
    /// Its part of the daemons.
    pub share: Amount,
    /// Both.
    pub all: Amount,
}

/// See the [module](super) above.
#[derive(Debug, Clone, Serialize)]
pub struct Bill {
    /// As the daemon tells it; none by another runtime's.
    pub wiring: Option<String>,
    pub daemons: Vec<Daemon>,
    /// The most expensive first.
    pub pods: Vec<Line>,
    /// Shims that belong to no pod: of other clients, or left over.
    pub others: Vec<Shim>,
    /// What the daemons use; no pod pays it while there is none.
    pub shared: Amount,
    /// Of all processes.
    pub total: Amount,
}

impl Bill {
    /// Pods that are not ready and have no shim cost nothing and are left out.
    pub fn new(wiring: Option<String>, daemons: Vec<Daemon>, pods: Vec<Pod>, mut shims: Vec<Shim>) -> Self {
        let shared: Amount = daemons.iter().map(|daemon| daemon.uses).sum();
        let total = shared + shims.iter().map(|shim| shim.uses).sum();
        let mut lines = Vec::new();
        for pod in pods {
            let is_its = |shim: &Shim| shim.ours && (shim.id == pod.id || pod.containers.contains(&shim.id));
            let own: Vec<Shim> = shims.extract_if(.., |shim| is_its(shim)).collect();
            if pod.ready || !own.is_empty() {
                lines.push((pod, own));
            }
        }
        let share = shared / lines.len().max(1) as f64;
        let line = |(pod, shims): (Pod, Vec<Shim>)| {
            let own = shims.iter().map(|shim| shim.uses).sum();
            let (containers, shims) = (pod.containers.len(), shims.iter().map(|shim| shim.pid).collect());
            Line {
                id: pod.id,
                namespace: pod.namespace,
                name: pod.name,
                containers,
                shims,
                own,
                share,
                all: own + share,
            }
        };
        let mut pods: Vec<Line> = lines.into_iter().map(line).collect();
        pods.sort_by(|a, b| {
            let cost = |line: &Line| line.all.pss_bytes;
            cost(b).total_cmp(&cost(a)).then_with(|| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)))
        });
        Self { wiring, daemons, pods, others: shims, shared, total }
    }
}

impl From<Usage> for Amount {
    fn from(usage: Usage) -> Self {
        Self {
            pss_bytes: usage.pss as f64,
            rss_bytes: usage.rss as f64,
            cpu_seconds: usage.cpu.as_secs_f64(),
            threads: usage.threads as f64,
            descriptors: usage.descriptors as f64,
        }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            pss_bytes: self.pss_bytes + other.pss_bytes,
            rss_bytes: self.rss_bytes + other.rss_bytes,
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            threads: self.threads + other.threads,
            descriptors: self.descriptors + other.descriptors,
        }
    }
}

impl Div<f64> for Amount {
    type Output = Self;

    fn div(self, by: f64) -> Self {
        Self {
            pss_bytes: self.pss_bytes / by,
            rss_bytes: self.rss_bytes / by,
            cpu_seconds: self.cpu_seconds / by,
            threads: self.threads / by,
            descriptors: self.descriptors / by,
        }
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::add)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn amount(n: f64) -> Amount {
        Amount { pss_bytes: n * 1024.0, rss_bytes: n * 2048.0, cpu_seconds: n / 128.0, threads: n, descriptors: n }
    }

    fn shim(pid: u32, namespace: &str, id: &str, n: f64) -> Shim {
        Shim { pid, id: id.into(), namespace: namespace.into(), ours: namespace == "k8s.io", uses: amount(n) }
    }

    fn pod(id: &str, name: &str, ready: bool, containers: &[&str]) -> Pod {
        let containers = containers.iter().map(|id| (*id).to_owned()).collect();
        Pod { id: id.into(), namespace: "shop".into(), name: name.into(), ready, containers }
    }

    /// Two pods that run, one that has ended with its shim still there, one that is over; other clients' shims.
    pub fn bill() -> Bill {
        let daemons = [("core", 10, 20.0), ("CRI side", 11, 10.0)];
        let daemons = daemons.map(|(role, pid, n)| Daemon { role, pid, uses: amount(n) }).into();
        let pods = vec![
            pod("a", "web", true, &["a1", "a2"]),
            pod("b", "db", true, &["b1"]),
            pod("c", "late", false, &[]),
            pod("d", "over", false, &["d1"]),
        ];
        let shims = vec![
            shim(20, "k8s.io", "a", 1.0),
            // A runtime with a shim for each container.
            shim(21, "k8s.io", "b", 1.0),
            shim(22, "k8s.io", "b1", 2.0),
            shim(23, "k8s.io", "c", 1.0),
            shim(24, "moby", "a", 4.0),
            shim(25, "k8s.io", "nobody", 5.0),
        ];
        Bill::new(Some("split".into()), daemons, pods, shims)
    }

    #[test]
    fn a_shim_is_its_pods_and_daemons_are_shared_by_those_that_cost_something() {
        let bill = bill();
        let names: Vec<&str> = bill.pods.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["db", "late", "web"]);
        let db = &bill.pods[0];
        assert_eq!(
            (db.own, db.share, db.all, db.shims.as_slice()),
            (amount(3.0), amount(10.0), amount(13.0), &[21, 22][..])
        );
        assert_eq!(bill.others.iter().map(|shim| shim.pid).collect::<Vec<_>>(), [24, 25]);
    }

    #[test]
    fn the_lines_are_the_total() {
        let bill = bill();
        let lines: Amount = bill.pods.iter().map(|line| line.all).sum();
        let others: Amount = bill.others.iter().map(|shim| shim.uses).sum();
        assert_eq!(lines + others, bill.total);
        assert_eq!(bill.total, amount(44.0));
        let empty = Bill::new(None, bill.daemons, Vec::new(), Vec::new());
        assert_eq!((empty.total, empty.shared), (amount(30.0), amount(30.0)));
    }
}
