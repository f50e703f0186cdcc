//! What every snapshotter must do, with real mounts: these need root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use shared_sys::files::Durability;
use shared_sys::mount::{Detached, mount_all, unmount};

use super::*;
use crate::domain::{LeaseId, Namespace, Scope};
use crate::metadata::Db;

struct World {
    dir: tempfile::TempDir,
    db: Db,
    snapshots: Snapshots,
    scope: Scope,
}

/// A mounted snapshot; taken off when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0).unwrap();
    }
}

impl Mounted {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

async fn open(dir: &Path, db: &Db) -> Snapshots {
    let mut backends: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::new();
    backends.insert("overlayfs".into(), Arc::new(Overlay::open(&dir.join("overlayfs"), db.clone()).await.unwrap()));
    backends.insert("native".into(), Arc::new(Native::open(&dir.join("native"), db.clone()).await.unwrap()));
    Snapshots::new(db.clone(), backends)
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("meta.db")).unwrap();
    let snapshots = open(dir.path(), &db).await;
    World { dir, db, snapshots, scope: Scope { ns: Namespace::parse("test").unwrap(), lease: None } }
}

impl World {
    fn mount(&self, mounts: &[Mount]) -> Mounted {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let target = self.dir.path().join(format!("mnt-{n}"));
        fs::create_dir(&target).unwrap();
        mount_all(mounts, &target).unwrap();
        Mounted(target)
    }

    /// Commits a snapshot with what `write` does to it.
    async fn layer(&self, sn: &str, name: &str, parent: &str, write: impl FnOnce(&Mounted)) {
        let key = format!("making {name}");
        let mounts = self.snapshots.prepare(&self.scope, sn, &key, parent, Labels::new()).await.unwrap();
        write(&self.mount(&mounts));
        self.snapshots.commit(&self.scope, sn, name, &key, Labels::new()).await.unwrap();
    }

