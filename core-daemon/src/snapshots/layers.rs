//! What every snapshotter on local disk shares: ids, folders, records, removal.
//!
//! Layer `id` lies in `snapshots/<id>`; its files in `fs` there. Ids are never used twice while the program runs, and
//! never while a folder of that number exists. A layer's folder is made before its record and removed after it, so a
//! folder without a record is garbage, unless its id is in [`Layers::pending`]. Removed folders are called `rm-<id>`.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use shared_sys::blocking;
use shared_sys::files::Durability;

use super::trash::Trash;
use super::{Kind, New, Record, SnapshotError, Usage, kind_name, tree};
use crate::domain::Labels;
use crate::metadata::snapshots::{self as rows, Layer};
use crate::metadata::{Db, now};

pub(super) struct Layers {
    db: Db,
    snapshotter: &'static str,
    root: PathBuf,
    next: AtomicU64,
    /// Being made: with a folder, but not yet with a record.
    pending: Arc<Mutex<HashSet<u64>>>,
    trash: Arc<Trash>,
}

/// Takes an id off the list of pending ones.
struct Pending(Arc<Mutex<HashSet<u64>>>, u64);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.lock().expect("pending lock").remove(&self.1);
    }
}

/// A layer and what it stands on.
pub(super) struct Stack {
    pub layer: Layer,
    /// Folders with the files of the parents, top first.
    pub parents: Vec<PathBuf>,
}

impl Layers {
    /// Opens the snapshotter's folder, removing what an earlier run left half-done: folders without a record, and
    /// records of views and active snapshots without a folder.
    pub async fn open(root: &Path, db: Db, snapshotter: &'static str) -> Result<Self, SnapshotError> {
        let dir = root.join("snapshots");
        let making = dir.clone();
        let found = blocking(move || {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&making).map_err(SnapshotError::io("create", &making))?;
            folders(&making)
        })
        .await?;
        let numbers: BTreeSet<u64> = found.iter().filter_map(|folder| id_of(folder)).collect();
        let layers = db.read::<_, SnapshotError>(move |c| Ok(rows::list_layers(c, snapshotter)?)).await?;
        let lost: Vec<Layer> =
            layers.iter().filter(|l| l.kind != Kind::Committed && !numbers.contains(&l.id)).cloned().collect();
        let largest = layers.iter().map(|l| l.id).max().max(numbers.last().copied()).unwrap_or(0);
        let opened = Self {
            db,
            snapshotter,
            root: root.to_owned(),
            next: AtomicU64::new(largest + 1),
            pending: Arc::default(),
            trash: Arc::new(Trash::new()),
        };
        if !lost.is_empty() {
            tracing::warn!(snapshotter, count = lost.len(), "snapshots lost their files and are forgotten");
            opened.forget(lost).await?;
        }
        if let Err(e) = opened.cleanup().await {
            tracing::warn!(snapshotter, error = %e, "left-over folders stay for now");
        }
        Ok(opened)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a layer.
    pub fn dir(&self, id: u64) -> PathBuf {
        self.root.join("snapshots").join(id.to_string())
    }

    /// The folder with a layer's files.
    pub fn files(&self, id: u64) -> PathBuf {
        self.dir(id).join("fs")
    }

    /// The layer with this key and its parents.
    pub async fn find(&self, key: &str) -> Result<Stack, SnapshotError> {
        let (snapshotter, wanted) = (self.snapshotter, key.to_owned());
        let chain = self.db.read::<_, SnapshotError>(move |c| Ok(rows::chain(c, snapshotter, &wanted)?)).await?;
        let mut chain = chain.into_iter();
        let layer = chain.next().ok_or_else(|| SnapshotError::NotFound(key.to_owned()))?;
        Ok(Stack { layer, parents: chain.map(|parent| self.files(parent.id)).collect() })
    }

