//! A task's folder: what its shim reads, and all that a restart of the core needs.
//!
//! ```text
//! <state>/io.containerd.runtime.v2.task/<ns>/<id>/
//!     config.json        the OCI spec, byte for byte
//!     shim-binary-path   written before the shim is started, so that every crash can be cleaned up with it
//!     bootstrap.json     where the shim listens; `address` is the same, written by shims up to 1.6
//!     rootfs/            the shim mounts the root filesystem here
//!     work ─▶ <root>/io.containerd.runtime.v2.task/<ns>/<id>
//!     made               empty; written when the shim has made the task, before the client hears so
//!     log                FIFO of the shim's log
//!     init.pid …         the shim's own
//! ```
//!
//! A bundle is first renamed to `.<id>` and then removed, so a half-removed one is never taken for a task.
//! Nothing below a mount is ever removed: `rootfs` is unmounted first. Of a container that came without a root file
//! system, the engine leaves a few folders in it; they go when the kernel says that nothing is mounted below.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use shared_sys::files::{Durability, write_atomic};
use shared_sys::{fifo, mount};

use super::bootstrap::Bootstrap;
use super::error::RuntimeError;
use crate::domain::{Id, Namespace};

/// Where bundles are below the state folder, and working folders below the root.
pub const FOLDER: &str = "io.containerd.runtime.v2.task";
const BINARY: &str = "shim-binary-path";
const BOOTSTRAP: &str = "bootstrap.json";
const MADE: &str = "made";

/// Where bundles are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    state: PathBuf,
    root: PathBuf,
}

/// The folder of one task. A handle: the folder may not exist.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    pub ns: Namespace,
    pub id: Id,
    pub path: PathBuf,
    work: PathBuf,
}

/// What a bundle on disk says.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub binary: Option<PathBuf>,
    pub bootstrap: Option<Bootstrap>,
    /// The init process, if one was ever made.
    pub pid: Option<u32>,
    /// Whether the client may know that the task was made.
    pub made: bool,
}

impl Layout {
    pub fn new(state: &Path, root: &Path) -> Self {
        Self { state: state.join(FOLDER), root: root.join(FOLDER) }
    }

    pub fn bundle(&self, ns: Namespace, id: Id) -> Bundle {
        let path = self.state.join(ns.as_str()).join(id.as_str());
        let work = self.root.join(ns.as_str()).join(id.as_str());
        Bundle { ns, id, path, work }
    }

    /// All bundles. Remains of half-removed ones, and working folders without a bundle, are removed on the way; what
    /// can't be is logged.
    pub fn scan(&self) -> Vec<Bundle> {
        let mut bundles = Vec::new();
        for (ns, name, path) in entries(&self.state) {
            match (Namespace::parse(&ns), Id::parse(&name)) {
                (Ok(ns), Ok(id)) => bundles.push(self.bundle(ns, id)),
                (Ok(_), Err(_)) if name.starts_with('.') => discard(&path),
                (Ok(_) | Err(_), Ok(_) | Err(_)) => tracing::warn!(path = %path.display(), "not a bundle"),
            }
        }
        for (ns, name, path) in entries(&self.root) {
            if !bundles.iter().any(|b| b.ns.as_str() == ns && b.id.as_str() == name) {
                discard(&path);
            }
        }
        bundles
    }
}

/// Folders two levels down, with the names of both levels.
fn entries(dir: &Path) -> Vec<(String, String, PathBuf)> {
    let folders = |dir: &Path| {
        let read = fs::read_dir(dir).into_iter().flatten().flatten();
        read.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut all = Vec::new();
    for outer in folders(dir) {
        for inner in folders(&outer) {
            all.push((name(&outer), name(&inner), inner));
        }
    }
    all
}

fn discard(path: &Path) {
    if let Err(e) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), error = %e, "can't remove");
    }
}

impl Bundle {
    /// Makes the folder. `root_gid` may enter it (root of a user namespace; 0 = none). Remains of a task of this name
    /// are removed first. Blocks.
    pub fn create(&self, spec: &[u8], binary: &Path, root_gid: u32) -> Result<(), RuntimeError> {
        if self.path.exists() {
            self.remove()?;
        }
        self.fill(spec, binary, root_gid).map_err(|source| self.error("create", source)).inspect_err(|_| {
            if let Err(e) = self.remove() {
                tracing::warn!(error = %e, "a bundle that could not be made stays");
            }
        })
    }

