//! What is mounted in a container, in the order in which it has to be.
//!
//! First the kernel's file systems, then the pod's files, then the request's mounts and the image's volumes, parents
//! before children. A mount of the request replaces a default one at the same place; one at `/dev` replaces all
//! below it as well. Sources are resolved through links and made when missing, as folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::Mount;
use sha2::{Digest, Sha256};
use shared_proto::cri::v1::{self, MountPropagation, NamespaceMode};

use super::namespaces::Modes;
use super::propagation::{Propagation, of as propagation_of};
use super::{ContainerInput, SandboxInput, SpecError};
use crate::selinux;

/// Mounts, and the propagation that the root file system needs for them.
pub(super) struct Mounts {
    pub mounts: Vec<Mount>,
    pub rootfs_propagation: Option<String>,
}

fn mount(kind: &str, source: impl Into<PathBuf>, target: impl Into<PathBuf>, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_destination(target.into())
        .set_options(Some(options.iter().map(|o| o.to_string()).collect()));
    mount
}

/// The kernel's file systems. `sys`: whether `/sys` can be written.
fn kernel(sys: &str) -> Vec<Mount> {
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "devpts", "/dev/pts", &pts),
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", sys]),
    ]
}

fn shm(dirs: &super::SandboxDirs, modes: &Modes) -> PathBuf {
    match modes.ipc {
        NamespaceMode::Node => "/dev/shm".into(),
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Target => dirs.shm(),
    }
}

/// Mounts of a pause container. Its `/sys` is the first of the pod's network namespace and decides for all that
/// follow whether it can be written at all, so a privileged pod needs it writable.
pub(super) fn sandbox(input: &SandboxInput, modes: &Modes, privileged: bool) -> Vec<Mount> {
    let mut out = kernel(if privileged { "rw" } else { "ro" });
    out.push(mount("bind", shm(input.dirs, modes), "/dev/shm", &["rbind", "ro"]));
    let options = ["rbind", "ro", "nosuid", "nodev", "noexec"];
    out.push(mount("bind", input.dirs.resolv_conf(), "/etc/resolv.conf", &options));
    out
}

/// Mounts of a container. Makes missing sources.
pub(super) fn container(input: &ContainerInput, pod: &Modes) -> Result<Mounts, SpecError> {
    let sys = if super::privileged(input) { "rw" } else { "ro" };
    let of_base = input.base.and_then(|base| super::base::mounts(base, super::privileged(input)));
    let mut defaults = of_base.unwrap_or_else(|| kernel(sys));
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", sys];
    defaults.push(mount("cgroup", "cgroup", "/sys/fs/cgroup", &cgroup));

    let mut wanted = Vec::new();
    for (index, request) in input.config.mounts.iter().enumerate() {
        wanted.push(Bind::of(index, request)?);
    }
    let taken: BTreeSet<PathBuf> = wanted.iter().map(|bind| bind.target.clone()).collect();
    let own_files = files(input, pod).into_iter().chain(input.volumes.iter().map(Bind::volume));
    wanted.extend(own_files.filter(|bind| !taken.contains(&bind.target)));
    // A stable sort: the request's order decides between equals.
    wanted.sort_by_key(|bind| bind.target.components().count());

    let covered =
        |target: &Path| taken.contains(target) || (taken.contains(Path::new("/dev")) && target.starts_with("/dev"));
    let mut out = Mounts { mounts: Vec::new(), rootfs_propagation: None };
    out.mounts.extend(defaults.into_iter().filter(|mount| !covered(mount.destination())));
    for bind in wanted {
        bind.add_to(&mut out, &input.label.mount)?;
    }
    Ok(out)
}

/// A bind mount before its source is looked at.
struct Bind {
    /// Where the request names it, for errors; empty for our own.
    field: String,
    source: PathBuf,
    target: PathBuf,
    readonly: bool,
    /// Whether a source that is missing is made, as a folder.
    make: bool,
    /// Whether it gets the container's SELinux label.
    relabel: bool,
    propagation: MountPropagation,
}

/// The pod's files. A sandbox of an older daemon may lack some.
fn files(input: &ContainerInput, pod: &Modes) -> Vec<Bind> {
    let readonly = super::security(input.config).is_some_and(|s| s.readonly_rootfs);
    let dirs = input.dirs;
    let files =
        [(dirs.hostname(), "/etc/hostname"), (dirs.hosts(), "/etc/hosts"), (dirs.resolv_conf(), "/etc/resolv.conf")];
    let present = files.into_iter().filter(|(source, _)| source.exists());
    let own = |source, target, readonly| Bind { relabel: true, ..Bind::own(source, target, readonly) };
    let mut out: Vec<_> = present.map(|(source, target)| own(source, target, readonly)).collect();
    let shm = shm(dirs, pod);
    // The machine's is not ours to relabel.
    out.push(Bind { relabel: pod.ipc != NamespaceMode::Node, ..Bind::own(shm, "/dev/shm", false) });
    out
}

