//! The files of a world: the daemons' configuration in both of its forms, the CNI network, the registry's mirrors.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::Wiring;
use crate::fixtures::PAUSE;
use crate::slot::Slot;

/// What a test can choose about its world.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the world's folder is made; none = where temporary files are.
    pub parent: Option<PathBuf>,
    /// The form of the configuration file: 2 or 3.
    pub version: u8,
    pub snapshotter: &'static str,
    /// Network namespaces under the state folder; otherwise in `/run/netns`.
    pub private_netns: bool,
    /// The runtime that stands in for ours: of the whole suite with `SEAM_PEER`, of one world where a bench says so.
    pub peer: Option<&'static str>,
    /// The OCI runtime; none = Debian's runc.
    pub engine: Option<PathBuf>,
    /// Whether it is the wrapper of [`runtime`] instead, which fails when it is asked to. A script is no engine that our
    /// shim knows: everything is made by it, pause processes too.
    pub faulty_engine: bool,
    /// The shim of every handler (`runtime_path`); none = what the runtime's name stands for.
    pub shim: Option<PathBuf>,
    /// The binary for every role of the core; a build without the feature `merged` may be put here.
    pub core_binary: Option<PathBuf>,
    /// Log level of the daemons: tests want to see all, measurements not.
    pub log_level: &'static str,
    /// `image_pull_progress_timeout`; empty = the default.
    pub pull_progress_timeout: String,
    /// Where the core and cri-daemon serve metrics; empty = nowhere.
    pub metrics: [String; 2],
    /// The collector of spans; empty = none.
    pub traces: String,
    /// Variables of the daemons' environment.
    pub environment: Vec<(&'static str, String)>,
    /// `device_ownership_from_security_context`.
    pub device_ownership: bool,
    /// More lines of the section of CNI.
    pub cni: String,
    /// More lines of the section of images.
    pub images: String,
    /// More runtime handlers, all of them runc: their names, and lines of their sections.
    pub handlers: Vec<(&'static str, String)>,
    /// `enable_tls_streaming`.
    pub stream_tls: bool,
}

impl Options {
    /// Half of the wirings read the old form, half the new one: both must mean the same.
    pub fn new(wiring: Wiring) -> Self {
        let version = match wiring {
            Wiring::Split | Wiring::Merged => 2,
            Wiring::Loopback => 3,
        };
        Self {
            parent: None,
            version,
            snapshotter: "overlayfs",
            private_netns: true,
            peer: crate::world::peer(),
            engine: None,
            faulty_engine: false,
            shim: std::env::var_os("SEAM_SHIM").map(PathBuf::from),
            core_binary: None,
            log_level: "debug",
            pull_progress_timeout: String::new(),
            metrics: Default::default(),
            traces: String::new(),
            environment: Vec::new(),
            device_ownership: false,
            cni: String::new(),
            images: String::new(),
            handlers: Vec::new(),
            stream_tls: false,
        }
    }
}

/// Where the parts of a world are.
#[derive(Debug, Clone)]
pub struct Paths {
    pub dir: PathBuf,
    pub root: PathBuf,
    pub state: PathBuf,
    pub config: PathBuf,
    pub core_socket: PathBuf,
    pub cri_socket: PathBuf,
    /// What host-local has given out.
    pub ipam: PathBuf,
    /// What the CNI plugin `gate` and the `runc` wrapper are told, and what they saw.
    pub gate: PathBuf,
    /// Pod logs, as the kubelet would own them.
    pub logs: PathBuf,
    pub runc_root: PathBuf,
    mirrors: PathBuf,
    /// CNI's configuration files.
    pub cni_conf: PathBuf,
    /// CNI's plugins, as links.
    pub cni_bin: PathBuf,
}

impl Paths {
    /// Lays the folders out under `dir`.
    pub fn create(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name);
        let paths = Self {
            dir: dir.to_owned(),
            root: at("root"),
            state: at("state"),
            config: at("config.toml"),
            core_socket: at("core.sock"),
            cri_socket: at("cri.sock"),
            ipam: at("ipam"),
            gate: at("gate"),
            logs: at("logs"),
            runc_root: at("runc"),
            mirrors: at("certs.d"),
            cni_conf: at("cni"),
            cni_bin: at("cni-bin"),
        };
        for dir in [&paths.gate, &paths.logs, &paths.mirrors, &paths.cni_conf, &paths.cni_bin] {
            std::fs::create_dir_all(dir).unwrap_or_else(|e| panic!("make {}: {e}", dir.display()));
        }
        paths
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

/// Writes the daemons' configuration.
pub fn daemons(paths: &Paths, wiring: Wiring, options: &Options) {
    let mut text = format!(
        "version = {}\nroot = \"{}\"\nstate = \"{}\"\n[grpc]\naddress = \"{}\"\n[debug]\nlevel = \"{}\"\n",
        options.version,
        paths.root.display(),
        paths.state.display(),
        paths.core_socket.display(),
        options.log_level,
    );
    if options.peer.is_none() {
        let _ = writeln!(text, "[cri]\nwiring = \"{}\"\naddress = \"{}\"", wiring.name(), paths.cri_socket.display());
        let _ = writeln!(text, "metrics_address = \"{}\"", options.metrics[1]);
        let _ = writeln!(text, "[metrics]\naddress = \"{}\"", options.metrics[0]);
        let otlp = "io.containerd.tracing.processor.v1.otlp";
        let _ = writeln!(text, "[plugins.\"{otlp}\"]\nendpoint = \"{}\"", options.traces);
    } else {
        // Debian's containerd would make /opt/containerd, and clamps OOM scores only when told.
        let opt = paths.dir.join("opt");
        let _ = writeln!(text, "[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{}\"", opt.display());
    }
    text += &match if options.peer.is_some() { 2 } else { options.version } {
        2 => version2(paths, options),
        3 => version3(paths, options),
        other => panic!("no configuration of version {other}"),
    };
    let section = if options.version == 2 { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" };
    for (name, lines) in &options.handlers {
        let table = format!("plugins.\"{section}\".containerd.runtimes.{name}");
        let (runc, root) = (engine(paths, options), &paths.runc_root);
        let _ = writeln!(text, "[{table}]\nruntime_type = \"io.containerd.runc.v2\"\n{}\n{lines}", shim(options));
        let _ = writeln!(text, "[{table}.options]\nBinaryName = \"{}\"\nRoot = \"{}\"", runc.display(), root.display());
    }
    write(&paths.config, &text);
}

fn version2(paths: &Paths, options: &Options) -> String {
    let timeout = images(options);
    let oom = if options.peer.is_some() { "restrict_oom_score_adj = true\n" } else { "" };
    format!(
        r#"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
stream_server_port = "0"
enable_tls_streaming = {tls}
netns_mounts_under_state_dir = {netns}
device_ownership_from_security_context = {devices}
{oom}{timeout}
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_bin}"
conf_dir = "{cni_conf}"
{cni}
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{mirrors}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
{shim}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
Root = "{runc_root}"
SystemdCgroup = false
"#,
        netns = options.private_netns,
        devices = options.device_ownership,
        tls = options.stream_tls,
        cni_bin = paths.cni_bin.display(),
        cni_conf = paths.cni_conf.display(),
        cni = options.cni,
        mirrors = paths.mirrors.display(),
        snapshotter = options.snapshotter,
        shim = shim(options),
        runc = engine(paths, options).display(),
        runc_root = paths.runc_root.display(),
    )
}

fn version3(paths: &Paths, options: &Options) -> String {
    format!(
        r#"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"
{timeout}
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{mirrors}"
[plugins."io.containerd.cri.v1.runtime"]
netns_mounts_under_state_dir = {netns}
device_ownership_from_security_context = {devices}
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{cni_bin}"]
conf_dir = "{cni_conf}"
{cni}
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
{shim}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
Root = "{runc_root}"
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri"]
stream_server_port = "0"
enable_tls_streaming = {tls}
"#,
        netns = options.private_netns,
        devices = options.device_ownership,
        timeout = images(options),
        tls = options.stream_tls,
        cni_bin = paths.cni_bin.display(),
        cni_conf = paths.cni_conf.display(),
        cni = options.cni,
        mirrors = paths.mirrors.display(),
        snapshotter = options.snapshotter,
        shim = shim(options),
        runc = engine(paths, options).display(),
        runc_root = paths.runc_root.display(),
    )
}

/// Debian's.
const RUNC: &str = "/usr/sbin/runc";

/// The OCI runtime of every handler.
fn engine(paths: &Paths, options: &Options) -> PathBuf {
    if options.faulty_engine {
        return paths.gate.join("runc");
    }
    options.engine.clone().unwrap_or_else(|| RUNC.into())
}

/// The line about the shim, if there is one.
fn shim(options: &Options) -> String {
    options.shim.as_ref().map_or(String::new(), |path| format!("runtime_path = \"{}\"", path.display()))
}

/// Lines about images.
fn images(options: &Options) -> String {
    let timeout = match options.pull_progress_timeout.as_str() {
        "" => String::new(),
        value => format!("image_pull_progress_timeout = \"{value}\"\n"),
    };
    timeout + &options.images
}

/// Writes the CNI network: bridge, host ports, and at the end our `gate`, which fails when a pod's name asks for it.
pub fn network(paths: &Paths, slot: &Slot) {
    for plugin in ["bridge", "host-local", "portmap", "loopback", "bandwidth", "tuning", "firewall"] {
        let target = Path::new("/usr/lib/cni").join(plugin);
        assert!(target.exists(), "{} is missing: install containernetworking-plugins", target.display());
        symlink(target, paths.cni_bin.join(plugin)).expect("link a CNI plugin");
    }
    symlink(crate::daemon::binary("cni-gate"), paths.cni_bin.join("cni-gate")).expect("link our CNI plugin");
    let conf = json!({
        "cniVersion": "0.4.0",
        "name": slot.name(),
        "plugins": [
            {
                "type": "bridge", "bridge": slot.name(), "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": paths.ipam, "ranges": [[{"subnet": slot.subnet()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": false},
            {"type": "cni-gate", "dir": paths.gate},
        ],
    });
    write(&paths.cni_conf.join("10-seam.conflist"), &conf.to_string());
}

/// Writes `hosts.toml` for each host that the suites pull from: all are mirrored on `registry`.
pub fn mirrors(paths: &Paths, registry: SocketAddr, hosts: &[&str]) {
    for host in hosts {
        let server =
            if *host == "docker.io" { "https://registry-1.docker.io".into() } else { format!("https://{host}") };
        let dir = paths.mirrors.join(host);
        std::fs::create_dir_all(&dir).expect("make the folder of a mirror");
        let text =
            format!("server = \"{server}\"\n[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        write(&dir.join("hosts.toml"), &text);
    }
}

/// Writes the OCI runtime: runc, but `create` fails for a bundle whose configuration contains `runc-fail`.
pub fn runtime(paths: &Paths) {
    let script = r#"#!/bin/sh
# runc, but create fails for a bundle that asks for it.
verb= bundle= log=/dev/null
previous=
for arg in "$@"; do
    case "$arg" in create) verb=create ;; esac
    case "$previous" in --bundle) bundle=$arg ;; --log) log=$arg ;; esac
    previous=$arg
done
if [ "$verb" = create ] && grep -q runc-fail "$bundle/config.json"; then
    echo '{"level":"error","msg":"this bundle asked for a failure"}' >>"$log"
    exit 1
fi
exec runc "$@"
"#;
    let path = paths.gate.join("runc");
    write(&path, script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("make the runc wrapper executable");
}
