//! The file as it is written: every key optional, containerd's names.
//!
//! Version 2 keeps all of CRI in one section, version 3 splits it into images, runtime and server. Keys of
//! containerd that mean nothing here are not listed: the loader names them in a warning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct File {
    pub version: Option<u32>,
    pub root: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub grpc: GrpcSection,
    pub debug: DebugSection,
    pub metrics: MetricsSection,
    pub cri: CriSection,
    pub plugins: Plugins,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GrpcSection {
    pub address: Option<PathBuf>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DebugSection {
    pub level: Option<Level>,
    pub format: Option<Format>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MetricsSection {
    pub address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OtlpSection {
    pub endpoint: Option<String>,
    pub protocol: Option<OtlpProtocol>,
    pub insecure: Option<bool>,
}

/// What a collector can be told in.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum OtlpProtocol {
    #[serde(rename = "grpc", alias = "")]
    Grpc,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TracingSection {
    pub sampling_ratio: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    #[serde(alias = "warning")]
    Warn,
    #[serde(alias = "fatal", alias = "panic")]
    Error,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[serde(alias = "")]
    Text,
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CriSection {
    pub wiring: Option<WiringName>,
    pub address: Option<PathBuf>,
    pub metrics_address: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WiringName {
    Split,
    Loopback,
    Merged,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Plugins {
    /// Version 2: everything. Version 3: the stream server.
    #[serde(rename = "io.containerd.grpc.v1.cri")]
    pub cri: Section,
    #[serde(rename = "io.containerd.cri.v1.images")]
    pub images: Section,
    #[serde(rename = "io.containerd.cri.v1.runtime")]
    pub runtime: Section,
    #[serde(rename = "io.containerd.tracing.processor.v1.otlp")]
    pub otlp: OtlpSection,
    #[serde(rename = "io.containerd.internal.v1.tracing")]
    pub tracing: TracingSection,
}

/// The keys of all three CRI sections. Which section a key stands in is the difference between the versions; reading
/// them with one type lets both be understood.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Section {
    // Images.
    pub snapshotter: Option<String>,
    pub sandbox_image: Option<String>,
    pub pinned_images: BTreeMap<String, String>,
    pub registry: Registry,
    pub max_concurrent_downloads: Option<usize>,
    pub image_pull_progress_timeout: Option<GoDuration>,
    // Runtime.
    pub containerd: Containerd,
    pub cni: CniSection,
    pub restrict_oom_score_adj: Option<bool>,
    pub max_container_log_line_size: Option<i64>,
    pub enable_unprivileged_ports: Option<bool>,
    pub enable_unprivileged_icmp: Option<bool>,
    pub disable_cgroup: Option<bool>,
    pub disable_apparmor: Option<bool>,
    pub disable_hugetlb_controller: Option<bool>,
    pub tolerate_missing_hugetlb_controller: Option<bool>,
    pub disable_proc_mount: Option<bool>,
    pub ignore_image_defined_volumes: Option<bool>,
    pub device_ownership_from_security_context: Option<bool>,
    pub enable_selinux: Option<bool>,
    pub selinux_category_range: Option<u32>,
    pub unset_seccomp_profile: Option<String>,
    pub netns_mounts_under_state_dir: Option<bool>,
    pub drain_exec_sync_io_timeout: Option<GoDuration>,
    // Server.
    pub stream_server_address: Option<String>,
    pub stream_server_port: Option<String>,
    pub stream_idle_timeout: Option<GoDuration>,
    pub enable_tls_streaming: Option<bool>,
    pub x509_key_pair_streaming: KeyPair,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeyPair {
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Registry {
    pub config_path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Containerd {
    /// Version 2 keeps the snapshotter here.
    pub snapshotter: Option<String>,
    pub default_runtime_name: Option<String>,
    pub runtimes: BTreeMap<String, RuntimeSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeSection {
    pub runtime_type: Option<String>,
    pub runtime_path: Option<String>,
    pub pod_annotations: Vec<String>,
    pub container_annotations: Vec<String>,
    pub privileged_without_host_devices: bool,
    pub privileged_without_host_devices_all_devices_allowed: bool,
    pub base_runtime_spec: String,
    pub snapshotter: String,
    pub cni_conf_dir: String,
    pub cni_max_conf_num: usize,
    pub options: RuntimeOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct RuntimeOptions {
    pub binary_name: String,
    pub root: String,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub shim_cgroup: String,
    pub io_uid: u32,
    pub io_gid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CniSection {
    pub bin_dir: Option<PathBuf>,
    pub bin_dirs: Option<Vec<PathBuf>>,
    pub conf_dir: Option<PathBuf>,
    pub max_conf_num: Option<usize>,
    pub setup_serially: Option<bool>,
    pub conf_template: Option<PathBuf>,
    pub ip_pref: Option<IpPref>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IpPref {
    #[serde(alias = "")]
    Ipv4,
    Ipv6,
    Cni,
}

/// A duration as Go writes it: `4h`, `1m30s`, `500ms`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoDuration(pub std::time::Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(GoDuration).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is no duration like \"4h\", \"1m30s\" or \"500ms\""))
        })
    }
}

/// A duration as Go writes it: `4h`, `1m30s`, `500ms`, `0`.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    if text == "0" || text.is_empty() {
        return Some(std::time::Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        nanos += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Some(std::time::Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse_duration;

    #[test]
    fn reads_go_durations() {
        assert_eq!(parse_duration("4h0m0s"), Some(Duration::from_secs(14400)));
        assert_eq!(parse_duration("1m30.5s"), Some(Duration::from_millis(90500)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for bad in ["5", "5x", "h", "-1s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
