//! Writes a configuration as a file of version 3: what `config default` and `config dump` print.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::model::{Config, Runtime};

/// The whole configuration, commented.
pub fn render(config: &Config) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line("# One file for core-daemon and cri-daemon, in containerd's format.".into());
    line("version = 3".into());
    line(format!("root = {}", path(&config.root)));
    line(format!("state = {}", path(&config.state)));
    line("\n[grpc]\n# Where ctr, Docker Engine and the CRI side reach the core.".into());
    line(format!("address = {}", path(&config.grpc.address)));
    line(format!("uid = {}\ngid = {}", config.grpc.uid, config.grpc.gid));
    line("\n[debug]".into());
    line(format!("level = {}\nformat = {}", quote(&config.log.level), quote(&config.log.format)));
    line("\n[metrics]\n# HOST:PORT for Prometheus; empty = none. In \"loopback\" and \"merged\" CRI's are served with them.".into());
    line(format!("address = {}", quote(&config.metrics.address)));
    line("\n[cri]\n# How CRI reaches the core: \"split\" (two processes), \"loopback\" (gRPC in one) or \"merged\" (plain calls).".into());
    line(format!("wiring = {}", quote(config.cri.wiring.name())));
    line(format!("# Where the kubelet reaches CRI, in every wiring.\naddress = {}", path(&config.cri.address)));
    line(format!(
        "# HOST:PORT for cri-daemon's metrics, in \"split\".\nmetrics_address = {}",
        quote(&config.cri.metrics_address)
    ));
    line("\n[plugins.\"io.containerd.tracing.processor.v1.otlp\"]\n# Where spans go, over gRPC; empty = where OTEL_EXPORTER_OTLP_ENDPOINT says.".into());
    line(format!("endpoint = {}", quote(&config.tracing.endpoint)));
    line("[plugins.\"io.containerd.internal.v1.tracing\"]".into());
    line(format!("sampling_ratio = {:?}", config.tracing.sampling_ratio));

    let images = &config.images;
    line("\n[plugins.\"io.containerd.cri.v1.images\"]".into());
    line(format!("snapshotter = {}", quote(&images.snapshotter)));
    line(format!("max_concurrent_downloads = {}", images.max_concurrent_downloads));
    line(format!("image_pull_progress_timeout = {}", duration(images.image_pull_progress_timeout)));
    line("[plugins.\"io.containerd.cri.v1.images\".pinned_images]".into());
    line(format!("sandbox = {}", quote(&images.sandbox_image)));
    for (name, image) in &images.pinned_images {
        line(format!("{} = {}", quote(name), quote(image)));
    }
    line("[plugins.\"io.containerd.cri.v1.images\".registry]".into());
    let dirs: Vec<_> = images.registry_config_dirs.iter().map(|d| d.display().to_string()).collect();
    line(format!("config_path = {}", quote(&dirs.join(":"))));

    let runtime = &config.runtime;
    line("\n[plugins.\"io.containerd.cri.v1.runtime\"]".into());
    for (key, value) in [
        ("restrict_oom_score_adj", runtime.restrict_oom_score_adj),
        ("enable_unprivileged_ports", runtime.enable_unprivileged_ports),
        ("enable_unprivileged_icmp", runtime.enable_unprivileged_icmp),
        ("disable_cgroup", runtime.disable_cgroup),
        ("disable_apparmor", runtime.disable_apparmor),
        ("disable_hugetlb_controller", runtime.disable_hugetlb_controller),
        ("tolerate_missing_hugetlb_controller", runtime.tolerate_missing_hugetlb_controller),
        ("disable_proc_mount", runtime.disable_proc_mount),
        ("ignore_image_defined_volumes", runtime.ignore_image_defined_volumes),
        ("device_ownership_from_security_context", runtime.device_ownership_from_security_context),
        ("enable_selinux", runtime.enable_selinux),
        ("netns_mounts_under_state_dir", runtime.netns_mounts_under_state_dir),
    ] {
        line(format!("{key} = {value}"));
    }
    line(format!("selinux_category_range = {}", runtime.selinux_category_range));
    line(format!("unset_seccomp_profile = {}", quote(&runtime.unset_seccomp_profile)));
    line(format!("max_container_log_line_size = {}", runtime.max_container_log_line_size));
    line(format!("drain_exec_sync_io_timeout = {}", duration(runtime.drain_exec_sync_io_timeout)));
    line("[plugins.\"io.containerd.cri.v1.runtime\".containerd]".into());
    line(format!("default_runtime_name = {}", quote(&runtime.default_runtime_name)));
    for (name, entry) in &runtime.runtimes {
        line(runtime_section(name, entry));
    }
    let cni = &runtime.cni;
    line("[plugins.\"io.containerd.cri.v1.runtime\".cni]".into());
    let dirs: Vec<_> = cni.bin_dirs.iter().map(|d| path(d)).collect();
    line(format!("bin_dirs = [{}]", dirs.join(", ")));
    line(format!("conf_dir = {}", path(&cni.conf_dir)));
    line(format!("max_conf_num = {}", cni.max_conf_num));
    line(format!("setup_serially = {}", cni.setup_serially));
    line(format!("conf_template = {}", path(&cni.conf_template)));
    line(format!("ip_pref = {}", quote(&cni.ip_pref)));

    line("\n[plugins.\"io.containerd.grpc.v1.cri\"]".into());
    line(format!("stream_server_address = {}", quote(&runtime.stream_server_address)));
    line(format!("stream_server_port = {}", quote(&runtime.stream_server_port)));
    line(format!("stream_idle_timeout = {}", duration(runtime.stream_idle_timeout)));
    line(format!("enable_tls_streaming = {}", runtime.enable_tls_streaming));

    line("\n[plugins.\"io.containerd.grpc.v1.cri\".x509_key_pair_streaming]".into());
    line(format!("tls_cert_file = {}", path(&runtime.x509_key_pair_streaming.tls_cert_file)));
    line(format!("tls_key_file = {}", path(&runtime.x509_key_pair_streaming.tls_key_file)));
    out
}

