//! The snapshotter `native`: every snapshot is a whole copy of its parent, in one folder.
//!
//! Works on any file system. Where that can share data between files (btrfs, xfs), copies take no space until they are
//! written to. Its usage is that of the whole tree, parents included.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use shared_sys::mount::Mount;

use super::layers::{Layers, Stack};
use super::overlay::{bind, check_mountable, make_files};
use super::tree::Copier;
use super::{Kind, New, Record, SnapshotError, Snapshotter, Usage};
use crate::domain::Labels;
use crate::metadata::Db;

/// How clients call it.
const NAME: &str = "native";

pub struct Native {
    layers: Layers,
}

impl Native {
    /// Opens `root`, made when absent.
    pub async fn open(root: &Path, db: Db) -> Result<Self, SnapshotError> {
        Ok(Self { layers: Layers::open(root, db, NAME).await? })
    }

    /// A view of a committed layer needs no copy: nobody writes to either.
    fn mounts_of(&self, stack: &Stack) -> Vec<Mount> {
        match (stack.layer.kind, stack.parents.first()) {
            (Kind::View, Some(parent)) => vec![bind(parent, false)],
            (kind, _) => vec![bind(&self.layers.files(stack.layer.id), kind == Kind::Active)],
        }
    }
}

#[async_trait]
impl Snapshotter for Native {
    fn root(&self) -> &Path {
        self.layers.root()
    }

    async fn create(&self, new: New, record: Record) -> Result<Vec<Mount>, SnapshotError> {
        let writable = new.writable;
        let fill = move |dir: &Path, parents: &[PathBuf]| {
            let files = make_files(dir, parents)?;
            match parents.first() {
                Some(parent) if writable => {
                    Copier::default().tree(parent, &files).map_err(SnapshotError::io("copy", parent))
                }
                Some(_) | None => Ok(()),
            }
        };
        let stack = self.layers.create(new, record, fill).await?;
        Ok(self.mounts_of(&stack))
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>, SnapshotError> {
        let stack = self.layers.find(key).await?;
        check_mountable(&stack)?;
        Ok(self.mounts_of(&stack))
    }

    async fn commit(&self, key: &str, name: &str, labels: Labels, record: Record) -> Result<(), SnapshotError> {
        self.layers.commit(key, name, labels, record).await
    }

    async fn remove(&self, key: &str, record: Record) -> Result<(), SnapshotError> {
        self.layers.remove(key, record).await
    }

    async fn usage(&self, key: &str) -> Result<Usage, SnapshotError> {
        self.layers.usage(key).await
    }

    async fn keys(&self) -> Result<Vec<String>, SnapshotError> {
        self.layers.keys().await
    }

    async fn cleanup(&self) -> Result<(), SnapshotError> {
        self.layers.cleanup().await
    }
}
