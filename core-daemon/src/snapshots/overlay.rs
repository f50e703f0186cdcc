//! The snapshotter `overlayfs`: one folder a layer, merged by the kernel when mounted.
//!
//! `snapshots/<id>/fs` holds a layer's own files, `work` is the kernel's. A layer without parents and a view of a
//! single layer are plain bind mounts. Deleted files are character devices 0:0, replaced folders carry the attribute
//! `trusted.overlay.opaque` (`user.overlay.opaque` inside a user namespace).

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use shared_sys::blocking;
use shared_sys::mount::{Detached, Mount};

use super::layers::{Layers, Stack};
use super::{Kind, New, Record, SnapshotError, Snapshotter, Usage, kind_name};
use crate::domain::Labels;
use crate::metadata::Db;

/// How clients call it.
const NAME: &str = "overlayfs";

pub struct Overlay {
    layers: Layers,
    /// What every mount gets besides its layers.
    options: Vec<String>,
}

impl Overlay {
    /// Opens `root` (made when absent), after trying out whether the kernel mounts overlays there.
    pub async fn open(root: &Path, db: Db) -> Result<Self, SnapshotError> {
        let refused = |reason: String| SnapshotError::Unusable { snapshotter: NAME, root: root.to_owned(), reason };
        if root.to_string_lossy().contains([':', ',', '\\']) {
            return Err(refused("the path has one of the characters : , \\".into()));
        }
        let dir = root.to_owned();
        let options = blocking(move || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(SnapshotError::io("create", &dir))?;
            let options = mount_options();
            try_out(&dir, &options).map_err(|e| SnapshotError::Unusable {
                snapshotter: NAME,
                root: dir,
                reason: e.to_string(),
            })?;
            Ok::<_, SnapshotError>(options)
        })
        .await?;
        Ok(Self { layers: Layers::open(root, db, NAME).await?, options })
    }

    fn mounts_of(&self, stack: &Stack) -> Vec<Mount> {
        let own = self.layers.files(stack.layer.id);
        let writable = stack.layer.kind == Kind::Active;
        match stack.parents.as_slice() {
            [] => vec![bind(&own, writable)],
            [only] if !writable => vec![bind(only, false)],
            parents => {
                let mut options = self.options.clone();
                if writable {
                    options.push(format!("workdir={}", self.layers.dir(stack.layer.id).join("work").display()));
                    options.push(format!("upperdir={}", own.display()));
                }
                let lower: Vec<_> = parents.iter().map(|p| p.to_string_lossy()).collect();
                options.push(format!("lowerdir={}", lower.join(":")));
                vec![Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
            }
        }
    }
}

/// A folder mounted as it is.
pub(super) fn bind(folder: &Path, writable: bool) -> Mount {
    Mount {
        kind: "bind".into(),
        source: folder.display().to_string(),
        target: String::new(),
        options: vec![if writable { "rw" } else { "ro" }.into(), "rbind".into()],
    }
}

/// The error for mounts of what can't be mounted by itself.
pub(super) fn check_mountable(stack: &Stack) -> Result<(), SnapshotError> {
    match stack.layer.kind {
        Kind::Active | Kind::View => Ok(()),
        Kind::Committed => Err(SnapshotError::WrongKind {
            key: stack.layer.key.clone(),
            is: kind_name(Kind::Committed),
            needed: "active or a view",
        }),
    }
}

/// Inodes of an index would tie a layer to the first place where it was an upper one; ours move between mounts.
fn mount_options() -> Vec<String> {
    let mut options = Vec::new();
    if Path::new("/sys/module/overlay/parameters/index").exists() {
        options.push("index=off".to_owned());
    }
    if in_user_namespace() {
        options.push("userxattr".to_owned());
    }
    options
}

fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Mounts a small overlay, attached nowhere, and writes to it.
fn try_out(root: &Path, options: &[String]) -> std::io::Result<()> {
    let scratch = root.join("try-out");
    let _ = fs::remove_dir_all(&scratch);
    let outcome = (|| {
        for dir in ["lower", "upper", "work"] {
            fs::create_dir_all(scratch.join(dir))?;
        }
        let at = |dir: &str| scratch.join(dir).display().to_string();
        let mut options = options.to_vec();
        options.extend([
            format!("workdir={}", at("work")),
            format!("upperdir={}", at("upper")),
            format!("lowerdir={}", at("lower")),
        ]);
        let mount = Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options };
        let tree = Detached::of(&[mount])?;
        rustix::fs::mkdirat(&tree, "written", rustix::fs::Mode::RWXU)?;
        Ok(())
    })();
    let cleaned = fs::remove_dir_all(&scratch);
    outcome.and(cleaned)
}

/// Makes `fs` with the owner and mode of the topmost parent, which a container sees as those of its root folder.
pub(super) fn make_files(dir: &Path, parents: &[PathBuf]) -> Result<PathBuf, SnapshotError> {
    let files = dir.join("fs");
    fs::DirBuilder::new().mode(0o755).create(&files).map_err(SnapshotError::io("create", &files))?;
    let (uid, gid, mode) = match parents.first() {
        Some(top) => {
            let meta = fs::metadata(top).map_err(SnapshotError::io("read the attributes of", top))?;
            (meta.uid(), meta.gid(), meta.mode() & 0o7777)
        }
        None => (0, 0, 0o755),
    };
    chown(&files, Some(uid), Some(gid)).map_err(SnapshotError::io("change the owner of", &files))?;
    fs::set_permissions(&files, fs::Permissions::from_mode(mode))
        .map_err(SnapshotError::io("change the mode of", &files))?;
    Ok(files)
}

#[async_trait]
impl Snapshotter for Overlay {
    fn root(&self) -> &Path {
        self.layers.root()
    }

    async fn create(&self, new: New, record: Record) -> Result<Vec<Mount>, SnapshotError> {
        let writable = new.writable;
        let fill = move |dir: &Path, parents: &[PathBuf]| {
            make_files(dir, parents)?;
            if writable {
                let work = dir.join("work");
                fs::DirBuilder::new().mode(0o711).create(&work).map_err(SnapshotError::io("create", &work))?;
            }
            Ok(())
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
