//! From CRI's words to the OCI runtime spec: one file a concern, no calls to the core.
//!
//! [`sandbox()`] and [`container()`] are functions of their inputs and of the files that the mounts and devices in them
//! name (sources are resolved and made when missing), so they block: call them through `shared_sys::blocking`.
//! Input that can't be served is refused with the name of the field; a feature that is not offered is refused by its
//! name, never ignored when that would weaken a container.

mod annotations;
mod apparmor;
mod apparmor_default;
mod base;
mod bounds;
mod capabilities;
mod cgroup;
mod container;
mod devices;
mod error;
mod files;
mod lsm;
mod mounts;
mod namespaces;
mod not_offered;
mod paths;
mod process;
mod propagation;
mod resources;
mod sandbox;
mod seccomp;
mod seccomp_default;
mod sysctls;
#[cfg(test)]
mod tests;
mod update;
pub mod user;

use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::Spec;
use shared_proto::cri::v1;

use crate::host::{AppArmor, HostFacts};
use crate::selinux::Label;

pub use base::{Bases, load as load_bases};
pub use cgroup::cgroup_folder;
pub use container::container;
pub use error::SpecError;
pub use files::write_files;
pub use mounts::image_volumes;
pub use paths::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};
pub use sandbox::sandbox;
pub use update::{check_limits, merge, resources_of, update};
pub use user::{User, UserRequest};

/// The lowest version that has all fields in use: crun refuses specs that are newer than itself.
const VERSION: &str = "1.0.2";
/// `unified` came after 1.0.2; both runc and crun of that time call what they read 1.0.2-dev.
const VERSION_UNIFIED: &str = "1.0.2-dev";

/// Where a sandbox keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxDirs {
    /// `<root>/io.containerd.grpc.v1.cri/sandboxes/<id>`: `hostname`, `hosts`, `resolv.conf`.
    pub root: PathBuf,
    /// `<state>/io.containerd.grpc.v1.cri/sandboxes/<id>`: `shm`.
    pub state: PathBuf,
}

/// What the spec of a pause container is made of.
#[derive(Clone, Copy)]
pub struct SandboxInput<'a> {
    pub id: &'a str,
    /// The reference of the pause image, for an annotation.
    pub image_name: &'a str,
    pub config: &'a v1::PodSandboxConfig,
    pub image: &'a ImageConfiguration,
    pub runtime: &'a shared_config::Runtime,
    pub settings: &'a shared_config::CriRuntime,
    /// `None`: the machine's network.
    pub netns: Option<&'a Path>,
    pub hostname: &'a str,
    pub dirs: &'a SandboxDirs,
    pub label: &'a Label,
    pub user: &'a User,
    pub host: &'a HostFacts,
    pub apparmor: &'a dyn AppArmor,
}

/// What the spec of a container is made of.
#[derive(Clone, Copy)]
pub struct ContainerInput<'a> {
    pub id: &'a str,
    pub sandbox_id: &'a str,
    /// Process whose namespaces the pod's containers share.
    pub sandbox_pid: u32,
    /// Process of `namespace_options.target_id`, for `NamespaceMode::Target`.
    pub target_pid: Option<u32>,
    /// `metadata.name` of the container.
    pub name: &'a str,
    /// The reference that the pod asked for, for an annotation.
    pub image_name: &'a str,
    pub config: &'a v1::ContainerConfig,
    pub sandbox: &'a v1::PodSandboxConfig,
    pub image: &'a ImageConfiguration,
    pub runtime: &'a shared_config::Runtime,
    /// What the runtime handler's `base_runtime_spec` says.
    pub base: Option<&'a Spec>,
    pub settings: &'a shared_config::CriRuntime,
    /// `None`: the machine's network.
    pub netns: Option<&'a Path>,
    pub hostname: &'a str,
    pub dirs: &'a SandboxDirs,
    /// Folders for the volumes that the image declares; see [`image_volumes`].
    pub volumes: &'a [v1::Mount],
    pub label: &'a Label,
    pub user: &'a User,
    pub host: &'a HostFacts,
    pub apparmor: &'a dyn AppArmor,
}

impl SandboxDirs {
    pub fn hostname(&self) -> PathBuf {
        self.root.join("hostname")
    }
    pub fn hosts(&self) -> PathBuf {
        self.root.join("hosts")
    }
    pub fn resolv_conf(&self) -> PathBuf {
        self.root.join("resolv.conf")
    }
    pub fn shm(&self) -> PathBuf {
        self.state.join("shm")
    }
}

/// The spec as the core stores it: JSON with sorted keys and sets, so that equal specs are equal bytes.
pub fn to_json(spec: &Spec) -> Result<Vec<u8>, SpecError> {
    let mut value = serde_json::to_value(spec).map_err(SpecError::Encode)?;
    if let Some(sets) = value.pointer_mut("/process/capabilities").and_then(|sets| sets.as_object_mut()) {
        for set in sets.values_mut().filter_map(|set| set.as_array_mut()) {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    serde_json::to_vec(&value).map_err(SpecError::Encode)
}

fn security(config: &v1::ContainerConfig) -> Option<&v1::LinuxContainerSecurityContext> {
    config.linux.as_ref()?.security_context.as_ref()
}

/// SELinux's word for a process; a privileged one has none.
fn process_label(label: &Label, privileged: bool) -> Option<String> {
    Some(label.process.clone()).filter(|label| !label.is_empty() && !privileged)
}

/// SELinux's word for what is mounted for it.
fn mount_label(label: &Label) -> Option<String> {
    Some(label.mount.clone()).filter(|label| !label.is_empty())
}

fn privileged(input: &ContainerInput) -> bool {
    security(input.config).is_some_and(|security| security.privileged)
}

/// The kernel takes no longer names.
fn check_hostname(hostname: &str) -> Result<(), SpecError> {
    if hostname.len() > 64 || hostname.contains(['\0', '\n', '/']) {
        return Err(SpecError::invalid("hostname", format!("{hostname:?} is no host name of at most 64 bytes")));
    }
    Ok(())
}
