//! The configuration as the daemons use it: typed, complete, the same whatever form the file had.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    pub metrics: Metrics,
    pub tracing: Tracing,
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

/// `[metrics]`: Prometheus metrics of the core, and in `loopback` and `merged` of CRI with it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// `HOST:PORT` to serve on; empty = not at all, which is the default.
    pub address: String,
}

/// Spans for an OpenTelemetry collector: containerd's `io.containerd.tracing.processor.v1.otlp` and
/// `io.containerd.internal.v1.tracing`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// URL or `HOST:PORT` of a collector that speaks OTLP over gRPC; empty = what `OTEL_EXPORTER_OTLP_ENDPOINT` says.
    pub endpoint: String,
    /// Share of traces that are kept. Default 1.
    pub sampling_ratio: f64,
}

/// `[cri]`: our own table.
#[derive(Debug, Clone, PartialEq)]
pub struct Cri {
    pub wiring: Wiring,
    /// CRI socket, in every wiring. Default `/run/cri-daemon/cri.sock`.
    pub address: PathBuf,
    /// `HOST:PORT` for the metrics of cri-daemon; empty = none. Only in `split`: otherwise the core serves them.
    pub metrics_address: String,
}

/// `io.containerd.cri.v1.images`, or its part of `io.containerd.grpc.v1.cri`.
#[derive(Debug, Clone, PartialEq)]
pub struct CriImages {
    /// Default `overlayfs`.
    pub snapshotter: String,
    /// Image of the pause container. Default `registry.k8s.io/pause:3.9`.
    pub sandbox_image: String,
    /// The other `pinned_images`, by the names that the file gives them: never collected by the kubelet either.
    pub pinned_images: BTreeMap<String, String>,
    /// `registry.config_path`: folders with `HOST/hosts.toml`, separated by `:` in the file.
    pub registry_config_dirs: Vec<PathBuf>,
    /// Layers fetched at a time in one pull. Default 3.
    pub max_concurrent_downloads: usize,
    /// Seconds without a byte after which a pull is given up; 0 = never. Default 300.
    pub image_pull_progress_timeout: Duration,
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
    pub stream_idle_timeout: Duration,
    /// `enable_tls_streaming`: streams are served over TLS only.
    pub enable_tls_streaming: bool,
    /// Without files, a certificate is made and signed with its own key at each start.
    pub x509_key_pair_streaming: KeyPair,
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
    pub drain_exec_sync_io_timeout: Duration,
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
    /// Several networks are set up one after the other instead of side by side.
    pub setup_serially: bool,
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
    /// JSON file of an OCI spec that containers' specs are put on top of; empty = none.
    pub base_runtime_spec: String,
    /// Overrides of the global settings; empty = those.
    pub snapshotter: String,
    pub cni_conf_dir: String,
    /// Counts only with `cni_conf_dir`; 0 = the global setting.
    pub cni_max_conf_num: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/core-daemon".into(),
            state: "/run/core-daemon".into(),
            grpc: Grpc { address: "/run/containerd/containerd.sock".into(), uid: 0, gid: 0 },
            log: Log { level: "info".into(), format: "text".into() },
            metrics: Metrics::default(),
            tracing: Tracing { endpoint: String::new(), sampling_ratio: 1.0 },
            cri: Cri {
                wiring: Wiring::Split,
                address: "/run/cri-daemon/cri.sock".into(),
                metrics_address: String::new(),
            },
            images: CriImages::default(),
            runtime: CriRuntime::default(),
        }
    }
}

impl Default for CriImages {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".into(),
            sandbox_image: "registry.k8s.io/pause:3.10.2".into(),
            pinned_images: BTreeMap::new(),
            registry_config_dirs: vec!["/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()],
            max_concurrent_downloads: 3,
            image_pull_progress_timeout: Duration::from_secs(300),
        }
    }
}

/// PEM files of a server: both, or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPair {
    pub tls_cert_file: PathBuf,
    pub tls_key_file: PathBuf,
}

impl Default for CriRuntime {
    fn default() -> Self {
        Self {
            cni: Cni::default(),
            default_runtime_name: "runc".into(),
            runtimes: BTreeMap::from([("runc".into(), Runtime::default())]),
            restrict_oom_score_adj: false,
            max_container_log_line_size: 16 << 10,
            stream_server_address: "127.0.0.1".into(),
            stream_server_port: "0".into(),
            stream_idle_timeout: Duration::from_secs(4 * 3600),
            enable_tls_streaming: false,
            x509_key_pair_streaming: KeyPair::default(),
            enable_unprivileged_ports: true,
            enable_unprivileged_icmp: true,
            disable_cgroup: false,
            disable_apparmor: false,
            disable_hugetlb_controller: true,
            tolerate_missing_hugetlb_controller: true,
            disable_proc_mount: false,
            ignore_image_defined_volumes: false,
            device_ownership_from_security_context: false,
            enable_selinux: false,
            selinux_category_range: 1024,
            unset_seccomp_profile: String::new(),
            netns_mounts_under_state_dir: false,
            drain_exec_sync_io_timeout: Duration::ZERO,
        }
    }
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            conf_dir: "/etc/cni/net.d".into(),
            max_conf_num: 1,
            setup_serially: false,
            conf_template: PathBuf::new(),
            ip_pref: "ipv4".into(),
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            runtime_type: "io.containerd.runc.v2".into(),
            runtime_path: String::new(),
            binary_name: String::new(),
            root: String::new(),
            systemd_cgroup: false,
            no_pivot_root: false,
            no_new_keyring: false,
            shim_cgroup: String::new(),
            io_uid: 0,
            io_gid: 0,
            privileged_without_host_devices: false,
            privileged_without_host_devices_all_devices_allowed: false,
            pod_annotations: Vec::new(),
            container_annotations: Vec::new(),
            base_runtime_spec: String::new(),
            snapshotter: String::new(),
            cni_conf_dir: String::new(),
            cni_max_conf_num: 0,
        }
    }
}

impl Wiring {
    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Wiring::Split => "split",
            Wiring::Loopback => "loopback",
            Wiring::Merged => "merged",
        }
    }
}
