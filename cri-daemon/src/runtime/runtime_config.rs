//! RuntimeConfig: who manages cgroups, so that the kubelet need not be told separately.
//!
//! The default handler decides if it is runc's, else the first one in name order that is; without any it is systemd
//! where systemd runs.

use std::path::Path;

use shared_config::CriRuntime;
use shared_proto::Result;
use shared_proto::cri::v1;

use crate::Cri;

impl Cri {
    pub async fn runtime_config(&self, _: v1::RuntimeConfigRequest) -> Result<v1::RuntimeConfigResponse> {
        let driver = match systemd_cgroup(&self.0.config.runtime) {
            true => v1::CgroupDriver::Systemd,
            false => v1::CgroupDriver::Cgroupfs,
        };
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
        Ok(v1::RuntimeConfigResponse { linux: Some(linux) })
    }
}

fn systemd_cgroup(settings: &CriRuntime) -> bool {
    let default = settings.runtimes.get(&settings.default_runtime_name);
    let mut handlers = default.into_iter().chain(settings.runtimes.values());
    match handlers.find(|handler| handler.runtime_type.starts_with("io.containerd.runc.")) {
        Some(runc) => runc.systemd_cgroup,
        None => Path::new("/run/systemd/system").is_dir(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_handler_decides_unless_it_is_not_runc() {
        let mut settings = CriRuntime::default();
        assert!(!systemd_cgroup(&settings));
        let mut other = settings.runtimes["runc"].clone();
        other.systemd_cgroup = true;
        settings.runtimes.insert("crun".into(), other.clone());
        assert!(!systemd_cgroup(&settings), "the default goes before name order");
        other.runtime_type = "io.containerd.kata.v2".into();
        other.systemd_cgroup = false;
        settings.runtimes.insert("kata".into(), other);
        settings.default_runtime_name = "kata".into();
        assert!(systemd_cgroup(&settings), "the first of runc's in name order is crun");
    }
}
