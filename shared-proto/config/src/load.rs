//! Reads the file, and says by file and line what is wrong with it.
//!
//! A key that nobody here knows is a warning: files made for containerd keep working. A wrong type or value is an
//! error: a node must not start with half of what its operator wrote.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::file::{File, Format, IpPref, Level, OtlpProtocol, OtlpSection, RuntimeSection, Section, WiringName};
use crate::model::{Config, CriRuntime, Runtime, Wiring};

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: {message}")]
    Invalid { path: PathBuf, line: usize, message: String },
}

/// Something in the file that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub path: PathBuf,
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Reads the file at `path`.
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Reads `text`; `path` is only named in messages.
pub fn parse(text: &str, path: &Path) -> Result<(Config, Vec<Warning>), ConfigError> {
    let source = Source { text, path };
    let mut unknown = Vec::new();
    let deserializer = toml::Deserializer::parse(text).map_err(|e| source.error(&e))?;
    let file: File =
        serde_ignored::deserialize(deserializer, |key| unknown.push(segments(&key))).map_err(|e| source.error(&e))?;

    match file.version {
        // 0 is what dockerd writes, for the core that it starts itself: of a file of version 1, only what all have.
        None | Some(0 | 2 | 3) => {}
        Some(other) => {
            let line = source.line_of_key(&["version".into()]);
            return Err(source.invalid(line, format!("version = {other} is not supported: write 2 or 3")));
        }
    }
    let mut warnings: Vec<_> = unknown.iter().map(|key| source.unknown(key)).collect();
    warnings.sort_by_key(|warning| warning.line);
    let config = resolve(file, &source)?;
    Ok((config, warnings))
}

struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Source<'_> {
    fn line_at(&self, offset: usize) -> usize {
        self.text[..offset.min(self.text.len())].bytes().filter(|&b| b == b'\n').count() + 1
    }

    fn invalid(&self, line: usize, message: String) -> ConfigError {
        ConfigError::Invalid { path: self.path.to_owned(), line, message }
    }

    fn error(&self, e: &toml::de::Error) -> ConfigError {
        let line = e.span().map_or(1, |span| self.line_at(span.start));
        let message = e.message().trim().replace('\n', "; ");
        let written = self.text.lines().nth(line - 1).and_then(|l| l.split_once('='));
        self.invalid(
            line,
            match written {
                Some((key, _)) => format!("{}: {message}", key.trim()),
                None => message,
            },
        )
    }

    fn unknown(&self, key: &[String]) -> Warning {
        let message = format!("unknown key {:?} is ignored", key.join("."));
        Warning { path: self.path.to_owned(), line: self.line_of_key(key), message }
    }

    /// The line of a key, or of its nearest ancestor that is written out; 1 when there is none.
    fn line_of_key(&self, key: &[String]) -> usize {
        let Ok(table) = toml::de::DeTable::parse(self.text) else { return 1 };
        let mut table = table.into_inner();
        let mut offset = 0;
        for segment in key {
            let Some(found) = table.keys().find(|k| k.get_ref() == segment.as_str()).cloned() else { break };
            offset = found.span().start;
            match table.remove(&found).map(toml::Spanned::into_inner) {
                Some(toml::de::DeValue::Table(inner)) => table = inner,
                _ => break,
            }
        }
        self.line_at(offset)
    }
}

/// The segments of an ignored key's path; array positions are left out.
fn segments(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path;
    match path {
        Path::Root => Vec::new(),
        Path::Map { parent, key } => {
            let mut all = segments(parent);
            all.push(key.clone());
            all
        }
        Path::Seq { parent, .. }
        | Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => segments(parent),
    }
}

