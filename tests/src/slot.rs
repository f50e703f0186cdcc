//! A number between 0 and 199 that no other living world has.
//!
//! It is held by a file lock, so a test that was killed frees it. Names that the kernel shares between all worlds
//! (bridge, subnet, cgroup) are made from it; whoever takes the slot removes what a killed owner left under them.
//! Namespaces of containerd's API are called `seamN-…`, as their containers have cgroups and folders of runc of that
//! name when nobody says otherwise.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const LOCKS: &str = "/tmp/seam-e2e-slots";

/// A held slot; see the [module](self).
#[derive(Debug)]
pub struct Slot {
    number: u8,
    _lock: File,
}

impl Slot {
    /// Takes the first free slot.
    pub fn take() -> Self {
        std::fs::create_dir_all(LOCKS).expect("create the folder of slots");
        for number in 0..200u8 {
            let path = Path::new(LOCKS).join(number.to_string());
            let lock = File::create(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
            if lock.try_lock().is_ok() {
                let slot = Self { number, _lock: lock };
                slot.clean();
                return slot;
            }
        }
        panic!("all slots in {LOCKS} are taken");
    }

    /// Bridge, CNI network and cgroup have this name.
    pub fn name(&self) -> String {
        format!("seam{}", self.number)
    }

    /// The pods' network, a /24.
    pub fn subnet(&self) -> String {
        format!("10.214.{}.0/24", self.number)
    }

    /// The pods' network of the other family, a /64.
    pub fn subnet6(&self) -> String {
        format!("fd5e:a0:1:{:x}::/64", u16::from(self.number) + 1)
    }

    /// A host port for the suites, from a range of ten of this slot's own.
    pub fn host_port(&self, index: u8) -> u16 {
        assert!(index < 10, "a slot has ten host ports");
        20_000 + u16::from(self.number) * 10 + u16::from(index)
    }

    /// The cgroups of this world, one for every mounted hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        cgroup_roots().into_iter().map(|root| root.join(self.name())).collect()
    }

    fn clean(&self) {
        let bridge = self.name();
        if Path::new("/sys/class/net").join(&bridge).exists() {
            // Fails only when the bridge vanished meanwhile.
            let _ = Command::new("ip").args(["link", "del", "dev", &bridge]).output();
        }
        crate::leftovers::remove(self);
        crate::docker::remove_netns(&crate::docker::netns(self));
        for cgroup in self.cgroups() {
            remove_cgroup(&cgroup);
        }
        for cgroup in cgroup_roots().iter().flat_map(|root| self.namespaces_in(root)) {
            remove_cgroup(&cgroup);
        }
        for state in self.namespaces_in(Path::new("/run/containerd/runc")) {
            // What can't be removed stays, and is in nobody's way but this slot's.
            let _ = std::fs::remove_dir_all(state);
        }
    }

    /// The folders in `dir` that are called after namespaces of this world.
    fn namespaces_in(&self, dir: &Path) -> Vec<PathBuf> {
        let prefix = format!("{}-", self.name());
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        ours.map(|entry| entry.path()).collect()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clean();
    }
}

/// Mount points of the cgroup hierarchies: one on a unified system, one a controller on the old layout.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("read /proc/self/mounts");
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let target = words.next()?;
            words.next()?.starts_with("cgroup").then(|| PathBuf::from(target))
        })
        .collect()
}

/// Kills what is in a cgroup and below, and removes the folders. What can't be removed yet stays.
fn remove_cgroup(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    for _ in 0..100 {
        for pid in pids_in(dir) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if std::fs::remove_dir(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The processes directly in a cgroup.
pub fn pids_in(cgroup: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
