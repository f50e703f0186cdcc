//! Where a cgroup's files are.
//!
//! A container may have cgroups of its own below the one that it was given (systemd inside makes them, and moves its
//! processes there), so the path that a process names is cut behind the component that names the container. Layouts:
//! see [`shared_sys::cgroup`].

use std::path::{Path, PathBuf};

use shared_sys::cgroup::{Hierarchies, path_of};

use super::StatsError;

/// Finds cgroups in the mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finder(Hierarchies);

/// The folders of one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    V1 { cpuacct: PathBuf, memory: PathBuf, pids: Option<PathBuf> },
    V2(PathBuf),
}

impl Finder {
    /// For this machine. Blocks.
    pub fn new() -> Result<Self, StatsError> {
        let path = "/proc/self/mountinfo";
        Ok(Self(Hierarchies::read().map_err(|source| StatsError::Io { path: path.into(), source })?))
    }

    /// The cgroup of container `id`, one of whose processes is `pid`. Blocks.
    pub fn of_process(&self, id: &str, pid: u32) -> Result<Place, StatsError> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&path).map_err(|e| StatsError::of(id, &path, e))?;
        self.of_text(&text, id, pid)
    }

    fn of_text(&self, text: &str, id: &str, pid: u32) -> Result<Place, StatsError> {
        self.place(|controller| {
            let path = path_of(text, controller).ok_or_else(|| missing(controller))?;
            own(path, id).ok_or_else(|| StatsError::NotItsOwn { id: id.to_owned(), pid })
        })
    }

    /// The cgroup at a path that begins at the root of all hierarchies.
    pub fn at(&self, path: &Path) -> Result<Place, StatsError> {
        self.place(|_| Ok(path))
    }

    /// Where the cgroup is that has these paths in the hierarchies of controllers; the empty one is version 2.
    fn place<P: AsRef<Path>>(&self, path: impl Fn(&'static str) -> Result<P, StatsError>) -> Result<Place, StatsError> {
        if self.0.is_v1() {
            let folder = |controller| {
                let mount = self.0.v1.get(controller).ok_or_else(|| missing(controller))?;
                Ok::<_, StatsError>(mount.folder(path(controller)?.as_ref()))
            };
            return Ok(Place::V1 { cpuacct: folder("cpuacct")?, memory: folder("memory")?, pids: folder("pids").ok() });
        }
        let mount = self.0.v2.as_ref().ok_or_else(|| missing(""))?;
        Ok(Place::V2(mount.folder(path("")?.as_ref())))
    }
}

/// What version 2 lacks is all of it; the memory stands for that.
fn missing(controller: &'static str) -> StatsError {
    StatsError::NoController(if controller.is_empty() { "memory" } else { controller })
}

/// The path up to the component that names the container: `ID` or `prefix-ID.scope`.
fn own(path: &Path, id: &str) -> Option<PathBuf> {
    let named = |path: &&Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(id));
    path.ancestors().filter(named).last().map(Path::to_owned)
}

impl Place {
    /// The cgroup around it: a pod's, seen from one of its containers'.
    pub fn parent(&self) -> Self {
        let up = |path: &PathBuf| path.parent().unwrap_or(path).to_owned();
        match self {
            Place::V1 { cpuacct, memory, pids } => {
                Place::V1 { cpuacct: up(cpuacct), memory: up(memory), pids: pids.as_ref().map(up) }
            }
            Place::V2(path) => Place::V2(up(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 22 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/host /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

    #[test]
    fn finds_the_folders_of_version_1() {
        let all = Finder(Hierarchies::parse(V1));
        let text = "9:name=systemd:/x\n4:memory:/docker/host/kubepods/pod1/ab12\n\
                    2:cpu,cpuacct:/kubepods/pod1/ab12/init.scope\n8:pids:/kubepods/pod1/ab12\n0::/kubepods/pod1/ab12\n";
        let place = all.of_text(text, "ab12", 7).unwrap();
        let Place::V1 { cpuacct, memory, pids } = &place else { panic!("{place:?}") };
        assert_eq!(cpuacct, Path::new("/sys/fs/cgroup/cpu,cpuacct/kubepods/pod1/ab12"), "cut behind the id");
        assert_eq!(memory, Path::new("/sys/fs/cgroup/memory/kubepods/pod1/ab12"), "the mount's root is taken off");
        assert_eq!(pids.as_deref(), Some(Path::new("/sys/fs/cgroup/pids/kubepods/pod1/ab12")));
        let Place::V1 { memory, .. } = place.parent() else { panic!() };
        assert_eq!(memory, Path::new("/sys/fs/cgroup/memory/kubepods/pod1"));
        assert_eq!(all.at(Path::new("/kubepods/pod1/ab12")).unwrap(), place);
    }

    #[test]
    fn finds_the_folder_of_version_2() {
        let all = Finder(Hierarchies::parse("30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"));
        let text = "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab12.scope/app\n";
        let folder = "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab12.scope";
        assert_eq!(all.of_text(text, "ab12", 7).unwrap(), Place::V2(folder.into()));
    }

    #[test]
    fn a_cgroup_of_others_is_not_taken_for_the_containers() {
        let all = Finder(Hierarchies::parse("30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"));
        let e = all.of_text("0::/system.slice/shim.service\n", "ab12", 7).unwrap_err();
        assert!(matches!(e, StatsError::NotItsOwn { pid: 7, .. }), "{e}");
        let none = Finder::default();
        assert!(matches!(none.of_text("0::/\n", "ab12", 7), Err(StatsError::NoController(_))));
        assert!(matches!(none.of_process("ab12", u32::MAX), Err(StatsError::Gone { .. })));
    }
}