/// Overwrites `target` where the file says something.
fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn resolve(file: File, source: &Source<'_>) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    set(&mut config.root, file.root);
    set(&mut config.state, file.state);
    set(&mut config.grpc.address, file.grpc.address);
    set(&mut config.grpc.uid, file.grpc.uid);
    set(&mut config.grpc.gid, file.grpc.gid);
    set(&mut config.log.level, file.debug.level.map(level_name));
    set(&mut config.log.format, file.debug.format.map(format_name));
    set(&mut config.metrics.address, file.metrics.address);
    set(&mut config.tracing.sampling_ratio, file.plugins.tracing.sampling_ratio);
    otlp(&mut config, file.plugins.otlp, source)?;
    set(&mut config.cri.address, file.cri.address);
    set(&mut config.cri.metrics_address, file.cri.metrics_address);
    set(
        &mut config.cri.wiring,
        file.cri.wiring.map(|w| match w {
            WiringName::Split => Wiring::Split,
            WiringName::Loopback => Wiring::Loopback,
            WiringName::Merged => Wiring::Merged,
        }),
    );
    // Later sections win; a file normally has the one (version 2) or the others (version 3).
    for section in [file.plugins.cri, file.plugins.images, file.plugins.runtime] {
        apply_section(&mut config, section);
    }
    check(&config, source)?;
    Ok(config)
}

/// Spans are sent unencrypted: a collector is normally a neighbour. Anything else is refused by name.
fn otlp(config: &mut Config, section: OtlpSection, source: &Source<'_>) -> Result<(), ConfigError> {
    set(&mut config.tracing.endpoint, section.endpoint);
    let OtlpProtocol::Grpc = section.protocol.unwrap_or(OtlpProtocol::Grpc);
    let endpoint = &config.tracing.endpoint;
    if endpoint.starts_with("https://") || (!endpoint.is_empty() && section.insecure == Some(false)) {
        let message =
            format!("endpoint {endpoint:?}: collectors over TLS are not supported; write http:// and insecure = true");
        return Err(source.invalid(source.line_of_text(endpoint), message));
    }
    Ok(())
}

fn level_name(level: Level) -> String {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
    .into()
}

fn format_name(format: Format) -> String {
    match format {
        Format::Text => "text",
        Format::Json => "json",
    }
    .into()
}

fn apply_section(config: &mut Config, section: Section) {
    let images = &mut config.images;
    set(&mut images.snapshotter, section.containerd.snapshotter.filter(|s| !s.is_empty()));
    set(&mut images.snapshotter, section.snapshotter.filter(|s| !s.is_empty()));
    set(&mut images.sandbox_image, section.sandbox_image);
    for (name, image) in section.pinned_images {
        match name.as_str() {
            "sandbox" => images.sandbox_image = image,
            _ => drop(images.pinned_images.insert(name, image)),
        }
    }
    set(&mut images.registry_config_dirs, section.registry.config_path.map(|path| split_paths(&path)));
    set(&mut images.max_concurrent_downloads, section.max_concurrent_downloads);
    set(&mut images.image_pull_progress_timeout, section.image_pull_progress_timeout.map(|d| d.0));

    let runtime = &mut config.runtime;
    set(&mut runtime.default_runtime_name, section.containerd.default_runtime_name.filter(|n| !n.is_empty()));
    for (name, entry) in section.containerd.runtimes {
        runtime.runtimes.insert(name, runtime_entry(entry));
    }
    let cni = &mut runtime.cni;
    set(&mut cni.bin_dirs, section.cni.bin_dir.map(|dir| vec![dir]));
    set(&mut cni.bin_dirs, section.cni.bin_dirs);
    set(&mut cni.conf_dir, section.cni.conf_dir);
    set(&mut cni.max_conf_num, section.cni.max_conf_num);
    set(&mut cni.setup_serially, section.cni.setup_serially);
    set(&mut cni.conf_template, section.cni.conf_template);
    set(
        &mut cni.ip_pref,
        section.cni.ip_pref.map(|p| match p {
            IpPref::Ipv4 => "ipv4".into(),
            IpPref::Ipv6 => "ipv6".into(),
            IpPref::Cni => "cni".into(),
        }),
    );
    set(&mut runtime.restrict_oom_score_adj, section.restrict_oom_score_adj);
    set(&mut runtime.max_container_log_line_size, section.max_container_log_line_size);
    set(&mut runtime.enable_unprivileged_ports, section.enable_unprivileged_ports);
    set(&mut runtime.enable_unprivileged_icmp, section.enable_unprivileged_icmp);
    set(&mut runtime.disable_cgroup, section.disable_cgroup);
    set(&mut runtime.disable_apparmor, section.disable_apparmor);
    set(&mut runtime.disable_hugetlb_controller, section.disable_hugetlb_controller);
    set(&mut runtime.tolerate_missing_hugetlb_controller, section.tolerate_missing_hugetlb_controller);
    set(&mut runtime.disable_proc_mount, section.disable_proc_mount);
    set(&mut runtime.ignore_image_defined_volumes, section.ignore_image_defined_volumes);
    set(&mut runtime.device_ownership_from_security_context, section.device_ownership_from_security_context);
    set(&mut runtime.enable_selinux, section.enable_selinux);
    set(&mut runtime.selinux_category_range, section.selinux_category_range);
    set(&mut runtime.unset_seccomp_profile, section.unset_seccomp_profile);
    set(&mut runtime.netns_mounts_under_state_dir, section.netns_mounts_under_state_dir);
    set(&mut runtime.drain_exec_sync_io_timeout, section.drain_exec_sync_io_timeout.map(|d| d.0));
    set(&mut runtime.stream_server_address, section.stream_server_address);
    set(&mut runtime.stream_server_port, section.stream_server_port);
    set(&mut runtime.stream_idle_timeout, section.stream_idle_timeout.map(|d| d.0));
    set(&mut runtime.enable_tls_streaming, section.enable_tls_streaming);
    set(&mut runtime.x509_key_pair_streaming.tls_cert_file, section.x509_key_pair_streaming.tls_cert_file);
    set(&mut runtime.x509_key_pair_streaming.tls_key_file, section.x509_key_pair_streaming.tls_key_file);
}

