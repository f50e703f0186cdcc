//! What a restart finds: records in the core, tasks that may have gone on or ended, output that nobody read meanwhile.
//!
//! The records decide what exists, the tasks what runs; the status files only add what the core has forgotten. One bad
//! record, one hung shim is set aside in an unknown state and never keeps the others from being served. What was half
//! made when the last daemon ended is taken back. The same happens in every wiring, and after a change of it.
//!
//! | status file | task | the container is |
//! |---|---|---|
//! | any | running | running; its output is followed again |
//! | running, none | stopped | exited, with the task's code |
//! | created | stopped | exited with 128, `StartError`: nobody was told of its start |
//! | exited | stopped | exited, as written; the task is deleted |
//! | not exited | created | created; the task is deleted (nobody was told of its start) |
//! | running | none | exited with 255, `Unknown` |
//! | created, none | none | created, when all of it is there; else taken back |
//! | not exited | no answer | unknown |

mod containers;
mod orphans;
mod sandboxes;

use std::time::Duration;

use futures::StreamExt as _;
use shared_proto::containerd::containers::{Container as Stored, ListContainersRequest};
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result};

use crate::call::records::{KIND, Kind};
use crate::call::{PATIENCE, PROCESS, patient};
use crate::{Cri, Inner};

/// What one record may take.
const BUDGET: Duration = Duration::from_secs(10);
/// How many are looked at together.
const TOGETHER: usize = 16;

impl Cri {
    /// Finds out what there is. Fails only when the core can't list its records.
    pub(crate) async fn recover(&self) -> Result<()> {
        let inner = &self.0;
        // Sandboxes first: containers belong to them.
        let sandboxes = inner.stored(Kind::Sandbox).await?;
        each(&sandboxes, |stored| self.recover_sandbox(stored)).await;
        let containers = inner.stored(Kind::Container).await?;
        each(&containers, |stored| self.recover_container(stored)).await;
        inner.remove_orphans().await;
        tracing::info!(sandboxes = sandboxes.len(), containers = containers.len(), "recovered");
        Ok(())
    }
}

async fn each<F: Future<Output = ()>>(all: &[Stored], work: impl Fn(Stored) -> F) {
    futures::stream::iter(all).for_each_concurrent(TOGETHER, |stored| work(stored.clone())).await;
}

impl Inner {
    async fn stored(&self, kind: Kind) -> Result<Vec<Stored>> {
        let filters = vec![format!("labels.\"{KIND}\"=={}", kind.label())];
        let list = || async {
            let request = ListContainersRequest { filters: filters.clone() };
            let mut items = self.core.containers.list_stream(&self.cx, request).await?;
            let mut all = Vec::new();
            while let Some(item) = items.next().await {
                all.extend(item?.container);
            }
            Ok(all)
        };
        patient(format!("list the records of kind {}", kind.label()), PROCESS, PATIENCE, list).await
    }
}

/// Runs the look-up of one record within its budget.
async fn budgeted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(BUDGET, work).await {
        Ok(answer) => answer.context("look at it after the restart"),
        Err(_) => Err(Error::deadline(format!("the core has not said within {BUDGET:?} what runs"))),
    }
}

/// When the record was made, for records that don't say themselves.
fn created_at(stored: &Stored) -> i64 {
    stored.created_at.as_ref().map_or(1, crate::call::tasks::nanos).max(1)
}
