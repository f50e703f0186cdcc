//! A core in memory: every port, no disk, no processes.
//!
//! It behaves as the contract says, to the error codes (the [conformance suites](crate::conformance) run on it too),
//! so that the CRI side can be tested without root, and so that the cost of the seam can be measured without the cost
//! of what lies behind it. Tasks run only in the imagination: [`FakeCore::exit`] ends one.
//!
//! Limits: no garbage collection; mounts name folders that don't exist; `Diff`, `Transfer` and `Streaming` answer
//! `Unimplemented`.

mod content;
mod events;
mod records;
mod snapshots;
mod stubs;
mod tasks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use prost_types::Timestamp;

use crate::context::Context;
use crate::core::Core;
use crate::errdefs::{Error, Result};

/// The fake's whole state. Cheap to clone: clones share it.
#[derive(Clone, Default)]
pub struct FakeCore(Arc<State>);

#[derive(Default)]
struct State {
    records: Mutex<records::Records>,
    content: Mutex<content::Blobs>,
    snapshots: Mutex<snapshots::Tree>,
    tasks: tasks::Table,
    events: events::Subscribers,
}

impl FakeCore {
    /// The ports of this fake.
    pub fn core(&self) -> Core {
        let all = Arc::new(self.clone());
        Core {
            containers: all.clone(),
            content: all.clone(),
            diff: all.clone(),
            events: all.clone(),
            images: all.clone(),
            introspection: all.clone(),
            leases: all.clone(),
            namespaces: all.clone(),
            sandboxes: all.clone(),
            snapshots: all.clone(),
            streaming: all.clone(),
            tasks: all.clone(),
            transfer: all.clone(),
            version: all,
        }
    }

    /// Serves the ports over an in-memory pipe and gives the ports at its other end: the wiring `loopback`.
    pub async fn over_pipe(&self) -> Result<Core> {
        let (channel, end) = crate::transport::pipe().await?;
        let routes = self.core().routes();
        tokio::spawn(async move {
            let incoming = tokio_stream::once(Ok::<_, std::io::Error>(end));
            tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await
        });
        Ok(Core::remote(channel))
    }
}

/// Objects by namespace and name.
type Named<T> = BTreeMap<(String, String), T>;

fn key(cx: &Context, name: &str) -> Result<(String, String)> {
    Ok((cx.namespace()?.to_owned(), name.to_owned()))
}

/// The objects of one namespace.
fn in_namespace<'a, T>(all: &'a Named<T>, ns: &str) -> impl Iterator<Item = &'a T> {
    let ns = ns.to_owned();
    all.iter().filter(move |((n, _), _)| *n == ns).map(|(_, value)| value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("fake lock")
}

fn now() -> Option<Timestamp> {
    Some(SystemTime::now().into())
}

fn required<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::invalid(format!("{what} is required")))
}

/// Applies a field mask to labels: `labels.KEY` sets one (empty value: deletes it), `labels` or no mask all.
fn merge_labels(labels: &mut BTreeMap<String, String>, new: BTreeMap<String, String>, paths: &[String]) {
    if paths.is_empty() || paths.iter().any(|p| p == "labels") {
        *labels = new;
        return;
    }
    for key in paths.iter().filter_map(|p| p.strip_prefix("labels.")) {
        match new.get(key).filter(|v| !v.is_empty()) {
            Some(value) => labels.insert(key.to_owned(), value.clone()),
            None => labels.remove(key),
        };
    }
}
