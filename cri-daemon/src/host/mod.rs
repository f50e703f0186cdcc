//! What the CRI side needs from the machine it runs on, behind one trait.
//!
//! [`RealHost`] does it; [`FakeHost`] remembers what it was asked to do, for tests without root. Clean-up
//! (`remove_netns`, `unmount`) is idempotent: what is absent already is no error. Implementations block no async
//! thread.

mod apparmor;
mod error;
mod facts;
mod fake;
mod real;

use std::path::{Path, PathBuf};

pub use apparmor::{APPARMOR_PROFILES, AppArmor};
pub use error::HostError;
pub use facts::{CgroupMode, HostFacts, SelinuxContexts};
pub use fake::FakeHost;
pub use real::RealHost;

/// Size of a sandbox's `/dev/shm`, bytes.
pub const SHM_SIZE: u64 = 64 << 20;

/// The machine.
#[async_trait::async_trait]
pub trait Host: Send + Sync + 'static {
    /// Makes a network namespace, `lo` up, bound to `path`; `path` must not exist yet.
    async fn create_netns(&self, path: &Path) -> Result<(), HostError>;
    /// Unmounts and deletes what `create_netns` made.
    async fn remove_netns(&self, path: &Path) -> Result<(), HostError>;
    /// Mounts a tmpfs of `size` bytes with mode 1777 on `path`, making the folder. Mounted already: no error.
    async fn mount_shm(&self, path: &Path, size: u64) -> Result<(), HostError>;
    /// Unmounts everything that is mounted on `path`; the folder stays.
    async fn unmount(&self, path: &Path) -> Result<(), HostError>;
    /// What does not change while the daemon runs.
    fn facts(&self) -> &HostFacts;
    /// The machine's AppArmor; asked only where the facts say that it has one.
    fn apparmor(&self) -> &dyn AppArmor;
    /// The machine's host name, for pods in its network.
    fn hostname(&self) -> String;
    /// Unix time, nanoseconds.
    fn now(&self) -> i64;
}

/// A fresh path for a pod's network namespace, to be recorded before the namespace is made.
pub fn new_netns_path(config: &shared_config::Config) -> PathBuf {
    let dir = match config.runtime.netns_mounts_under_state_dir {
        true => config.state.join("netns"),
        false => "/var/run/netns".into(),
    };
    dir.join(format!("cni-{}", uuid::Uuid::new_v4()))
}
