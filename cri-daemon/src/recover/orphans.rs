//! Folders that belong to no record: what a power cut, or a daemon killed in the middle of a removal, left behind.

use std::path::{Path, PathBuf};

use crate::pod::teardown::remove_folder;
use crate::{Inner, paths};

impl Inner {
    /// Removes them. What can't be removed is logged and left for the next start.
    pub(super) async fn remove_orphans(&self) {
        let (sandboxes, containers) = paths::by_id(&self.config);
        for folder in &sandboxes {
            for (id, path) in entries(folder).await {
                if self.sandboxes.exact(&id).is_none() {
                    self.remove_orphan(&path, &[path.join("shm")]).await;
                }
            }
        }
        for folder in &containers {
            for (id, path) in entries(folder).await {
                if self.containers.exact(&id).is_none() {
                    self.remove_orphan(&path, &[]).await;
                }
            }
        }
    }

    async fn remove_orphan(&self, path: &Path, mounts: &[PathBuf]) {
        tracing::warn!(path = %path.display(), "no record knows this folder; removing it");
        for mount in mounts {
            if let Err(e) = self.host.unmount(mount).await {
                // Removing would go through the mount.
                tracing::warn!(error = %e, "an orphaned folder stays");
                return;
            }
        }
        if let Err(e) = remove_folder(path).await {
            tracing::warn!(error = %e, "an orphaned folder stays");
        }
    }
}

/// Names and paths in a folder; none when it can't be read.
async fn entries(folder: &Path) -> Vec<(String, PathBuf)> {
    let folder = folder.to_owned();
    shared_sys::blocking(move || {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
    })
    .await
}
