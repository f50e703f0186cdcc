//! Where cgroups are mounted, and which one a process is in.
//!
//! The mounts say where a hierarchy is (`/proc/self/mountinfo`), a process says where in it it is (`/proc/PID/cgroup`).
//! Version 1 has a hierarchy a controller; several can be mounted together (`cpu,cpuacct`). In the hybrid layout the
//! controllers are those of version 1, and version 2 is mounted without any. Limit: a machine that has some controllers
//! in version 1 and others in version 2.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// The mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// By controller.
    pub v1: BTreeMap<String, Mount>,
    pub v2: Option<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The cgroup that is mounted, as `/proc/PID/cgroup` would name it.
    root: PathBuf,
    at: PathBuf,
}

impl Hierarchies {
    /// Those of this machine. Blocks.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// From lines like `35 25 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`. The first mount counts.
    pub fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - cgroup") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(at)) = (left.next(), left.next()) else { continue };
            let mount = || Mount { root: root.into(), at: at.into() };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some(""), Some(options)) => {
                    for controller in options.split(',') {
                        found.v1.entry(controller.to_owned()).or_insert_with(mount);
                    }
                }
                (Some("2"), Some(_)) if found.v2.is_none() => found.v2 = Some(mount()),
                (Some(_) | None, _) => {}
            }
        }
        found
    }

    /// Whether the controllers are those of version 1.
    pub fn is_v1(&self) -> bool {
        self.v1.contains_key("memory")
    }

    /// Where they are mounted, each once.
    pub fn mount_points(&self) -> BTreeSet<&Path> {
        self.v1.values().chain(&self.v2).map(|mount| mount.at.as_path()).collect()
    }
}

impl Mount {
    /// The folder of a cgroup, which is named as `/proc/PID/cgroup` names it.
    pub fn folder(&self, cgroup: &Path) -> PathBuf {
        let below = cgroup.strip_prefix(&self.root).unwrap_or(cgroup);
        self.at.join(below.strip_prefix("/").unwrap_or(below))
    }
}

/// The cgroup of a process in the hierarchy of a controller, from the text of its `/proc/PID/cgroup`: lines like
/// `4:memory:/path`. An empty controller is version 2.
pub fn path_of<'a>(text: &'a str, controller: &str) -> Option<&'a Path> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (_, path) = lines.find(|(names, _)| names.split(',').any(|name| name == controller))?;
    Some(Path::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 22 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/host /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn hierarchies_of_the_hybrid_layout() {
        let all = Hierarchies::parse(HYBRID);
        assert!(all.is_v1());
        let folder = |controller: &str, path: &str| all.v1[controller].folder(Path::new(path));
        assert_eq!(folder("cpuacct", "/pod/box"), Path::new("/sys/fs/cgroup/cpu,cpuacct/pod/box"));
        assert_eq!(folder("memory", "/docker/host/pod"), Path::new("/sys/fs/cgroup/memory/pod"), "the mount's root");
        assert_eq!(all.v2.as_ref().unwrap().folder(Path::new("/")), Path::new("/sys/fs/cgroup/unified/"));
        let points = ["cpu,cpuacct", "memory", "systemd", "unified"].map(|name| Path::new("/sys/fs/cgroup").join(name));
        assert!(all.mount_points().into_iter().eq(points.iter()));
    }

    #[test]
    fn hierarchies_of_version_2_and_of_none() {
        let all = Hierarchies::parse("30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert!(!all.is_v1() && all.v1.is_empty());
        assert_eq!(all.v2.unwrap().folder(Path::new("/pod")), Path::new("/sys/fs/cgroup/pod"));
        assert_eq!(Hierarchies::parse("30 22 0:26 / / rw - ext4 /dev/vda rw\nshort\n"), Hierarchies::default());
    }

    #[test]
    fn a_process_is_found_by_controller() {
        let text = "9:name=systemd:/x\n4:memory:/host/a:b\n2:cpu,cpuacct:/pod\n0::/unified\n";
        for (controller, path) in [("memory", "/host/a:b"), ("cpuacct", "/pod"), ("", "/unified")] {
            assert_eq!(path_of(text, controller), Some(Path::new(path)));
        }
        assert_eq!(path_of(text, "pids"), None);
    }
}
