//! The one TOML file that both daemons read.
//!
//! It is read as containerd reads its own (versions 2 and 3), plus the table `[cri]`, which is ours. Whatever the
//! version, the result is one [`Config`] with every default filled in; nothing outside this crate knows TOML.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How CRI reaches the core: `[cri] wiring`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wiring {
    #[default]
    Split,
    Loopback,
    Merged,
}

/// Everything that can be configured, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Persistent data. Default `/var/lib/core-daemon`.
    pub root: PathBuf,
    /// Data that a reboot may lose: bundles, FIFOs. Default `/run/core-daemon`.
    pub state: PathBuf,
    pub grpc: Grpc,
    pub log: Log,
    pub cri: Cri,
    pub images: CriImages,
    pub runtime: CriRuntime,
}

/// `[grpc]`: the core's socket. The ttrpc socket for shims is beside it, with the suffix `.ttrpc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Grpc {
    /// Default `/run/containerd/containerd.sock`.
    pub address: PathBuf,
    pub uid: u32,
    pub gid: u32,
}

/// `[debug]`: what is logged, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `trace`, `debug`, `info`, `warn` or `error`. Default `info`.
    pub level: String,
    /// `text` or `json`. Default `text`.
    pub format: String,
}

/// `[cri]`: our own table.
#[derive(Debug, Clone, PartialEq)]
pub struct Cri {
    pub wiring: Wiring,
    /// CRI socket, in every wiring. Default `/run/cri-daemon/cri.sock`.
    pub address: PathBuf,
}

/// `io.containerd.cri.v1.images`, or its part of `io.containerd.grpc.v1.cri`.
#[derive(Debug, Clone, PartialEq)]
pub struct CriImages {
    /// Default `overlayfs`.
    pub snapshotter: String,
    /// Image of the pause container. Default `registry.k8s.io/pause:3.9`.
    pub sandbox_image: String,
    /// `registry.config_path`: folders with `HOST/hosts.toml`, separated by `:` in the file.
    pub registry_config_dirs: Vec<PathBuf>,
    /// Layers fetched at a time in one pull. Default 3.
    pub max_concurrent_downloads: usize,
    /// Seconds without a byte after which a pull is given up; 0 = never. Default 300.
    pub image_pull_progress_timeout: std::time::Duration,
}

/// `io.containerd.cri.v1.runtime`, or its part of `io.containerd.grpc.v1.cri`.
#[derive(Debug, Clone, PartialEq)]
pub struct CriRuntime {
    pub cni: Cni,
    /// `containerd.default_runtime_name`. Default `runc`.
    pub default_runtime_name: String,
    /// `containerd.runtimes.NAME`. Always holds the default runtime.
    pub runtimes: BTreeMap<String, Runtime>,
    /// `restrict_oom_score_adj`: never go below our own score. Also done, with one warning, without the capability.
    pub restrict_oom_score_adj: bool,
    /// `max_container_log_line_size`, bytes; longer lines are split. Default 16384; -1 = no limit.
    pub max_container_log_line_size: i64,
    pub stream_server_address: String,
    pub stream_server_port: String,
    pub stream_idle_timeout: std::time::Duration,
    pub enable_unprivileged_ports: bool,
    pub enable_unprivileged_icmp: bool,
    pub disable_cgroup: bool,
    pub disable_apparmor: bool,
    pub disable_hugetlb_controller: bool,
    pub tolerate_missing_hugetlb_controller: bool,
    pub disable_proc_mount: bool,
    pub ignore_image_defined_volumes: bool,
    pub device_ownership_from_security_context: bool,
    pub enable_selinux: bool,
    pub selinux_category_range: u32,
    /// `unset_seccomp_profile`: profile for containers that name none. Default empty (unconfined).
    pub unset_seccomp_profile: String,
    pub netns_mounts_under_state_dir: bool,
    pub drain_exec_sync_io_timeout: std::time::Duration,
}

/// `cni` of the CRI sections.
#[derive(Debug, Clone, PartialEq)]
pub struct Cni {
    /// `bin_dirs` or `bin_dir`. Default `/opt/cni/bin`, `/usr/lib/cni`.
    pub bin_dirs: Vec<PathBuf>,
    /// Default `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Networks used, from the first file in name order; 0 = all. Default 1.
    pub max_conf_num: usize,
    /// Template rendered when the kubelet sends its pod CIDR; empty = none.
    pub conf_template: PathBuf,
    /// Which address is the pod's first: `ipv4`, `ipv6` or `cni`.
    pub ip_pref: String,
}

/// One entry of `containerd.runtimes`.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// For example `io.containerd.runc.v2`.
    pub runtime_type: String,
    /// Path of the shim's binary; empty = found by `runtime_type` in `PATH`.
    pub runtime_path: String,
    /// `options.BinaryName`: the OCI runtime; empty = the shim's default, `runc`.
    pub binary_name: String,
    /// `options.Root`: state folder of the OCI runtime; empty = the shim's default.
    pub root: String,
    /// `options.SystemdCgroup`.
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub shim_cgroup: String,
    pub io_uid: u32,
    pub io_gid: u32,
    pub privileged_without_host_devices: bool,
    pub privileged_without_host_devices_all_devices_allowed: bool,
    /// Annotation globs passed from the pod and from the container into the OCI spec.
    pub pod_annotations: Vec<String>,
    pub container_annotations: Vec<String>,
    /// Base OCI spec file; empty = built in.
    pub base_runtime_spec: String,
    /// Overrides of the global settings; empty = those.
    pub snapshotter: String,
    pub cni_conf_dir: String,
    pub cni_max_conf_num: usize,
}
