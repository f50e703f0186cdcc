//! The starts of the last pods, for whoever asks why one is slow, or why it is not there.
//!
//! A pod that exists has its start itself; the list here keeps those of pods in the making, and of the last ones that
//! failed or are gone. A kubelet tries a failed pod again under the same name and another id: each try is an entry.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shared_proto::cri::v1::PodSandboxConfig;
use shared_proto::{Error, Result};

use super::{Request, Timeline, Watches};
use crate::metrics::Metrics;

/// Starts that are remembered: of a full node, and then some.
const STARTS: usize = 256;

/// Who a pod is, and its timeline with that of its containers.
#[derive(Debug)]
pub struct PodStart {
    pub id: Box<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub attempt: u32,
    pub timeline: Timeline,
}

/// The last starts, and who watches.
#[derive(Debug, Default)]
pub struct Starts {
    /// Older first.
    last: Mutex<VecDeque<Arc<PodStart>>>,
    pub watches: Watches,
}

impl PodStart {
    pub fn new(id: &str, config: &PodSandboxConfig) -> Self {
        let metadata = config.metadata.clone().unwrap_or_default();
        Self {
            id: id.into(),
            namespace: metadata.namespace.into(),
            name: metadata.name.into(),
            attempt: metadata.attempt,
            timeline: Timeline::default(),
        }
    }

    /// Whether `pod` may mean this one: the beginning of its id, `NAMESPACE/NAME` or `NAME`.
    fn is_meant(&self, pod: &str) -> bool {
        self.id.starts_with(pod)
            || *self.name == *pod
            || pod.split_once('/').is_some_and(|(namespace, name)| *self.namespace == *namespace && *self.name == *name)
    }

    fn is_same_pod(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.name == other.name
    }
}

impl Starts {
    /// Remembers the start of a pod that is to be made.
    pub fn begin(&self, id: &str, config: &PodSandboxConfig) -> Arc<PodStart> {
        let start = Arc::new(PodStart::new(id, config));
        let mut all = self.lock();
        if all.len() >= STARTS {
            all.pop_front();
        }
        all.push_back(start.clone());
        start
    }

    /// [`Timeline::request`] of the pod, which somebody may watch.
    pub fn request(
        &self,
        start: &PodStart,
        rpc: &'static str,
        (subject, id): (&str, &str),
        came: Instant,
        metrics: &Metrics,
    ) -> Request {
        let request = start.timeline.request(rpc, subject, id, came, metrics);
        if let Some(watch) = self.watches.of(&start.namespace, &start.name) {
            request.account().watch(watch);
        }
        request
    }

    /// The start that `pod` means, and earlier tries at the same pod, older first. Beside the remembered ones,
    /// `existing` are searched. Of several tries the newest is meant, unless an id says otherwise.
    ///
    /// `NotFound` when there is none, `InvalidArgument` when it may be several pods.
    pub fn find(&self, pod: &str, existing: Vec<Arc<PodStart>>) -> Result<(Arc<PodStart>, Vec<Arc<PodStart>>)> {
        if pod.is_empty() {
            return Err(Error::invalid("a pod is named by an id, the beginning of one, or NAMESPACE/NAME"));
        }
        let mut all: Vec<_> = self.lock().iter().cloned().collect();
        // Older than all that are remembered, or known from before this process.
        let forgotten = existing.into_iter().filter(|start| !all.iter().any(|known| known.id == start.id));
        all.splice(0..0, forgotten.collect::<Vec<_>>());
        let exact = all.iter().find(|start| *start.id == *pod).cloned();
        let found = match exact {
            Some(start) => start,
            None => {
                let mut meant = all.iter().rev().filter(|start| start.is_meant(pod));
                let newest = meant.next().ok_or_else(|| {
                    Error::not_found(format!("no pod {pod:?}, nor a start of one among the last {STARTS}"))
                })?;
                let other = meant.find(|other| !other.is_same_pod(newest));
                if let Some(other) = other {
                    let shown = |start: &PodStart| format!("{}/{} ({})", start.namespace, start.name, start.id);
                    let message = format!("{pod:?} may be {} or {}", shown(newest), shown(other));
                    return Err(Error::invalid(message));
                }
                newest.clone()
            }
        };
        let others = all.into_iter().filter(|start| start.id != found.id && start.is_same_pod(&found)).collect();
        Ok((found, others))
    }

    /// The newest start of a pod, by its names.
    pub fn of_pod(&self, config: &PodSandboxConfig) -> Option<Arc<PodStart>> {
        let metadata = config.metadata.as_ref()?;
        let all = self.lock();
        all.iter().rev().find(|s| *s.name == *metadata.name && *s.namespace == *metadata.namespace).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<PodStart>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use shared_proto::Code;
    use shared_proto::cri::v1::PodSandboxMetadata;

    use super::*;

    fn config(namespace: &str, name: &str) -> PodSandboxConfig {
        let metadata = PodSandboxMetadata { name: name.into(), namespace: namespace.into(), ..Default::default() };
        PodSandboxConfig { metadata: Some(metadata), ..Default::default() }
    }

    #[test]
    fn a_pod_is_found_by_id_or_name_and_its_newest_try_is_meant() {
        let starts = Starts::default();
        for (id, namespace, name) in [("ab1", "shop", "web"), ("ab2", "shop", "web"), ("cd", "shop", "db")] {
            starts.begin(id, &config(namespace, name));
        }
        let old = vec![Arc::new(PodStart::new("ef", &config("bank", "db")))];
        let find = |pod: &str| starts.find(pod, old.clone()).map(|(found, _)| found.id.to_string());
        for (pod, id) in [("shop/web", "ab2"), ("web", "ab2"), ("ab1", "ab1"), ("ab", "ab2"), ("e", "ef"), ("cd", "cd")]
        {
            assert_eq!(find(pod).unwrap(), id, "{pod}");
        }
        assert_eq!(find("bank/db").unwrap(), "ef");
        let e = find("db").unwrap_err();
        assert!(e.code == Code::InvalidArgument && e.message.contains("bank/db (ef)"), "{e}");
        assert_eq!(find("bank/web").unwrap_err().code, Code::NotFound);
        assert_eq!(find("").unwrap_err().code, Code::InvalidArgument);
        let (_, tries) = starts.find("shop/web", Vec::new()).unwrap();
        assert_eq!(tries.iter().map(|start| &*start.id).collect::<Vec<_>>(), ["ab1"]);
        assert_eq!(&*starts.of_pod(&config("shop", "web")).unwrap().id, "ab2");
    }

    #[test]
    fn the_last_are_remembered() {
        let starts = Starts::default();
        let first = starts.begin("first", &config("n", "first"));
        for n in 0..STARTS {
            starts.begin(&format!("id-{n}"), &config("n", "again"));
        }
        assert_eq!(starts.find("first", Vec::new()).unwrap_err().code, Code::NotFound);
        assert_eq!(&*starts.find("first", vec![first]).unwrap().0.id, "first", "one that exists is known");
        assert_eq!(starts.lock().len(), STARTS);
    }
}
