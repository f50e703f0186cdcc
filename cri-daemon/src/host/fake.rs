//! A machine in memory, for tests that need no root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use super::{AppArmor, CgroupMode, Host, HostError, HostFacts};

/// Remembers namespaces and mounts; fails where it is told to.
pub struct FakeHost {
    facts: HostFacts,
    state: Mutex<State>,
    clock: AtomicI64,
}

#[derive(Default)]
struct State {
    netns: BTreeSet<PathBuf>,
    mounts: BTreeSet<PathBuf>,
    fail: BTreeSet<&'static str>,
    profiles: Vec<String>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new(HostFacts {
            cgroups: CgroupMode::V2,
            controllers: ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"].map(String::from).into(),
            swap_limit: true,
            oom_score_adj: 0,
            sys_resource: true,
            apparmor: false,
            selinux: None,
            seccomp: true,
            capabilities: (1 << 41) - 1,
        })
    }
}

impl FakeHost {
    pub fn new(facts: HostFacts) -> Self {
        Self { facts, state: Mutex::default(), clock: AtomicI64::new(1_700_000_000_000_000_000) }
    }

    /// Makes every later call of the named method fail, or work again.
    pub fn fail(&self, method: &'static str, on: bool) {
        let fail = &mut self.state().fail;
        if on {
            fail.insert(method)
        } else {
            fail.remove(method)
        };
    }

    pub fn netns(&self) -> Vec<PathBuf> {
        self.state().netns.iter().cloned().collect()
    }

    pub fn mounts(&self) -> Vec<PathBuf> {
        self.state().mounts.iter().cloned().collect()
    }

    /// How many AppArmor profiles were loaded so far.
    pub fn profiles_loaded(&self) -> usize {
        self.state().profiles.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn injected() -> std::io::Error {
    std::io::Error::other("injected")
}

#[async_trait]
impl Host for FakeHost {
    async fn create_netns(&self, path: &Path) -> Result<(), HostError> {
        let mut state = self.state();
        if state.fail.contains("create_netns") || !state.netns.insert(path.to_owned()) {
            return Err(HostError::CreateNetns { path: path.to_owned(), source: injected() });
        }
        Ok(())
    }

    async fn remove_netns(&self, path: &Path) -> Result<(), HostError> {
        let mut state = self.state();
        if state.fail.contains("remove_netns") {
            return Err(HostError::RemoveNetns { path: path.to_owned(), source: injected() });
        }
        state.netns.remove(path);
        Ok(())
    }

    async fn mount_shm(&self, path: &Path, _size: u64) -> Result<(), HostError> {
        let mut state = self.state();
        if state.fail.contains("mount_shm") {
            return Err(HostError::MountShm { path: path.to_owned(), source: injected() });
        }
        // The folder is there in earnest: specs are made of paths that exist.
        std::fs::create_dir_all(path).map_err(|source| HostError::MountShm { path: path.to_owned(), source })?;
        state.mounts.insert(path.to_owned());
        Ok(())
    }

    async fn unmount(&self, path: &Path) -> Result<(), HostError> {
        let mut state = self.state();
        if state.fail.contains("unmount") {
            return Err(HostError::Unmount { path: path.to_owned(), source: injected() });
        }
        state.mounts.remove(path);
        Ok(())
    }

    fn facts(&self) -> &HostFacts {
        &self.facts
    }

    fn apparmor(&self) -> &dyn AppArmor {
        self
    }

    fn hostname(&self) -> String {
        "node".into()
    }

    /// Each look is one microsecond later.
    fn now(&self) -> i64 {
        self.clock.fetch_add(1000, Ordering::Relaxed)
    }
}

impl AppArmor for FakeHost {
    fn loaded(&self) -> std::io::Result<BTreeSet<String>> {
        Ok(self.state().profiles.iter().cloned().collect())
    }

    /// Knows one profile a text, by the line that begins it.
    fn load(&self, text: &str) -> std::io::Result<()> {
        let mut state = self.state();
        if state.fail.contains("load_apparmor") {
            return Err(injected());
        }
        let begin = text.lines().find_map(|line| line.strip_prefix("profile ")).unwrap_or_default();
        let name = begin.split(' ').next().filter(|name| !name.is_empty());
        state.profiles.push(name.ok_or_else(|| std::io::Error::other("no profile"))?.to_owned());
        Ok(())
    }

    fn own_profile(&self) -> String {
        "unconfined".into()
    }
}