impl Bind {
    fn own(source: PathBuf, target: impl Into<PathBuf>, readonly: bool) -> Self {
        let propagation = MountPropagation::PropagationPrivate;
        Self { field: String::new(), source, target: target.into(), readonly, make: false, relabel: false, propagation }
    }

    fn volume(volume: &v1::Mount) -> Self {
        // Filled, and labelled, once the image's files can be read.
        let own = Self::own((&volume.host_path).into(), &volume.container_path, volume.readonly);
        Self { make: true, ..own }
    }

    fn of(index: usize, request: &v1::Mount) -> Result<Self, SpecError> {
        let field = format!("mounts[{index}]");
        let unsupported = |name: &str| Err(SpecError::Unsupported(format!("{field}.{name}")));
        if request.image.is_some() || !request.image_sub_path.is_empty() {
            return unsupported("image (an image as a volume)");
        }
        if request.recursive_read_only {
            return unsupported("recursive_read_only");
        }
        if !request.uid_mappings.is_empty() || !request.gid_mappings.is_empty() {
            return unsupported("uidMappings and gidMappings");
        }
        if !request.host_path.starts_with('/') {
            let problem = format!("{:?} is not absolute", request.host_path);
            return Err(SpecError::invalid(format!("{field}.host_path"), problem));
        }
        let propagation = MountPropagation::try_from(request.propagation).map_err(|_| {
            SpecError::invalid(
                format!("{field}.propagation"),
                format!("no propagation has the number {}", request.propagation),
            )
        })?;
        let target = clean(&request.container_path).filter(|target| target != Path::new("/")).ok_or_else(|| {
            SpecError::invalid(
                format!("{field}.container_path"),
                format!("{:?} is no place for a mount", request.container_path),
            )
        })?;
        let (readonly, relabel) = (request.readonly, request.selinux_relabel);
        Ok(Self { field, source: (&request.host_path).into(), target, readonly, make: true, relabel, propagation })
    }

    fn add_to(self, out: &mut Mounts, label: &str) -> Result<(), SpecError> {
        let failed = |what| {
            let path = self.source.clone();
            move |source| SpecError::Io { what, path, source }
        };
        if self.make && !self.source.exists() {
            fs::create_dir_all(&self.source).map_err(failed("make the missing mount source"))?;
        }
        let source = fs::canonicalize(&self.source).map_err(failed("resolve the mount source"))?;
        if self.relabel && !label.is_empty() {
            selinux::relabel(&source, label)?;
        }
        let (propagation, root) = match self.propagation {
            MountPropagation::PropagationPrivate => ("rprivate", None),
            MountPropagation::PropagationHostToContainer => {
                self.needs(&source, &[Propagation::Shared, Propagation::Slave])?;
                ("rslave", Some("rslave"))
            }
            MountPropagation::PropagationBidirectional => {
                self.needs(&source, &[Propagation::Shared])?;
                ("rshared", Some("rshared"))
            }
        };
        match (root, out.rootfs_propagation.as_deref()) {
            (Some("rslave"), Some("rshared")) | (None, _) => {}
            (Some(root), _) => out.rootfs_propagation = Some(root.to_owned()),
        }
        let access = if self.readonly { "ro" } else { "rw" };
        out.mounts.push(mount("bind", source, self.target, &["rbind", propagation, access]));
        Ok(())
    }

    /// Mounts only propagate from a source whose own mount does.
    fn needs(&self, source: &Path, wanted: &[Propagation]) -> Result<(), SpecError> {
        let (mount_point, found) = propagation_of(source)?;
        if wanted.contains(&found) {
            return Ok(());
        }
        let problem = format!(
            "{} needs {} to be on a {} mount, but {} is {}",
            self.propagation.as_str_name(),
            source.display(),
            wanted.iter().map(|p| p.name()).collect::<Vec<_>>().join(" or "),
            mount_point.display(),
            found.name()
        );
        Err(SpecError::invalid(format!("{}.propagation", self.field), problem))
    }
}

/// An absolute path without `.`, `..` and doubled slashes; `None` for an empty one.
fn clean(path: &str) -> Option<PathBuf> {
    if path.is_empty() || path.contains('\0') {
        return None;
    }
    let mut out = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(out)
}

/// The volumes of `image` that no mount of the container covers, each with a folder below `dir`. Makes no folder.
pub fn image_volumes(image: &ImageConfiguration, config: &v1::ContainerConfig, dir: &Path) -> Vec<v1::Mount> {
    let covered: BTreeSet<_> = config.mounts.iter().filter_map(|mount| clean(&mount.container_path)).collect();
    let declared = image.config().as_ref().and_then(|config| config.volumes().clone()).unwrap_or_default();
    let targets: BTreeSet<_> = declared.iter().filter_map(|volume| clean(volume)).collect();
    let volume = |target: &PathBuf| v1::Mount {
        container_path: target.to_string_lossy().into_owned(),
        host_path: dir
            .join(hex::encode(Sha256::digest(target.as_os_str().as_encoded_bytes())))
            .to_string_lossy()
            .into_owned(),
        selinux_relabel: true,
        ..Default::default()
    };
    targets.difference(&covered).filter(|target| *target != Path::new("/")).map(volume).collect()
}
