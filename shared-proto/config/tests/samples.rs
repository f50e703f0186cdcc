//! The files below `deploy/`, as an operator would install them: read by our own loader, and agreeing with it.

use std::path::{Path, PathBuf};

use shared_config::{Config, Wiring};

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file)
}

fn text(file: &str) -> String {
    let path = deploy(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// What a unit says under a key of `[Service]`; the last one counts.
fn service(unit: &str, key: &str) -> Option<String> {
    let text = text(&format!("systemd/{unit}.service"));
    let (_, section) = text.split_once("[Service]\n").expect("a section [Service]");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once('=')).filter(|(k, _)| *k == key).last().map(|(_, value)| value.to_owned())
}

#[test]
fn every_sample_loads_without_a_warning() {
    for (name, wiring) in [("split", Wiring::Split), ("loopback", Wiring::Loopback), ("merged", Wiring::Merged)] {
        let (config, warnings) = shared_config::load(&deploy(&format!("config/{name}.toml"))).expect(name);
        assert_eq!(warnings, vec![], "{name}");
        assert_eq!(config.cri.wiring, wiring);
        // A sample shows what nodes change; what it leaves at the default must be the default.
        let defaults = Config::default();
        assert_eq!((config.root, config.state), (defaults.root, defaults.state), "{name}");
        assert_eq!((config.grpc, config.cri.address), (defaults.grpc, defaults.cri.address), "{name}");
        assert_eq!(config.runtime, defaults.runtime, "{name}");
    }
}

#[test]
fn clients_are_pointed_at_our_sockets() {
    let endpoint = format!("unix://{}", Config::default().cri.address.display());
    let crictl = text("crictl.yaml");
    for key in ["runtime-endpoint", "image-endpoint"] {
        assert!(crictl.lines().any(|line| line == format!("{key}: {endpoint}")), "{key} in {crictl}");
    }
    let kubelet = text("kubelet/20-seam.conf");
    assert!(kubelet.contains(&format!("--container-runtime-endpoint={endpoint}\"")), "{kubelet}");
}

#[test]
fn units_leave_containers_alone() {
    for unit in ["core-daemon", "cri-daemon"] {
        let value = |key| service(unit, key).unwrap_or_else(|| panic!("{unit}: no {key}"));
        assert_eq!(value("Type"), "notify");
        assert_eq!(value("Delegate"), "yes");
        assert_eq!(value("KillMode"), "process");
        assert_eq!(value("Restart"), "always");
        assert_eq!(value("OOMScoreAdjust"), "-999");
        assert_eq!(value("ExecStart"), format!("/usr/local/bin/{unit} -c /etc/core-daemon/config.toml"));
        // Mounts and network namespaces are shared between the daemons and the shims.
        for key in ["PrivateTmp", "MountFlags", "PrivateMounts", "ProtectSystem", "PrivateNetwork"] {
            assert_eq!(service(unit, key), None, "{unit}: {key}");
        }
    }
}

/// Where systemd is installed, it reads the units itself. Only the programs, which are not installed here, may lack.
#[test]
fn systemd_accepts_the_units() {
    let units = ["core-daemon", "cri-daemon"].map(|unit| deploy(&format!("systemd/{unit}.service")));
    let output = match std::process::Command::new("systemd-analyze").arg("verify").args(&units).output() {
        Ok(output) => output,
        Err(e) => {
            eprintln!("skipped: systemd-analyze: {e}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("core-daemon.service") || line.contains("cri-daemon.service"))
        .filter(|line| !line.contains("is not executable: No such file"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
