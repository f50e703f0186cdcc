//! Where a cgroup's files are.
//!
//! The process says which cgroup it is in (`/proc/PID/cgroup`), the mounts say where that cgroup's folder is. A
//! container may have cgroups of its own below the one that it was given (systemd inside makes them, and moves its
//! processes there), so the path is cut behind the component that names the container.
//!
//! Version 1 has a hierarchy a controller; several can be mounted together (`cpu,cpuacct`). In the hybrid layout the
//! controllers are those of version 1. Limit: a machine that has some controllers in version 1 and others in version 2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::StatsError;

/// The mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    v1: BTreeMap<String, Mount>,
    v2: Option<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// The cgroup that is mounted, as `/proc/PID/cgroup` would name it.
    root: PathBuf,
    at: PathBuf,
}

/// The folders of one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    V1 { cpuacct: PathBuf, memory: PathBuf, pids: Option<PathBuf> },
    V2(PathBuf),
}

impl Hierarchies {
    /// Those of this machine. Blocks.
    pub fn read() -> Result<Self, StatsError> {
        let path = "/proc/self/mountinfo";
        let text = std::fs::read_to_string(path).map_err(|source| StatsError::Io { path: path.into(), source })?;
        Ok(Self::parse(&text))
    }

    /// From lines like `35 25 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`. The first mount counts.
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(at)) = (left.next(), left.next()) else { continue };
            let mount = Mount { root: root.into(), at: at.into() };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    for controller in options.split(',') {
                        found.v1.entry(controller.to_owned()).or_insert_with(|| mount.clone());
                    }
                }
                (Some("cgroup2"), Some(_)) if found.v2.is_none() => found.v2 = Some(mount),
                (Some(_) | None, _) => {}
            }
        }
        found
    }

    /// The cgroup of container `id`, one of whose processes is `pid`. Blocks.
    pub fn of_process(&self, id: &str, pid: u32) -> Result<Place, StatsError> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&path).map_err(|e| StatsError::of(id, &path, e))?;
        self.of_text(&text, id, pid)
    }

    fn of_text(&self, text: &str, id: &str, pid: u32) -> Result<Place, StatsError> {
        let lines: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))).collect();
        let own = |path: &str| own(path, id).ok_or_else(|| StatsError::NotItsOwn { id: id.to_owned(), pid });
        if self.v1.contains_key("memory") {
            let folder = |controller: &'static str| {
                let mount = self.v1.get(controller).ok_or(StatsError::NoController(controller))?;
                let line = lines.iter().find(|(names, _)| names.split(',').any(|name| name == controller));
                let (_, path) = line.ok_or(StatsError::NoController(controller))?;
                Ok(mount.folder(&own(path)?))
            };
            return Ok(Place::V1 { cpuacct: folder("cpuacct")?, memory: folder("memory")?, pids: folder("pids").ok() });
        }
        let mount = self.v2.as_ref().ok_or(StatsError::NoController("memory"))?;
        let (_, path) = lines.iter().find(|(names, _)| names.is_empty()).ok_or(StatsError::NoController("memory"))?;
        Ok(Place::V2(mount.folder(&own(path)?)))
    }

    /// The cgroup at a path that begins at the root of all hierarchies.
    pub fn at(&self, path: &Path) -> Result<Place, StatsError> {
        if self.v1.contains_key("memory") {
            let folder = |controller: &'static str| {
                let mount = self.v1.get(controller).ok_or(StatsError::NoController(controller))?;
                Ok::<_, StatsError>(mount.folder(path))
            };
            return Ok(Place::V1 { cpuacct: folder("cpuacct")?, memory: folder("memory")?, pids: folder("pids").ok() });
        }
        let mount = self.v2.as_ref().ok_or(StatsError::NoController("memory"))?;
        Ok(Place::V2(mount.folder(path)))
    }
}

impl Mount {
    fn folder(&self, cgroup: &Path) -> PathBuf {
        let below = cgroup.strip_prefix(&self.root).unwrap_or(cgroup);
        self.at.join(below.strip_prefix("/").unwrap_or(below))
    }
}

/// The path up to the component that names the container: `ID` or `prefix-ID.scope`.
fn own(path: &str, id: &str) -> Option<PathBuf> {
    let path = Path::new(path);
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
        let all = Hierarchies::parse(V1);
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
        let all = Hierarchies::parse("30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let text = "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab12.scope/app\n";
        let folder = "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab12.scope";
        assert_eq!(all.of_text(text, "ab12", 7).unwrap(), Place::V2(folder.into()));
    }

    #[test]
    fn a_cgroup_of_others_is_not_taken_for_the_containers() {
        let all = Hierarchies::parse("30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let e = all.of_text("0::/system.slice/shim.service\n", "ab12", 7).unwrap_err();
        assert!(matches!(e, StatsError::NotItsOwn { pid: 7, .. }), "{e}");
        let none = Hierarchies::parse("");
        assert!(matches!(none.of_text("0::/\n", "ab12", 7), Err(StatsError::NoController(_))));
        assert!(matches!(none.of_process("ab12", u32::MAX), Err(StatsError::Gone { .. })));
    }
}