fn runtime_entry(entry: RuntimeSection) -> Runtime {
    Runtime {
        runtime_type: entry.runtime_type.unwrap_or_else(|| Runtime::default().runtime_type),
        runtime_path: entry.runtime_path.unwrap_or_default(),
        binary_name: entry.options.binary_name,
        root: entry.options.root,
        systemd_cgroup: entry.options.systemd_cgroup,
        no_pivot_root: entry.options.no_pivot_root,
        no_new_keyring: entry.options.no_new_keyring,
        shim_cgroup: entry.options.shim_cgroup,
        io_uid: entry.options.io_uid,
        io_gid: entry.options.io_gid,
        privileged_without_host_devices: entry.privileged_without_host_devices,
        privileged_without_host_devices_all_devices_allowed: entry.privileged_without_host_devices_all_devices_allowed,
        pod_annotations: entry.pod_annotations,
        container_annotations: entry.container_annotations,
        base_runtime_spec: entry.base_runtime_spec,
        snapshotter: entry.snapshotter,
        cni_conf_dir: entry.cni_conf_dir,
        cni_max_conf_num: entry.cni_max_conf_num,
    }
}

fn split_paths(list: &str) -> Vec<PathBuf> {
    list.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect()
}

/// Values that are well formed but can't work together.
fn check(config: &Config, source: &Source<'_>) -> Result<(), ConfigError> {
    let CriRuntime { default_runtime_name: name, runtimes, .. } = &config.runtime;
    if !runtimes.contains_key(name) {
        let known: Vec<_> = runtimes.keys().map(String::as_str).collect();
        let message = format!("default_runtime_name {name:?} is not one of the runtimes: {}", known.join(", "));
        return Err(source.invalid(source.line_of_text("default_runtime_name"), message));
    }
    let pair = &config.runtime.x509_key_pair_streaming;
    let (cert, key) = (!pair.tls_cert_file.as_os_str().is_empty(), !pair.tls_key_file.as_os_str().is_empty());
    if cert != key {
        let message = "x509_key_pair_streaming: tls_cert_file and tls_key_file go together".to_owned();
        return Err(source.invalid(source.line_of_text("x509_key_pair_streaming"), message));
    }
    if cert && !config.runtime.enable_tls_streaming {
        let message = "x509_key_pair_streaming: enable_tls_streaming must be true for it to be of use".to_owned();
        return Err(source.invalid(source.line_of_text("x509_key_pair_streaming"), message));
    }
    for (key, path) in [
        ("root", &config.root),
        ("state", &config.state),
        ("address", &config.grpc.address),
        ("address", &config.cri.address),
    ] {
        if !path.is_absolute() {
            let message = format!("{key} must be an absolute path, not {:?}", path.display().to_string());
            return Err(source.invalid(source.line_of_text(&path.display().to_string()), message));
        }
    }
    for (key, address) in [("address", &config.metrics.address), ("metrics_address", &config.cri.metrics_address)] {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if !address.is_empty() && port.is_none() {
            let message = format!("{key} must be HOST:PORT, not {address:?}");
            return Err(source.invalid(source.line_of_text(address), message));
        }
    }
    if !(0.0..=1.0).contains(&config.tracing.sampling_ratio) {
        let message = format!("sampling_ratio must be from 0 to 1, not {}", config.tracing.sampling_ratio);
        return Err(source.invalid(source.line_of_text("sampling_ratio"), message));
    }
    if config.images.max_concurrent_downloads == 0 {
        let line = source.line_of_text("max_concurrent_downloads");
        return Err(source.invalid(line, "max_concurrent_downloads must be at least 1".into()));
    }
    Ok(())
}