    fn folders(&self, sn: &str) -> Vec<String> {
        let list = fs::read_dir(self.dir.path().join(sn).join("snapshots")).unwrap();
        let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn code(e: SnapshotError) -> shared_proto::Code {
    shared_proto::Error::from(e).code
}

/// Runs a test on both snapshotters.
async fn both<F: Future>(test: impl Fn(Arc<World>, &'static str) -> F) {
    let world = Arc::new(world().await);
    for sn in ["overlayfs", "native"] {
        test(world.clone(), sn).await;
    }
}

#[tokio::test]
async fn files_come_through_layers() {
    both(|w, sn| async move {
        w.layer(sn, "one", "", |m| {
            fs::create_dir_all(m.at("etc/old")).unwrap();
            fs::write(m.at("etc/hosts"), "one").unwrap();
            fs::write(m.at("etc/old/a"), "").unwrap();
            fs::write(m.at("gone"), "").unwrap();
            fs::write(m.at("moved"), "moved").unwrap();
            fs::hard_link(m.at("moved"), m.at("linked")).unwrap();
            std::os::unix::fs::chown(m.at("moved"), Some(5), Some(6)).unwrap();
        })
        .await;
        w.layer(sn, "two", "one", |m| {
            fs::write(m.at("etc/hosts"), "two").unwrap();
            fs::remove_file(m.at("gone")).unwrap();
            fs::rename(m.at("moved"), m.at("here")).unwrap();
            fs::remove_dir_all(m.at("etc/old")).unwrap();
            fs::create_dir(m.at("etc/old")).unwrap();
            fs::write(m.at("etc/old/b"), "").unwrap();
            std::os::unix::fs::chown(m.at("linked"), Some(9), Some(9)).unwrap();
        })
        .await;
        let m = w.mount(&w.snapshots.view(&w.scope, sn, "look", "two", Labels::new()).await.unwrap());
        assert_eq!(fs::read_to_string(m.at("etc/hosts")).unwrap(), "two", "{sn}");
        assert!(!m.at("gone").exists() && !m.at("moved").exists() && !m.at("etc/old/a").exists());
        assert!(m.at("etc/old/b").exists());
        assert_eq!(fs::read_to_string(m.at("here")).unwrap(), "moved");
        assert_eq!(fs::metadata(m.at("linked")).unwrap().uid(), 9);
        assert_eq!(fs::write(m.at("x"), "").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        let old = w.mount(&w.snapshots.view(&w.scope, sn, "old", "one", Labels::new()).await.unwrap());
        assert!(old.at("gone").exists() && old.at("etc/old/a").exists());
        assert_eq!(fs::write(old.at("x"), "").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    })
    .await;
}

#[tokio::test]
async fn the_root_folder_keeps_owner_and_mode() {
    both(|w, sn| async move {
        w.layer(sn, "base", "", |m| {
            fs::set_permissions(m.at(""), fs::Permissions::from_mode(0o1750)).unwrap();
            std::os::unix::fs::chown(m.at(""), Some(3), Some(4)).unwrap();
        })
        .await;
        let m = w.mount(&w.snapshots.prepare(&w.scope, sn, "top", "base", Labels::new()).await.unwrap());
        let root = fs::metadata(m.at("")).unwrap();
        assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (3, 4, 0o1750), "{sn}");
    })
    .await;
}

#[tokio::test]
async fn names_and_states_are_checked() {
    use shared_proto::Code::*;
    both(|w, sn| async move {
        let (s, scope, no) = (&w.snapshots, &w.scope, Labels::new);
        w.layer(sn, "base", "", |_| {}).await;
        s.prepare(scope, sn, "a", "base", no()).await.unwrap();
        s.view(scope, sn, "v", "base", no()).await.unwrap();
        assert_eq!(code(s.prepare(scope, sn, "a", "base", no()).await.unwrap_err()), AlreadyExists);
        assert_eq!(code(s.prepare(scope, sn, "b", "absent", no()).await.unwrap_err()), NotFound);
        let on_active = s.prepare(scope, sn, "b", "a", no()).await.unwrap_err();
        assert_eq!(on_active.to_string(), "parent snapshot \"a\" is not committed");
        assert_eq!(code(on_active), InvalidArgument);
        assert_eq!(code(s.prepare(scope, sn, "", "base", no()).await.unwrap_err()), InvalidArgument);
        assert_eq!(code(s.prepare(scope, "zfs", "b", "", no()).await.unwrap_err()), InvalidArgument);
        assert_eq!(code(s.mounts(scope, sn, "base").await.unwrap_err()), FailedPrecondition);
        assert_eq!(code(s.mounts(scope, sn, "absent").await.unwrap_err()), NotFound);
        assert_eq!(code(s.commit(scope, sn, "x", "v", no()).await.unwrap_err()), FailedPrecondition);
        assert_eq!(code(s.commit(scope, sn, "base", "a", no()).await.unwrap_err()), AlreadyExists);
        assert_eq!(code(s.remove(scope, sn, "base").await.unwrap_err()), FailedPrecondition);

        // Another namespace sees none of it, and may use the same names.
        let other = Scope { ns: Namespace::parse("other").unwrap(), lease: None };
        assert_eq!(code(s.stat(&other, sn, "base").await.unwrap_err()), NotFound);
        s.prepare(&other, sn, "a", "", no()).await.unwrap();
        s.remove(&other, sn, "a").await.unwrap();

        assert_eq!(s.list(scope, sn).await.unwrap().len(), 3);
        for key in ["a", "v", "base"] {
            s.remove(scope, sn, key).await.unwrap();
        }
        assert_eq!(code(s.remove(scope, sn, "base").await.unwrap_err()), NotFound);
        s.cleanup(sn).await.unwrap();
        assert_eq!(w.folders(sn), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn two_commits_to_one_name_lose_nothing() {
    let w = world().await;
    let (s, scope, sn) = (&w.snapshots, &w.scope, "overlayfs");
    for key in ["a", "b"] {
        s.prepare(scope, sn, key, "", Labels::new()).await.unwrap();
    }
    let commit = |key| s.commit(scope, sn, "name", key, Labels::new());
    let (a, b) = tokio::join!(commit("a"), commit("b"));
    let (failed, key) = if a.is_ok() { (b, "b") } else { (a, "a") };
    assert_eq!(code(failed.unwrap_err()), shared_proto::Code::AlreadyExists);
    assert_eq!(s.stat(scope, sn, key).await.unwrap().kind, Kind::Active);
    s.mounts(scope, sn, key).await.unwrap();
    assert_eq!(s.stat(scope, sn, "name").await.unwrap().kind, Kind::Committed);
}

#[tokio::test]
async fn usage_is_the_snapshots_own() {
    both(|w, sn| async move {
        w.layer(sn, "base", "", |m| {
            fs::write(m.at("big"), vec![7; 2 << 20]).unwrap();
            fs::hard_link(m.at("big"), m.at("again")).unwrap();
        })
        .await;
        let base = w.snapshots.usage(&w.scope, sn, "base").await.unwrap();
        assert!(base.size >= 2 << 20 && base.size < 3 << 20 && base.inodes == 2, "{base:?}");
        let mounts = w.snapshots.prepare(&w.scope, sn, "top", "base", Labels::new()).await.unwrap();
        let before = w.snapshots.usage(&w.scope, sn, "top").await.unwrap();
        fs::write(w.mount(&mounts).at("more"), vec![7; 1 << 20]).unwrap();
        let after = w.snapshots.usage(&w.scope, sn, "top").await.unwrap();
        assert!(after.inodes == before.inodes + 1 && after.size >= before.size + (1 << 20), "{before:?} {after:?}");
    })
    .await;
}

#[tokio::test]
async fn labels_are_replaced_changed_and_deleted() {
    let w = world().await;
    let (s, scope, sn) = (&w.snapshots, &w.scope, "overlayfs");
    let labels =
        |pairs: &[(&str, &str)]| -> Labels { pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect() };
    s.prepare(scope, sn, "a", "", labels(&[("containerd.io/snapshot/x", "1"), ("b", "2")])).await.unwrap();
    let update = |new: Labels, fields: &'static [&'static str]| async move {
        let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
        s.update(scope, sn, "a", new, &fields).await.map(|row| row.labels)
    };
    let one = update(labels(&[("c", "3"), ("ignored", "x")]), &["labels.c", "labels.b"]).await.unwrap();
    assert_eq!(one, labels(&[("c", "3"), ("containerd.io/snapshot/x", "1")]));
    assert_eq!(update(labels(&[("d", "4")]), &[]).await.unwrap(), labels(&[("d", "4")]));
    assert_eq!(code(update(Labels::new(), &["parent"]).await.unwrap_err()), shared_proto::Code::InvalidArgument);
    let kept = w.db.read::<_, SnapshotError>(|c| Ok(crate::metadata::snapshots::list_layers(c, "overlayfs")?)).await;
    assert_eq!(kept.unwrap()[0].labels, labels(&[("containerd.io/snapshot/x", "1")]));
    s.commit(scope, sn, "done", "a", labels(&[("e", "5")])).await.unwrap();
    assert_eq!(s.stat(scope, sn, "done").await.unwrap().labels, labels(&[("e", "5")]));
}

#[tokio::test]
async fn what_is_made_joins_the_lease() {
    let w = world().await;
    let leased = Scope { lease: Some(LeaseId::parse("l").unwrap()), ..w.scope.clone() };
    let refused = w.snapshots.prepare(&leased, "native", "a", "", Labels::new()).await.unwrap_err();
    assert_eq!(code(refused), shared_proto::Code::NotFound);
    assert_eq!(w.snapshots.list(&w.scope, "native").await.unwrap(), []);
    let sql = "INSERT INTO leases (ns, id, labels, created_at) VALUES ('test', 'l', '{}', 0)";
    w.db.write::<_, crate::metadata::DbError>(Durability::Rebuildable, move |c| Ok(c.execute(sql, [])?)).await.unwrap();
    let held = || async {
        let sql = "SELECT type || ' ' || id FROM lease_resources";
        w.db.read::<_, crate::metadata::DbError>(move |c| {
            let mut rows = c.prepare(sql)?;
            let held: rusqlite::Result<Vec<String>> = rows.query_map([], |r| r.get(0))?.collect();
            Ok(held?)
        })
        .await
        .unwrap()
    };
    w.snapshots.prepare(&leased, "native", "a", "", Labels::new()).await.unwrap();
    assert_eq!(held().await, ["snapshots/native a"]);
    w.snapshots.commit(&leased, "native", "b", "a", Labels::new()).await.unwrap();
    assert_eq!(held().await, ["snapshots/native b"]);
    w.snapshots.remove(&w.scope, "native", "b").await.unwrap();
    assert_eq!(held().await, [""; 0]);
}

#[tokio::test]
async fn a_restart_removes_what_was_left_half_done() {
    let w = world().await;
    for sn in ["overlayfs", "native"] {
        w.layer(sn, "base", "", |m| fs::write(m.at("f"), "kept").unwrap()).await;
        w.snapshots.prepare(&w.scope, sn, "lost", "base", Labels::new()).await.unwrap();
        w.snapshots.prepare(&w.scope, sn, "kept", "base", Labels::new()).await.unwrap();
    }
    let World { dir, db, snapshots, scope } = w;
    drop(snapshots);
    for sn in ["overlayfs", "native"] {
        let root = dir.path().join(sn).join("snapshots");
        fs::create_dir_all(root.join("77/fs/some/dir")).unwrap();
        fs::create_dir_all(root.join("rm-2/fs")).unwrap();
        fs::remove_dir_all(root.join("2")).unwrap();
    }
    let snapshots = open(dir.path(), &db).await;
    let w = World { dir, db, snapshots, scope };
    for sn in ["overlayfs", "native"] {
        assert_eq!(w.folders(sn), ["1", "3"], "{sn}");
        assert_eq!(code(w.snapshots.stat(&w.scope, sn, "lost").await.unwrap_err()), shared_proto::Code::NotFound);
        let m = w.mount(&w.snapshots.mounts(&w.scope, sn, "kept").await.unwrap());
        assert_eq!(fs::read_to_string(m.at("f")).unwrap(), "kept");
        // Numbers of folders that were found are not used again.
        w.snapshots.prepare(&w.scope, sn, "new", "", Labels::new()).await.unwrap();
        assert_eq!(w.folders(sn), ["1", "3", "78"]);
    }
}

#[tokio::test]
async fn a_sweep_takes_only_what_nobody_knows() {
    let w = world().await;
    let sn = "overlayfs";
    w.layer(sn, "base", "", |_| {}).await;
    w.layer(sn, "middle", "base", |_| {}).await;
    w.snapshots.prepare(&w.scope, sn, "top", "middle", Labels::new()).await.unwrap();
    w.layer(sn, "kept", "base", |_| {}).await;
    assert_eq!(w.snapshots.sweep().await.removed, 0);
    let sql = "DELETE FROM snapshots WHERE name IN ('middle', 'top')";
    w.db.write::<_, crate::metadata::DbError>(Durability::Rebuildable, move |c| Ok(c.execute(sql, [])?)).await.unwrap();
    // Layers that wait for the sweep don't keep their parent alive.
    w.snapshots.remove(&w.scope, sn, "kept").await.unwrap();
    w.snapshots.remove(&w.scope, sn, "base").await.unwrap();
    let sweep = w.snapshots.sweep().await;
    assert!(sweep.removed == 0 && sweep.errors.is_empty(), "{sweep:?}");
    w.snapshots.cleanup(sn).await.unwrap();
    assert_eq!(w.folders(sn), [""; 0]);
}

#[tokio::test]
async fn a_folder_that_stays_delays_only_itself() {
    let w = world().await;
    let root = w.dir.path().join("native/snapshots");
    for n in [101, 102, 103] {
        fs::create_dir_all(root.join(format!("{n}/fs"))).unwrap();
    }
    // Busy: something is mounted inside.
    let busy = root.join("102/fs");
    mount_all(&[Mount { kind: "tmpfs".into(), source: "tmpfs".into(), ..Mount::default() }], &busy).unwrap();
    let error = w.snapshots.cleanup("native").await.unwrap_err().to_string();
    assert!(error.contains("1 folders could not be removed") && error.contains("102"), "{error}");
    assert_eq!(w.folders("native"), ["102"]);
    unmount(&busy).unwrap();
    w.snapshots.cleanup("native").await.unwrap();
    assert_eq!(w.folders("native"), [""; 0]);
}

#[tokio::test]
async fn a_stack_of_128_layers_mounts() {
    let w = world().await;
    let sn = "overlayfs";
    let mut parent = String::new();
    for n in 0..128 {
        let key = format!("k{n}");
        let mounts = w.snapshots.prepare(&w.scope, sn, &key, &parent, Labels::new()).await.unwrap();
        fs::write(w.mount(&mounts).at(&format!("f{n}")), "").unwrap();
        let name = format!("layer-{n}");
        w.snapshots.commit(&w.scope, sn, &name, &key, Labels::new()).await.unwrap();
        parent = name;
    }
    let mounts = w.snapshots.view(&w.scope, sn, "all", &parent, Labels::new()).await.unwrap();
    let tree = Detached::of(&mounts).unwrap();
    for n in [0, 64, 127] {
        tree.open(Path::new(&format!("f{n}"))).unwrap();
    }
}
