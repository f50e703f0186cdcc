//! From CRI's words to the OCI runtime spec: one file a concern, no calls to the core.
//!
//! [`sandbox()`] and [`container()`] are functions of their inputs and of the files that the mounts and devices in them
//! name (sources are resolved and made when missing), so they block: call them through `shared_sys::blocking`.
//! Input that can't be served is refused with the name of the field; a feature that is not offered is refused by its
//! name, never ignored when that would weaken a container.

mod error;
pub mod user;

use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::Spec;
use shared_proto::cri::v1;

use crate::host::HostFacts;

pub use error::SpecError;
pub use user::{User, UserRequest};

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
    pub config: &'a v1::PodSandboxConfig,
    pub image: &'a ImageConfiguration,
    pub runtime: &'a shared_config::Runtime,
    pub settings: &'a shared_config::CriRuntime,
    /// `None`: the machine's network.
    pub netns: Option<&'a Path>,
    pub hostname: &'a str,
    pub dirs: &'a SandboxDirs,
    pub user: &'a User,
    pub host: &'a HostFacts,
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
    pub settings: &'a shared_config::CriRuntime,
    /// `None`: the machine's network.
    pub netns: Option<&'a Path>,
    pub hostname: &'a str,
    pub dirs: &'a SandboxDirs,
    /// Folders for the volumes that the image declares; see [`image_volumes`].
    pub volumes: &'a [v1::Mount],
    pub user: &'a User,
    pub host: &'a HostFacts,
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

/// Writes `hostname`, `hosts` and `resolv.conf` of a sandbox. Blocks.
pub fn write_files(dirs: &SandboxDirs, config: &v1::PodSandboxConfig, hostname: &str) -> Result<(), SpecError> {
    let _ = (dirs, config, hostname);
    Err(SpecError::Unsupported("sandbox files".into()))
}

/// The volumes of `image` that no mount of the container covers, each with a folder below `dir`. Makes no folder.
pub fn image_volumes(image: &ImageConfiguration, config: &v1::ContainerConfig, dir: &Path) -> Vec<v1::Mount> {
    let _ = (image, config, dir);
    Vec::new()
}

/// The spec of a sandbox's pause container. Blocks.
pub fn sandbox(input: &SandboxInput) -> Result<Spec, SpecError> {
    let _ = input;
    Err(SpecError::Unsupported("sandbox".into()))
}

/// The spec of a container. Blocks.
pub fn container(input: &ContainerInput) -> Result<Spec, SpecError> {
    let _ = input;
    Err(SpecError::Unsupported("container".into()))
}

/// The spec as the core stores it: JSON with sorted keys, so that equal specs are equal bytes.
pub fn to_json(spec: &Spec) -> Result<Vec<u8>, SpecError> {
    let value = serde_json::to_value(spec).map_err(SpecError::Encode)?;
    serde_json::to_vec(&value).map_err(SpecError::Encode)
}
