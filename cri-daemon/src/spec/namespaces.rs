//! Which namespaces a container gets, shares or does without.
//!
//! The pause container makes the pod's namespaces (the network's is made before it, by us). A container joins them;
//! its process namespace is the pod's, its own, the machine's, or that of another container of the pod.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Kind};
use shared_proto::cri::v1::{NamespaceMode, NamespaceOption};

use super::{ContainerInput, SandboxInput, SpecError};
use crate::host::CgroupMode;

pub(super) struct Modes {
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
}

impl Modes {
    /// Reads the options at `field`; refuses numbers that CRI does not define, and user namespaces.
    pub fn of(options: Option<&NamespaceOption>, field: &str) -> Result<Self, SpecError> {
        let none = NamespaceOption::default();
        let options = options.unwrap_or(&none);
        let mode = |name: &str, number: i32| {
            NamespaceMode::try_from(number)
                .map_err(|_| SpecError::invalid(format!("{field}.{name}"), format!("no mode has the number {number}")))
        };
        if let Some(user) = &options.userns_options
            && mode("userns_options.mode", user.mode)? != NamespaceMode::Node
        {
            return Err(SpecError::Unsupported(format!("a user namespace ({field}.userns_options)")));
        }
        let modes = Self {
            network: mode("network", options.network)?,
            pid: mode("pid", options.pid)?,
            ipc: mode("ipc", options.ipc)?,
        };
        for (name, mode) in [("network", modes.network), ("ipc", modes.ipc)] {
            match mode {
                NamespaceMode::Pod | NamespaceMode::Node => {}
                NamespaceMode::Container | NamespaceMode::Target => {
                    let problem = format!("must be POD or NODE, not {}", mode.as_str_name());
                    return Err(SpecError::invalid(format!("{field}.{name}"), problem));
                }
            }
        }
        Ok(modes)
    }
}

pub(super) fn sandbox(input: &SandboxInput, modes: &Modes) -> Result<Vec<LinuxNamespace>, SpecError> {
    let mut out = vec![new(Kind::Mount)];
    match (modes.network, input.netns) {
        (NamespaceMode::Node, _) => {}
        (_, Some(netns)) => out.extend([at(Kind::Network, netns.to_owned()), new(Kind::Uts)]),
        (_, None) => return Err(SpecError::invalid("netns", "a pod with a network of its own needs one")),
    }
    match modes.ipc {
        NamespaceMode::Node => {}
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Target => out.push(new(Kind::Ipc)),
    }
    match modes.pid {
        NamespaceMode::Node => {}
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Target => out.push(new(Kind::Pid)),
    }
    Ok(out)
}

/// `pod`: the modes of the sandbox. `own`: those of the container, of which the process namespace counts.
pub(super) fn container(input: &ContainerInput, pod: &Modes, own: &Modes) -> Result<Vec<LinuxNamespace>, SpecError> {
    let of = |pid: u32, name: &str| PathBuf::from(format!("/proc/{pid}/ns/{name}"));
    let pause = input.sandbox_pid;
    let mut out = vec![new(Kind::Mount)];
    match pod.network {
        NamespaceMode::Node => {}
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Target => {
            // The bind mount holds the namespace even if the pause process is gone.
            let network = input.netns.map_or_else(|| of(pause, "net"), PathBuf::from);
            out.extend([at(Kind::Network, network), at(Kind::Uts, of(pause, "uts"))]);
        }
    }
    match pod.ipc {
        NamespaceMode::Node => {}
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Target => {
            out.push(at(Kind::Ipc, of(pause, "ipc")));
        }
    }
    match (own.pid, input.target_pid) {
        (NamespaceMode::Node, _) if pod.pid == NamespaceMode::Node => {}
        (NamespaceMode::Node, _) => {
            let field = "linux.security_context.namespace_options.pid";
            return Err(SpecError::invalid(field, "NODE needs a pod that shares the machine's processes as well"));
        }
        (NamespaceMode::Container, _) => out.push(new(Kind::Pid)),
        (NamespaceMode::Pod, _) => out.push(at(Kind::Pid, of(pause, "pid"))),
        (NamespaceMode::Target, Some(target)) => out.push(at(Kind::Pid, of(target, "pid"))),
        (NamespaceMode::Target, None) => {
            let field = "linux.security_context.namespace_options.target_id";
            return Err(SpecError::invalid(field, "names no running container of the pod"));
        }
    }
    match (input.host.cgroups, super::privileged(input)) {
        (CgroupMode::V2, false) => out.push(new(Kind::Cgroup)),
        (CgroupMode::V2, true) | (CgroupMode::V1 | CgroupMode::Hybrid, _) => {}
    }
    Ok(out)
}

fn new(kind: Kind) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace
}

fn at(kind: Kind, path: PathBuf) -> LinuxNamespace {
    let mut namespace = new(kind);
    namespace.set_path(Some(path));
    namespace
}