fn runtime_section(name: &str, entry: &Runtime) -> String {
    let table = format!("plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{}", quote(name));
    let list = |items: &[String]| items.iter().map(|i| quote(i)).collect::<Vec<_>>().join(", ");
    let mut out = format!("[{table}]\n");
    let _ = writeln!(out, "runtime_type = {}", quote(&entry.runtime_type));
    let _ = writeln!(out, "runtime_path = {}", quote(&entry.runtime_path));
    let _ = writeln!(out, "pod_annotations = [{}]", list(&entry.pod_annotations));
    let _ = writeln!(out, "container_annotations = [{}]", list(&entry.container_annotations));
    let _ = writeln!(out, "privileged_without_host_devices = {}", entry.privileged_without_host_devices);
    let _ = writeln!(
        out,
        "privileged_without_host_devices_all_devices_allowed = {}",
        entry.privileged_without_host_devices_all_devices_allowed
    );
    let _ = writeln!(out, "base_runtime_spec = {}", quote(&entry.base_runtime_spec));
    let _ = writeln!(out, "snapshotter = {}", quote(&entry.snapshotter));
    let _ = writeln!(out, "cni_conf_dir = {}", quote(&entry.cni_conf_dir));
    let _ = writeln!(out, "cni_max_conf_num = {}", entry.cni_max_conf_num);
    let _ = writeln!(out, "[{table}.options]");
    let _ = writeln!(out, "BinaryName = {}", quote(&entry.binary_name));
    let _ = writeln!(out, "Root = {}", quote(&entry.root));
    let _ = writeln!(out, "SystemdCgroup = {}", entry.systemd_cgroup);
    let _ = writeln!(out, "NoPivotRoot = {}", entry.no_pivot_root);
    let _ = writeln!(out, "NoNewKeyring = {}", entry.no_new_keyring);
    let _ = writeln!(out, "ShimCgroup = {}", quote(&entry.shim_cgroup));
    let _ = write!(out, "IoUid = {}\nIoGid = {}", entry.io_uid, entry.io_gid);
    out
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn path(path: &Path) -> String {
    quote(&path.display().to_string())
}

fn duration(duration: Duration) -> String {
    quote(&if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    })
}
