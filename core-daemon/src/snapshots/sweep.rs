//! Removing what belongs to nothing: layers that no namespace knows, folders that no layer owns.

use std::collections::HashSet;
use std::sync::Arc;

use super::namespaced::uncancelled;
use super::{SnapshotError, Snapshots, Snapshotter};
use crate::metadata::snapshots as rows;

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Layers removed.
    pub removed: usize,
    /// One that fails does not stop the others.
    pub errors: Vec<SnapshotError>,
}

impl Snapshots {
    /// Removes what belongs to nothing, and waits until the files are gone.
    pub async fn cleanup(&self, snapshotter: &str) -> Result<(), SnapshotError> {
        let backend = self.backend(snapshotter)?;
        let mut sweep = Sweep::default();
        self.sweep_one(snapshotter, &backend, &mut sweep).await?;
        uncancelled(async move { backend.cleanup().await }).await?;
        let mut errors = sweep.errors.into_iter();
        match errors.next() {
            None => Ok(()),
            Some(first) => Err(SnapshotError::Cleanup { first: Box::new(first), others: errors.count() }),
        }
    }

    /// Removes the layers that no namespace knows, at every snapshotter.
    pub async fn sweep(&self) -> Sweep {
        let mut sweep = Sweep::default();
        for (name, backend) in &self.0.backends {
            if let Err(e) = self.sweep_one(name, backend, &mut sweep).await {
                sweep.errors.push(e);
            }
        }
        sweep
    }

    pub(super) async fn sweep_one(
        &self,
        snapshotter: &str,
        backend: &Arc<dyn Snapshotter>,
        sweep: &mut Sweep,
    ) -> Result<(), SnapshotError> {
        // In this order: what is made meanwhile is not among the keys.
        let keys = backend.keys().await?;
        let sn = snapshotter.to_owned();
        let known = self.0.db.read::<_, SnapshotError>(move |c| Ok(rows::known_backends(c, &sn)?)).await?;
        let known: HashSet<String> = known.into_iter().collect();
        for key in keys.into_iter().filter(|key| !known.contains(key)) {
            let backend = backend.clone();
            match uncancelled(async move { backend.remove(&key, Box::new(|_| Ok(()))).await }).await {
                Ok(()) => sweep.removed += 1,
                // Somebody else swept it, or committed it under another key.
                Err(SnapshotError::NotFound(_)) => {}
                Err(e) => sweep.errors.push(e),
            }
        }
        Ok(())
    }
}
