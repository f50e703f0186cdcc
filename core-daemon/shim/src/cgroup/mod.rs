//! A container's cgroup: its members, statistics, freezing and out-of-memory kills, by its files.
//!
//! The folders are found once, when the container is made: its first process is in them, and can't have made others yet.
//! Layouts: see [`shared_sys::cgroup`].

mod file;
mod oom;
mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use prost_types::Any;
use shared_proto::any;
use shared_sys::cgroup::{Hierarchies, Mount, path_of};

pub use oom::Watch;

use crate::error::Error;

/// How long freezing may take.
const FREEZE: Duration = Duration::from_secs(5);

/// Version 2 in the hybrid layout: a hierarchy without controllers.
const UNIFIED: &str = "unified";

/// The folders of one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// By controller.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Cgroup {
    /// That of a process.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let all = hierarchies().map_err(Error::io("read", "/proc/self/mountinfo"))?;
        let path = format!("/proc/{pid}/cgroup");
        let own = fs::read_to_string(&path).map_err(Error::io("read", path))?;
        Self::find(all, &own).ok_or_else(|| Error::NotFound(format!("process {pid} is in no cgroup")))
    }

    /// The one of this name, whether it exists or not: `/kubepods/pod1/box`.
    pub fn named(path: &Path) -> Result<Self, Error> {
        let all = hierarchies().map_err(Error::io("read", "/proc/self/mountinfo"))?;
        let folders = all.v1.iter().map(|(name, mount)| (name.clone(), mount.folder(path)));
        let v2 = all.v2.as_ref().map(|mount| mount.folder(path));
        match v2 {
            Some(folder) if !all.is_v1() => Ok(Self::V2(folder)),
            v2 => Ok(Self::V1(folders.chain(v2.map(|folder| (UNIFIED.to_owned(), folder))).collect())),
        }
    }

    /// With the text of a `/proc/PID/cgroup`.
    fn find(all: &Hierarchies, own: &str) -> Option<Self> {
        let folder = |controller, mount: &Mount| Some(mount.folder(path_of(own, controller)?));
        let v2 = all.v2.as_ref().and_then(|mount| folder("", mount));
        if !all.is_v1() {
            return v2.map(Self::V2);
        }
        let v1 = all.v1.iter().filter_map(|(name, mount)| Some((name.clone(), folder(name, mount)?)));
        Some(Self::V1(v1.chain(v2.map(|folder| (UNIFIED.to_owned(), folder))).collect()))
    }

    /// A folder that all its processes are in.
    fn members(&self) -> Option<&Path> {
        match self {
            Self::V1(folders) => ["memory", "pids", "devices", "freezer"]
                .iter()
                .find_map(|name| folders.get(*name))
                .or_else(|| folders.values().next())
                .map(PathBuf::as_path),
            Self::V2(folder) => Some(folder),
        }
    }

    /// All its folders; hierarchies with several controllers count once.
    pub fn folders(&self) -> BTreeSet<&Path> {
        match self {
            Self::V1(folders) => folders.values().map(PathBuf::as_path).collect(),
            Self::V2(folder) => BTreeSet::from([folder.as_path()]),
        }
    }

    /// Its processes, those of cgroups below included.
    pub fn pids(&self) -> BTreeSet<u32> {
        let mut pids = BTreeSet::new();
        if let Some(folder) = self.members() {
            collect(folder, &mut pids);
        }
        pids
    }

    /// Sends a signal to each of its processes.
    pub fn kill(&self, signal: u32) {
        if let Self::V2(folder) = self
            && signal == 9
            && fs::write(folder.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in self.pids() {
            // One that has ended meanwhile needs no signal.
            let _ = shared_sys::process::kill(pid, signal);
        }
    }

    /// Stops or continues all its processes.
    pub async fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let (file, value, state, reached) = match self {
            Self::V1(folders) => {
                let folder = folders.get("freezer").ok_or_else(|| Error::Unimplemented("freezing".into()))?;
                let value = if frozen { "FROZEN" } else { "THAWED" };
                (folder.join("freezer.state"), value, folder.join("freezer.state"), value.to_owned())
            }
            Self::V2(folder) => {
                let value = if frozen { "1" } else { "0" };
                (folder.join("cgroup.freeze"), value, folder.join("cgroup.events"), format!("frozen {value}"))
            }
        };
        let began = std::time::Instant::now();
        loop {
            // Version 1 may need several tries while processes are being made.
            fs::write(&file, value).map_err(Error::io("write", &file))?;
            let now = fs::read_to_string(&state).map_err(Error::io("read", &state))?;
            if now.lines().any(|line| line == reached) {
                return Ok(());
            }
            if began.elapsed() > FREEZE {
                let _ = fs::write(&file, if frozen && value == "FROZEN" { "THAWED" } else { "0" });
                return Err(Error::State(format!("the container's processes did not reach {reached:?} in {FREEZE:?}")));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Its statistics: `io.containerd.cgroups.v1.Metrics` or those of v2.
    pub fn stats(&self) -> Result<Any, Error> {
        let folder = self.members().ok_or_else(|| Error::NotFound("no cgroup".into()))?;
        if !folder.exists() {
            return Err(Error::NotFound(format!("cgroup {} is gone", folder.display())));
        }
        Ok(match self {
            Self::V1(folders) => any::pack(&v1::read(folders)),
            Self::V2(folder) => any::pack(&v2::read(folder)),
        })
    }
}

/// Read once: the list of mounts is long where many pods are, and these don't change.
fn hierarchies() -> std::io::Result<&'static Hierarchies> {
    static READ: OnceLock<Hierarchies> = OnceLock::new();
    match READ.get() {
        Some(all) => Ok(all),
        None => {
            let all = Hierarchies::read()?;
            Ok(READ.get_or_init(|| all))
        }
    }
}

fn collect(folder: &Path, pids: &mut BTreeSet<u32>) {
    pids.extend(file::text(folder, "cgroup.procs").lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /host /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn folders_of_all_layouts() {
        let own = "4:memory:/host/pod/box\n2:cpu,cpuacct:/pod/box\n0::/pod/box\n";
        let Some(Cgroup::V1(folders)) = Cgroup::find(&Hierarchies::parse(HYBRID), own) else {
            panic!("version 1 counts")
        };
        assert_eq!(folders["memory"], Path::new("/sys/fs/cgroup/memory/pod/box"));
        assert_eq!(folders["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/pod/box"));
        let unified = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let unified = Hierarchies::parse(unified);
        assert_eq!(Cgroup::find(&unified, "0::/pod/box\n"), Some(Cgroup::V2("/sys/fs/cgroup/pod/box".into())));
        assert_eq!(Cgroup::find(&Hierarchies::default(), own), None);
    }

    #[test]
    fn the_processes_of_this_machine_are_in_one() {
        let cgroup = Cgroup::of(std::process::id()).unwrap();
        assert!(cgroup.pids().contains(&std::process::id()));
        let stats = cgroup.stats().unwrap();
        assert!(stats.type_url.starts_with("io.containerd.cgroups.v"), "{}", stats.type_url);
        assert!(!stats.value.is_empty());
    }
}