impl Source<'_> {
    /// The first line that holds `text`; for values whose key may stand in either of two sections.
    fn line_of_text(&self, text: &str) -> usize {
        self.text.find(text).map_or(1, |offset| self.line_at(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Config, Vec<Warning>) {
        parse(text, Path::new("c.toml")).unwrap()
    }

    fn refused(text: &str) -> String {
        parse(text, Path::new("c.toml")).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parsed(""), (Config::default(), vec![]));
    }

    #[test]
    fn versions_two_and_three_say_the_same() {
        let two = r#"
version = 2
root = "/r"
[grpc]
address = "/g.sock"
[cri]
wiring = "merged"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.9"
restrict_oom_score_adj = true
max_container_log_line_size = 100
stream_idle_timeout = "1m30s"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "crun"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
BinaryName = "/usr/bin/crun"
SystemdCgroup = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/cni/bin"
conf_dir = "/cni/conf"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/a:/b"
"#;
        let three = r#"
version = 3
root = "/r"
[grpc]
address = "/g.sock"
[cri]
wiring = "merged"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.9"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/a:/b"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
max_container_log_line_size = 100
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "crun"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun.options]
BinaryName = "/usr/bin/crun"
SystemdCgroup = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/cni/bin"]
conf_dir = "/cni/conf"
[plugins."io.containerd.grpc.v1.cri"]
stream_idle_timeout = "1m30s"
"#;
        let (config, warnings) = parsed(two);
        assert_eq!(warnings, vec![]);
        assert_eq!(config, parsed(three).0);
        assert_eq!(config.cri.wiring, Wiring::Merged);
        assert_eq!(config.runtime.runtimes["crun"].binary_name, "/usr/bin/crun");
        assert!(config.runtime.runtimes["crun"].systemd_cgroup);
        assert_eq!(config.images.registry_config_dirs, [PathBuf::from("/a"), "/b".into()]);
    }

    #[test]
    fn unknown_keys_are_named_with_their_line() {
        let (_, warnings) = parsed(
            "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dri = \"/x\"\n[ttrpc]\naddress = \"\"\n",
        );
        let shown: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "c.toml:4: unknown key \"plugins.io.containerd.grpc.v1.cri.cni.bin_dri\" is ignored",
                "c.toml:5: unknown key \"ttrpc\" is ignored"
            ]
        );
    }

    /// The file that Docker Engine 20.10 writes for a containerd of its own, shortened.
    #[test]
    fn dockerds_own_file_is_understood() {
        let (config, warnings) = parsed(
            "version = 0\nroot = \"/r\"\nstate = \"/s\"\nplugin_dir = \"\"\ndisabled_plugins = [\"cri\"]\noom_score = 0\n\
             [grpc]\naddress = \"/c.sock\"\ntcp_address = \"\"\nuid = 0\n[debug]\nlevel = \"info\"\nformat = \"\"\n\
             [metrics]\naddress = \"\"\n[cgroup]\npath = \"\"\n[plugins.linux]\nshim = \"containerd-shim\"\n",
        );
        let grpc = crate::model::Grpc { address: "/c.sock".into(), ..Config::default().grpc };
        assert_eq!(config, Config { root: "/r".into(), state: "/s".into(), grpc, ..Config::default() });
        assert_eq!(warnings.len(), 6, "{warnings:?}");
    }

    /// Features of containerd that are not offered: the file works, and says what of it does not.
    #[test]
    fn what_is_not_offered_is_named() {
        let (_, warnings) = parsed(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = true\nenable_criu = true\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = false\n",
        );
        let shown: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        let of = |line: u8, key: &str| format!("c.toml:{line}: unknown key \"plugins.io.containerd.{key}\" is ignored");
        assert_eq!(shown, [of(2, "grpc.v1.cri.enable_cdi"), of(3, "grpc.v1.cri.enable_criu"), of(4, "nri.v1.nri")]);
    }

    #[test]
    fn wrong_types_and_values_are_errors_with_their_line() {
        assert!(refused("root = \"/r\"\nstate = 5\n").starts_with("c.toml:2: "));
        assert!(refused("[cri]\nwiring = \"both\"\n").starts_with("c.toml:2: "));
        assert!(refused("version = 1\n").contains("version = 1 is not supported"));
        assert!(refused("\nroot = \"r\"\n").starts_with("c.toml:2: root must be an absolute path"));
        let e = refused("[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"kata\"\n");
        assert!(e.starts_with("c.toml:2: default_runtime_name \"kata\""), "{e}");
        assert!(refused("root = \n").starts_with("c.toml:1: "));
    }

    #[test]
    fn metrics_and_traces() {
        let (config, warnings) = parsed(
            r#"
[metrics]
address = "127.0.0.1:1338"
[cri]
metrics_address = "127.0.0.1:1339"
[plugins."io.containerd.tracing.processor.v1.otlp"]
endpoint = "localhost:4317"
protocol = "grpc"
insecure = true
[plugins."io.containerd.internal.v1.tracing"]
sampling_ratio = 0.25
"#,
        );
        assert_eq!(warnings, vec![]);
        assert_eq!(
            (config.metrics.address.as_str(), config.cri.metrics_address.as_str()),
            ("127.0.0.1:1338", "127.0.0.1:1339")
        );
        assert_eq!((config.tracing.endpoint.as_str(), config.tracing.sampling_ratio), ("localhost:4317", 0.25));
        assert_eq!(parsed(&crate::render(&config)).0, config);

        assert!(refused("[metrics]\naddress = \"here\"\n").starts_with("c.toml:2: address must be HOST:PORT"));
        let otlp = |rest: &str| refused(&format!("[plugins.\"io.containerd.tracing.processor.v1.otlp\"]\n{rest}\n"));
        assert!(otlp("protocol = \"http/protobuf\"").contains("http/protobuf"));
        assert!(otlp("endpoint = \"https://x:1\"").starts_with("c.toml:2: endpoint \"https://x:1\""));
        let tracing = refused("[plugins.\"io.containerd.internal.v1.tracing\"]\nsampling_ratio = 2.0\n");
        assert!(tracing.starts_with("c.toml:2: sampling_ratio"), "{tracing}");
    }

    #[test]
    fn every_pinned_image_is_kept() {
        let text =
            "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"a/p:1\"\n\"my agent\" = \"a/b:2\"\n";
        let (config, warnings) = parsed(text);
        assert_eq!(warnings, vec![]);
        assert_eq!(config.images.sandbox_image, "a/p:1");
        assert_eq!(config.images.pinned_images["my agent"], "a/b:2");
        assert_eq!(parsed(&crate::render(&config)).0, config);
    }

    #[test]
    fn what_is_rendered_reads_back_the_same() {
        let (config, warnings) = parsed(&crate::render(&Config::default()));
        assert_eq!((config, warnings), (Config::default(), vec![]));
    }
}