    fn fill(&self, spec: &[u8], binary: &Path, root_gid: u32) -> io::Result<()> {
        let public = |path: &Path| DirBuilder::new().recursive(true).mode(0o711).create(path);
        public(self.path.parent().expect("a bundle has a folder"))?;
        DirBuilder::new().mode(0o700).create(&self.path)?;
        if root_gid != 0 {
            chown(&self.path, None, Some(root_gid))?;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o710))?;
        }
        public(&self.path.join("rootfs"))?;
        match fs::remove_dir_all(&self.work) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => public(&self.work)?,
        }
        symlink(&self.work, self.path.join("work"))?;
        fs::write(self.path.join(BINARY), binary.as_os_str().as_encoded_bytes())?;
        fifo::make(&self.path.join("log"), 0o600)?;
        fs::write(self.path.join("config.json"), spec)
    }

    /// Records where the shim listens. Blocks.
    pub fn save(&self, bootstrap: &Bootstrap) -> Result<(), RuntimeError> {
        let text = serde_json::to_vec(bootstrap).expect("plain data is valid JSON");
        write_atomic(&self.path.join(BOOTSTRAP), &text, Durability::Rebuildable)
            .map_err(|source| self.error("write bootstrap.json", source))
    }

    /// Records that the task was made. Blocks.
    pub fn mark_made(&self) -> Result<(), RuntimeError> {
        fs::write(self.path.join(MADE), "").map_err(|source| self.error("write made", source))
    }

    /// Reads what the folder says. Missing and malformed parts are `None`. Blocks.
    pub fn load(&self) -> Record {
        let read = |name: &str| fs::read(self.path.join(name)).ok();
        let text = |name: &str| read(name).and_then(|bytes| String::from_utf8(bytes).ok()).map(|t| t.trim().to_owned());
        let bootstrap = read(BOOTSTRAP).or_else(|| read("address")).and_then(|bytes| {
            Bootstrap::parse(&bytes)
                .inspect_err(|e| tracing::warn!(bundle = %self.path.display(), error = %e, "unusable shim address"))
                .ok()
        });
        Record {
            binary: text(BINARY).filter(|path| path.starts_with('/')).map(PathBuf::from),
            bootstrap,
            pid: text("init.pid").and_then(|pid| pid.parse().ok()),
            made: self.path.join(MADE).exists(),
        }
    }

    /// Removes the folder and the working folder; fine if they are gone already. Blocks.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        let bundle = self.remove_bundle();
        let work =
            absent(fs::remove_dir_all(&self.work)).map_err(|source| self.error("remove the work folder", source));
        bundle.and(work)
    }

    fn remove_bundle(&self) -> Result<(), RuntimeError> {
        let rootfs = self.path.join("rootfs");
        absent(mount::unmount(&rootfs)).map_err(|source| self.error("unmount rootfs", source))?;
        absent(remove_unmounted(&rootfs)).map_err(|source| self.error("remove rootfs", source))?;
        let hidden = self.path.with_file_name(format!(".{}", self.id));
        absent(fs::remove_dir_all(&hidden)).map_err(|source| self.error("remove", source))?;
        absent(fs::rename(&self.path, &hidden)).map_err(|source| self.error("rename", source))?;
        absent(fs::remove_dir_all(&hidden)).map_err(|source| self.error("remove", source))
    }

    fn error(&self, doing: &'static str, source: io::Error) -> RuntimeError {
        RuntimeError::Bundle { path: self.path.clone(), doing, source }
    }
}

/// Removes a folder with what is in it, but not with what is mounted in it.
fn remove_unmounted(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        outcome => return outcome,
    }
    let below = |line: &str| line.split(' ').nth(4).is_some_and(|place| Path::new(place).starts_with(dir));
    if fs::read_to_string("/proc/self/mountinfo")?.lines().any(below) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "something is mounted in it"));
    }
    fs::remove_dir_all(dir)
}

/// What is not there needs no removal.
fn absent(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("state"), &dir.path().join("root"));
        (dir, layout)
    }

    fn bundle(layout: &Layout, id: &str) -> Bundle {
        layout.bundle(Namespace::parse("ns").unwrap(), Id::parse(id).unwrap())
    }

    #[test]
    fn a_bundle_tells_a_later_process_all() {
        let (_dir, layout) = scratch();
        let made = bundle(&layout, "one");
        made.create(b"{ }", Path::new("/bin/shim"), 100_000).unwrap();
        assert_eq!(fs::metadata(&made.path).unwrap().permissions().mode() & 0o777, 0o710);
        assert_eq!(fs::read(made.path.join("config.json")).unwrap(), b"{ }");
        assert!(fs::metadata(made.path.join("work")).unwrap().is_dir());
        let bootstrap = Bootstrap { version: 3, address: "unix:///s".into(), protocol: "ttrpc".into(), shared: true };
        made.save(&bootstrap).unwrap();
        fs::write(made.path.join("init.pid"), "42").unwrap();
        assert!(!made.load().made);
        made.mark_made().unwrap();

        let found = layout.scan().pop().unwrap();
        let record = found.load();
        assert_eq!(record.binary.as_deref(), Some(Path::new("/bin/shim")));
        assert_eq!((record.bootstrap, record.pid, record.made), (Some(bootstrap), Some(42), true));

        found.remove().unwrap();
        found.remove().unwrap();
        assert!(!made.path.exists() && layout.scan().is_empty());
        assert_eq!(entries(&layout.root).len(), 0);
    }

    #[test]
    fn strays_are_removed_but_nothing_that_is_mounted() {
        let (_dir, layout) = scratch();
        let made = bundle(&layout, "one");
        made.create(b"{}", Path::new("/bin/shim"), 0).unwrap();
        fs::create_dir_all(layout.root.join("ns/stray/deep")).unwrap();
        fs::create_dir_all(layout.state.join("ns/.half/rest")).unwrap();
        assert_eq!(layout.scan().len(), 1);
        assert!(!layout.root.join("ns/stray").exists() && !layout.state.join("ns/.half").exists());

        // What an engine leaves in a root file system that is not mounted, and something that is.
        let (dev, within) = (made.path.join("rootfs/dev"), made.path.join("rootfs/within"));
        for dir in [&dev, &within] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(dev.join("null"), "").unwrap();
        let tmpfs = mount::Mount { kind: "tmpfs".into(), source: "t".into(), ..Default::default() };
        mount::mount_all(&[tmpfs], &within).unwrap();
        fs::write(within.join("precious"), "x").unwrap();
        assert!(made.remove().unwrap_err().to_string().contains("mounted"));
        assert!(within.join("precious").exists() && dev.exists());
        mount::unmount(&within).unwrap();
        made.remove().unwrap();
        assert!(!made.path.exists());
    }
}