    /// Makes a layer: `fill` gets its new folder and those of the parents' files, top first, on a blocking thread.
    pub async fn create(
        &self,
        new: New,
        record: Record,
        fill: impl FnOnce(&Path, &[PathBuf]) -> Result<(), SnapshotError> + Send + 'static,
    ) -> Result<Stack, SnapshotError> {
        let parents = match new.parent.as_str() {
            "" => Vec::new(),
            parent => {
                let stack = self.find(parent).await.map_err(|e| match e {
                    SnapshotError::NotFound(key) => SnapshotError::NoParent(key),
                    other => other,
                })?;
                check_parent(&stack.layer)?;
                [vec![self.files(stack.layer.id)], stack.parents].concat()
            }
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.pending.lock().expect("pending lock").insert(id);
        let _pending = Pending(self.pending.clone(), id);

        let (dir, below) = (self.dir(id), parents.clone());
        let made = blocking(move || {
            fs::DirBuilder::new().mode(0o700).create(&dir).map_err(SnapshotError::io("create", &dir))?;
            fill(&dir, &below)
        })
        .await;
        let outcome = match made {
            Ok(()) => self.insert(id, new, record).await,
            Err(e) => Err(e),
        };
        match outcome {
            Ok(layer) => Ok(Stack { layer, parents }),
            Err(e) => {
                self.discard(id).await;
                Err(e)
            }
        }
    }

    async fn insert(&self, id: u64, new: New, record: Record) -> Result<Layer, SnapshotError> {
        let at = now();
        let layer = Layer {
            id,
            key: new.key,
            parent: new.parent,
            kind: if new.writable { Kind::Active } else { Kind::View },
            labels: new.labels,
            usage: Usage::default(),
            created_at: at,
            updated_at: at,
        };
        let snapshotter = self.snapshotter;
        let work = move |c: &Connection| {
            if rows::get_layer(c, snapshotter, &layer.key)?.is_some() {
                return Err(SnapshotError::Exists(layer.key));
            }
            if !layer.parent.is_empty() {
                let parent = rows::get_layer(c, snapshotter, &layer.parent)?;
                check_parent(&parent.ok_or_else(|| SnapshotError::NoParent(layer.parent.clone()))?)?;
            }
            rows::insert_layer(c, snapshotter, &layer)?;
            record(c)?;
            Ok(layer)
        };
        self.db.write(Durability::Rebuildable, work).await
    }

    /// Turns an active layer into a committed one, with its data on disk first.
    pub async fn commit(&self, key: &str, name: &str, labels: Labels, record: Record) -> Result<(), SnapshotError> {
        let layer = self.find(key).await?.layer;
        check_active(&layer)?;
        let files = self.files(layer.id);
        let usage = blocking(move || {
            let usage = tree::usage(&files).map_err(SnapshotError::io("measure", &files))?;
            shared_sys::mount::sync_filesystem(&files).map_err(SnapshotError::io("sync", &files))?;
            Ok::<_, SnapshotError>(usage)
        })
        .await?;

        let (snapshotter, key, name, id) = (self.snapshotter, key.to_owned(), name.to_owned(), layer.id);
        let work = move |c: &Connection| {
            let layer = rows::get_layer(c, snapshotter, &key)?.filter(|layer| layer.id == id);
            let layer = layer.ok_or_else(|| SnapshotError::NotFound(key.clone()))?;
            check_active(&layer)?;
            if rows::get_layer(c, snapshotter, &name)?.is_some() {
                return Err(SnapshotError::Exists(name));
            }
            rows::delete_layer(c, snapshotter, &key)?;
            let at = now();
            let kind = Kind::Committed;
            let layer = Layer { key: name, kind, labels, usage, created_at: at, updated_at: at, ..layer };
            rows::insert_layer(c, snapshotter, &layer)?;
            record(c)
        };
        self.db.write(Durability::Durable, work).await
    }

    /// Removes a layer's record now and its files in the background.
    pub async fn remove(&self, key: &str, record: Record) -> Result<(), SnapshotError> {
        let layer = self.find(key).await?.layer;
        // The record of a committed layer must not come back after a power cut, when its files are gone.
        let durability = match layer.kind {
            Kind::Committed => Durability::Durable,
            Kind::Active | Kind::View => Durability::Rebuildable,
        };
        let (snapshotter, key, id) = (self.snapshotter, key.to_owned(), layer.id);
        let work = move |c: &Connection| {
            if rows::get_layer(c, snapshotter, &key)?.is_none_or(|layer| layer.id != id) {
                return Err(SnapshotError::NotFound(key));
            }
            if rows::layer_has_children(c, snapshotter, &key)? {
                return Err(SnapshotError::HasChildren(key));
            }
            rows::delete_layer(c, snapshotter, &key)?;
            record(c)
        };
        self.db.write(durability, work).await?;
        self.discard(id).await;
        Ok(())
    }

    /// Forgets layers without files, and what the namespaces know of them.
    async fn forget(&self, lost: Vec<Layer>) -> Result<(), SnapshotError> {
        let snapshotter = self.snapshotter;
        let work = move |c: &Connection| {
            for layer in lost {
                rows::delete_layer(c, snapshotter, &layer.key)?;
                rows::delete_backend(c, snapshotter, &layer.key)?;
            }
            Ok(())
        };
        self.db.write(Durability::Rebuildable, work).await
    }

    /// Moves a layer's folder aside and has it removed.
    async fn discard(&self, id: u64) {
        let (from, to) = (self.dir(id), self.root.join("snapshots").join(format!("rm-{id}")));
        let moved = to.clone();
        match blocking(move || fs::rename(from, moved)).await {
            Ok(()) => self.trash.add(to),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!(error = %e, id, "a removed snapshot's folder stays for now"),
        }
    }

    pub async fn usage(&self, key: &str) -> Result<Usage, SnapshotError> {
        let layer = self.find(key).await?.layer;
        match layer.kind {
            Kind::Committed => Ok(layer.usage),
            // Nothing can be written to it.
            Kind::View => Ok(Usage::default()),
            Kind::Active => {
                let files = self.files(layer.id);
                blocking(move || tree::usage(&files).map_err(SnapshotError::io("measure", &files))).await
            }
        }
    }

    pub async fn keys(&self) -> Result<Vec<String>, SnapshotError> {
        let snapshotter = self.snapshotter;
        let layers = self.db.read::<_, SnapshotError>(move |c| Ok(rows::list_layers(c, snapshotter)?)).await?;
        Ok(layers.into_iter().map(|layer| layer.key).collect())
    }

    /// Removes every folder that no record and no running creation owns. One that fails does not stop the others.
    pub async fn cleanup(&self) -> Result<(), SnapshotError> {
        let dir = self.root.join("snapshots");
        let listed = dir.clone();
        // In this order: what gets its folder later is not in the list, what got its record since then is in the next.
        let found = blocking(move || folders(&listed)).await?;
        let mut owned: HashSet<u64> = self.pending.lock().expect("pending lock").clone();
        let snapshotter = self.snapshotter;
        let layers = self.db.read::<_, SnapshotError>(move |c| Ok(rows::list_layers(c, snapshotter)?)).await?;
        owned.extend(layers.iter().map(|layer| layer.id));
        let garbage: Vec<PathBuf> =
            found.iter().filter(|f| id_of(f).is_none_or(|id| !owned.contains(&id))).map(|f| dir.join(f)).collect();
        let trash = self.trash.clone();
        blocking(move || {
            let mut errors = garbage.iter().filter_map(|folder| trash.remove(folder).err());
            match errors.next() {
                None => Ok(()),
                Some(first) => Err(SnapshotError::Cleanup { first: Box::new(first), others: errors.count() }),
            }
        })
        .await
    }
}

/// The names in the snapshotter's folder.
fn folders(dir: &Path) -> Result<Vec<String>, SnapshotError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(SnapshotError::io("list", dir))? {
        let entry = entry.map_err(SnapshotError::io("list", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn id_of(folder: &str) -> Option<u64> {
    folder.parse().ok()
}

fn check_parent(layer: &Layer) -> Result<(), SnapshotError> {
    match layer.kind {
        Kind::Committed => Ok(()),
        Kind::Active | Kind::View => Err(SnapshotError::ParentNotCommitted(layer.key.clone())),
    }
}

fn check_active(layer: &Layer) -> Result<(), SnapshotError> {
    match layer.kind {
        Kind::Active => Ok(()),
        Kind::View | Kind::Committed => Err(SnapshotError::WrongKind {
            key: layer.key.clone(),
            is: kind_name(layer.kind),
            needed: kind_name(Kind::Active),
        }),
    }
}
