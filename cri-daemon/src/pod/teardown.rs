//! Ending a sandbox: first what runs (the pause process, the network), then what is stored.
//!
//! Everything here works from the record alone, so it serves StopPodSandbox, RemovePodSandbox, the failed
//! RunPodSandbox and recovery alike. Each step is idempotent, has a deadline of its own and does not keep the others
//! from being tried; the record goes last, and only when nothing else is left.

use std::path::Path;

use shared_proto::{Error, Result};

use super::Record;
use crate::call::{CLEANUP, within};
use crate::network::TEARDOWN_LIMIT;
use crate::{Inner, paths};

/// Errors of several steps, as one.
#[derive(Debug, Default)]
pub struct Problems(Option<Error>);

impl Problems {
    /// Remembers an error and says whether there was none.
    pub fn check(&mut self, outcome: Result<()>) -> bool {
        match (outcome, &mut self.0) {
            (Ok(()), _) => true,
            (Err(e), Some(first)) => {
                first.message.push_str("; ");
                first.message.push_str(&e.message);
                false
            }
            (Err(e), none) => {
                *none = Some(e);
                false
            }
        }
    }

    pub fn result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Inner {
    /// Ends what runs of a sandbox: the pause process, its network, its mounts.
    pub async fn stop_sandbox_parts(&self, record: &Record) -> Result<()> {
        let id = &record.id;
        let mut problems = Problems::default();
        problems.check(self.end_task(id).await.map(drop));
        let network = async {
            let mut problems = Problems::default();
            if !record.host_network() {
                problems.check(self.teardown_network(record).await);
                let removal = async { Ok(self.host.remove_netns(&record.netns).await?) };
                problems.check(within(format!("sandbox {id}"), CLEANUP, removal).await);
            }
            problems.result()
        };
        let shm = paths::sandbox(&self.config, id).shm();
        let unmount = async { Ok(self.host.unmount(&shm).await?) };
        let (network, unmounted) = tokio::join!(network, within(format!("sandbox {id}"), CLEANUP, unmount));
        problems.check(network);
        problems.check(unmounted);
        problems.result()
    }

    async fn teardown_network(&self, record: &Record) -> Result<()> {
        let mut pod = record.network();
        if !exists(&record.netns).await {
            // Plugins are told that the namespace is gone, and still free the addresses.
            pod.netns = Default::default();
        }
        let teardown = async { Ok(self.network_of(&record.runtime_handler).teardown(&pod).await?) };
        within(format!("take back the network of sandbox {}", record.id), TEARDOWN_LIMIT, teardown).await.map(drop)
    }

    /// Removes what is stored of a sandbox that was stopped: snapshot, folders and, when nothing else is left, record.
    pub async fn remove_sandbox_parts(&self, id: &str, snapshotter: &str) -> Result<()> {
        let dirs = paths::sandbox(&self.config, id);
        let mut problems = Problems::default();
        problems.check(self.remove_snapshot(snapshotter, id).await);
        for dir in [dirs.root, dirs.state] {
            problems.check(remove_folder(&dir).await);
        }
        problems.result()?;
        self.delete_record(id).await
    }
}

/// Whether there is something at `path`. What can't be looked at counts as there.
pub async fn exists(path: &Path) -> bool {
    tokio::fs::try_exists(path).await.unwrap_or(true)
}

/// Removes a folder with all that is in it. One that is not there is done.
pub async fn remove_folder(path: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("remove {}: {e}", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::Code;

    #[test]
    fn all_problems_are_told_under_the_first_code() {
        let mut problems = Problems::default();
        assert!(problems.check(Ok(())));
        assert!(!problems.check(Err(Error::unavailable("a"))));
        assert!(!problems.check(Err(Error::internal("b"))));
        let e = problems.result().unwrap_err();
        assert_eq!((e.code, e.message.as_str()), (Code::Unavailable, "a; b"));
        assert!(Problems::default().result().is_ok());
    }
}
