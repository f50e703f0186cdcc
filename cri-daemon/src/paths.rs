//! Where CRI keeps its files. The same in every wiring, and containerd's own layout.

use std::path::PathBuf;

use shared_config::Config;

use crate::spec::SandboxDirs;

/// Name of our folder below the root and the state folder.
const PLUGIN: &str = "io.containerd.grpc.v1.cri";

/// Files of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDirs {
    /// `<root>/io.containerd.grpc.v1.cri/containers/<id>`: `status`, `volumes`.
    pub root: PathBuf,
    /// `<state>/io.containerd.grpc.v1.cri/containers/<id>`: `io`.
    pub state: PathBuf,
}

impl ContainerDirs {
    pub fn status(&self) -> PathBuf {
        self.root.join("status")
    }
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
    pub fn io(&self) -> PathBuf {
        self.state.join("io")
    }
}

/// Makes the folders that all pods share, so that pods leave none behind. Blocking.
pub fn prepare(config: &Config) -> std::io::Result<()> {
    let shared = [sandboxes_root(config), sandboxes_state(config), containers_root(config), containers_state(config)];
    shared.iter().try_for_each(std::fs::create_dir_all)
}

pub fn sandbox(config: &Config, id: &str) -> SandboxDirs {
    SandboxDirs { root: sandboxes_root(config).join(id), state: sandboxes_state(config).join(id) }
}

pub fn container(config: &Config, id: &str) -> ContainerDirs {
    ContainerDirs { root: containers_root(config).join(id), state: containers_state(config).join(id) }
}

/// The folders whose entries are named after ids, for the search for orphans: sandboxes, then containers.
pub fn by_id(config: &Config) -> ([PathBuf; 2], [PathBuf; 2]) {
    ([sandboxes_root(config), sandboxes_state(config)], [containers_root(config), containers_state(config)])
}

/// The socket of the process that keeps FIFOs open.
pub fn keeper(config: &Config) -> PathBuf {
    config.state.join(PLUGIN).join("fifos.sock")
}

fn sandboxes_root(config: &Config) -> PathBuf {
    config.root.join(PLUGIN).join("sandboxes")
}
fn sandboxes_state(config: &Config) -> PathBuf {
    config.state.join(PLUGIN).join("sandboxes")
}
fn containers_root(config: &Config) -> PathBuf {
    config.root.join(PLUGIN).join("containers")
}
fn containers_state(config: &Config) -> PathBuf {
    config.state.join(PLUGIN).join("containers")
}
