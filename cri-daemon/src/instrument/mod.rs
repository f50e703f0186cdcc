//! Where the time of a start went, and what it is waiting for now.
//!
//! Every request that has to do with a start keeps an [`Account`]: its stages, those under way included, and the calls
//! on the core that it makes. The accounts of a pod, its containers' among them, are its [`Timeline`]. It costs two
//! clock readings and a lock that nobody else wants a stage, and some 50 bytes. Stages are metrics, and spans where a
//! collector is told, as well.
//!
//! - [`account`]: what is kept of a request; [`request`]: who writes it.
//! - [`starts`]: the timelines of the last pods, also of those that failed or are gone.
//! - [`watches`]: for whom the messages are kept as well. [`message`]: messages for people.
//! - [`explain`]: the answer to `cri-daemon why`, with the core's own stages, which are asked for only then.
//!
//! Verbose status shows an object's own stages (`info["timeline"]`). All is kept in memory only, so what an earlier
//! daemon started has none. Stages that overlap ran in parallel, or one within the other.

mod account;
mod explain;
mod message;
mod request;
mod starts;
mod watches;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

pub use account::{Account, Place, Stage};
pub use request::{Request, Running, here, stepped};
pub use starts::{PodStart, Starts};
pub use watches::{Watch, Watches, Watching};

use crate::metrics::Metrics;

/// Requests of one object that are kept: those of a pod with a handful of containers. The first one always stays.
const REQUESTS: usize = 24;

/// The requests of one pod or container, in the order in which they came.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<Vec<Arc<Account>>>);

/// One stage as verbose status shows it. A request is a stage of its own, before its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub stage: &'static str,
    /// What it was done to, where that matters: a plugin, an image. May be empty.
    pub detail: String,
    /// Microseconds from the request to the stage's begin, and its duration, so far where it is `running`.
    pub start_us: u64,
    pub us: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
}

impl Timeline {
    /// A request for this object, which came at `came`. `subject` says what of a pod it is about, and `id` is that of
    /// the container; both are empty for the pod itself.
    pub fn request(&self, rpc: &'static str, subject: &str, id: &str, came: Instant, metrics: &Metrics) -> Request {
        let account = Arc::new(Account::new(rpc, subject, id, came));
        self.add(account.clone());
        Request::new(account, metrics.clone())
    }

    /// Adds a request that another timeline has as well.
    pub fn add(&self, account: Arc<Account>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REQUESTS {
            all.remove(1);
        }
        all.push(account);
    }

    pub fn accounts(&self) -> Vec<Arc<Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The stages of the requests that `wanted` asks for, as verbose status shows them.
    pub fn shown(&self, wanted: impl Fn(&Account) -> bool) -> Vec<Shown> {
        let mut shown = Vec::new();
        for account in self.accounts().iter().filter(|account| wanted(account)) {
            let (us, running) = account.took();
            shown.push(Shown { stage: account.rpc, detail: String::new(), start_us: 0, us, running });
            for stage in account.stages().into_iter().filter(|stage| stage.place == Place::Cri) {
                let (us, running) = stage.took(account.came);
                let (stage, detail, start_us) = (stage.name, stage.detail.into_string(), u64::from(stage.start_us));
                shown.push(Shown { stage, detail, start_us, us, running });
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_stands_before_its_stages_and_the_first_one_stays() {
        let (timeline, metrics) = (Timeline::default(), Metrics::default());
        let request = timeline.request("RunPodSandbox", "", "", Instant::now(), &metrics);
        let cni = request.stage_of("cni", "bridge");
        let names = |timeline: &Timeline| timeline.shown(|_| true).iter().map(|s| s.stage).collect::<Vec<_>>();
        assert_eq!(names(&timeline), ["RunPodSandbox", "cni"]);
        assert!(timeline.shown(|_| true).iter().all(|stage| stage.running), "under way, but there");
        drop(cni);
        drop(request);
        let json = serde_json::to_value(timeline.shown(|_| true)).unwrap();
        assert_eq!((json[1]["stage"].as_str(), json[1]["detail"].as_str()), (Some("cni"), Some("bridge")));
        assert!(json[1].get("running").is_none() && json[0]["us"].as_u64() >= json[1]["us"].as_u64(), "{json}");
        for _ in 0..REQUESTS {
            timeline.request("StartContainer", "main", "c", Instant::now(), &metrics);
        }
        let kept = timeline.accounts();
        assert_eq!((kept.len(), kept[0].rpc, kept[1].rpc), (REQUESTS, "RunPodSandbox", "StartContainer"));
    }
}
