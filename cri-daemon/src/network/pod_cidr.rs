//! The network that is made of the kubelet's pod CIDR, on nodes without a network of their own.
//!
//! The rules are containerd's: there must be a template, and no network yet. The file appears as a whole, and is never
//! written again while it is there: a node that gets another CIDR keeps the network that its pods are in.

use std::net::IpAddr;

use shared_sys::files::{Durability, write_atomic_as};

use super::{Network, NetworkError, template};

/// The file that is written.
pub(super) const RENDERED: &str = "10-containerd-net.conflist";

impl Network {
    /// Renders `conf_template` for the CIDRs (separated by commas) that the kubelet sends, unless there is a network:
    /// what another has configured is never added to, not even when a plugin of it is missing.
    pub async fn set_pod_cidr(&self, cidrs: &str) -> Result<(), NetworkError> {
        let cidrs: Vec<String> = cidrs.split(',').map(|c| c.trim().to_owned()).collect();
        if let Some(bad) = cidrs.iter().find(|cidr| !is_cidr(cidr)) {
            return Err(NetworkError::Cidr { cidr: bad.clone() });
        }
        let file = self.cni.conf_template.clone();
        if file.as_os_str().is_empty() || self.load().await.is_ok() {
            return Ok(());
        }
        let dir = self.cni.conf_dir.clone();
        shared_sys::blocking(move || {
            let failed = |problem: String| NetworkError::Template { file: file.clone(), problem };
            let text = std::fs::read_to_string(&file).map_err(|e| failed(e.to_string()))?;
            let rendered = template::render(&text, &cidrs).map_err(failed)?;
            let path = dir.join(RENDERED);
            std::fs::create_dir_all(&dir)
                .and_then(|()| write_atomic_as(&path, rendered.as_bytes(), Durability::Durable, 0o644))
                .map_err(|e| failed(format!("write {}: {e}", path.display())))?;
            tracing::info!(file = %path.display(), ?cidrs, "network configuration made from the template");
            Ok(())
        })
        .await
    }
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let max = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= max)
    })
}
