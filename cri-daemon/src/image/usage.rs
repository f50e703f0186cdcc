//! What the snapshots take on disk, summed up in the background.
//!
//! A committed snapshot never changes, so it is asked for once; an active one is walked by the core each time. So the
//! sum is renewed at most every [`PERIOD`], and only when somebody asks: the answer is the last sum, unless there is
//! none yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use shared_proto::Result;
use shared_proto::containerd::snapshots as s;

use super::Images;
use crate::call;

const PERIOD: Duration = Duration::from_secs(10);
/// How long the first caller waits for a sum.
const FIRST: Duration = Duration::from_secs(2);

/// What a file system has given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    pub bytes: u64,
    pub inodes: u64,
}

#[derive(Default)]
pub struct Usage(Mutex<State>);

#[derive(Default)]
struct State {
    /// By snapshotter.
    sums: Option<BTreeMap<String, Sum>>,
    /// When the last count began; `None` before the first.
    counted: Option<Instant>,
    /// By snapshotter and name.
    committed: HashMap<(String, String), Sum>,
}

impl Images {
    /// The sum over each snapshotter: the last one, while a new one is made if that is due.
    pub(super) async fn usage(&self) -> BTreeMap<String, Sum> {
        let (last, due) = {
            let mut state = self.0.usage.0.lock().expect("usage lock");
            let due = state.counted.is_none_or(|at| at.elapsed() >= PERIOD);
            if due {
                state.counted = Some(Instant::now());
            }
            (state.sums.clone(), due)
        };
        if due {
            let images = self.clone();
            let count = tokio::spawn(async move {
                if let Err(error) = images.count().await {
                    tracing::warn!(%error, "can't sum up the snapshots");
                }
            });
            if last.is_none() {
                // Too slow or failed: the caller gets what there is.
                tokio::time::timeout(FIRST, count).await.ok();
            }
        }
        last.or_else(|| self.0.usage.0.lock().expect("usage lock").sums.clone()).unwrap_or_default()
    }

    async fn count(&self) -> Result<()> {
        let known = std::mem::take(&mut self.0.usage.0.lock().expect("usage lock").committed);
        let (mut sums, mut committed) = (BTreeMap::new(), HashMap::new());
        for snapshotter in self.snapshotters() {
            let sum = self.count_in(&snapshotter, &known, &mut committed).await?;
            sums.insert(snapshotter, sum);
        }
        let mut state = self.0.usage.0.lock().expect("usage lock");
        state.committed = committed;
        state.sums = Some(sums);
        Ok(())
    }

    async fn count_in(
        &self,
        snapshotter: &str,
        known: &HashMap<(String, String), Sum>,
        committed: &mut HashMap<(String, String), Sum>,
    ) -> Result<Sum> {
        let inner = &*self.0;
        let list = s::ListSnapshotsRequest { snapshotter: snapshotter.to_owned(), filters: Vec::new() };
        let all = async {
            let blocks = inner.core.snapshots.list(&inner.cx, list).await?;
            blocks.map_ok(|block| block.info).try_concat().await
        };
        let all = call::within(format!("list snapshots of {snapshotter}"), call::RECORD, all).await?;
        let mut sum = Sum::default();
        for info in all {
            let key = (snapshotter.to_owned(), info.name.clone());
            let of = match known.get(&key) {
                Some(of) => Some(*of),
                None => self.usage_of(snapshotter, &info.name).await?,
            };
            let Some(of) = of else { continue };
            sum = Sum { bytes: sum.bytes + of.bytes, inodes: sum.inodes + of.inodes };
            if info.kind() == s::Kind::Committed {
                committed.insert(key, of);
            }
        }
        Ok(sum)
    }

    /// Nothing if the snapshot is gone meanwhile.
    async fn usage_of(&self, snapshotter: &str, key: &str) -> Result<Option<Sum>> {
        let inner = &*self.0;
        let request = s::UsageRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let usage = inner.core.snapshots.usage(&inner.cx, request);
        match call::within(format!("usage of snapshot {key}"), call::PROCESS, usage).await {
            Ok(usage) => Ok(Some(Sum { bytes: usage.size.max(0) as u64, inodes: usage.inodes.max(0) as u64 })),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }
}
