//! Results of plugins, of every version of the CNI format.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The network of a pod, in the shape in which containerd keeps it in a sandbox's metadata (`CNIResult`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CniResult {
    /// By name: `eth0` for the pod's own, others as the plugins named them.
    pub interfaces: BTreeMap<String, Interface>,
    #[serde(rename = "DNS")]
    pub dns: Vec<Value>,
    pub routes: Vec<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Interface {
    #[serde(rename = "IPConfigs")]
    pub ip_configs: Vec<IpConfig>,
    pub mac: String,
    pub sandbox: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpConfig {
    /// Without the prefix length.
    #[serde(rename = "IP")]
    pub ip: String,
    #[serde(rename = "Gateway")]
    pub gateway: String,
}

impl CniResult {
    /// Adds the last result of a network's plugins; `own`: the interface that the network was asked to make.
    pub(super) fn add(&mut self, raw: &Value, own: &str) {
        let list = |key: &str| raw.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let interfaces = list("interfaces");
        for interface in &interfaces {
            let entry = self.interfaces.entry(text(interface, "name")).or_default();
            entry.mac = text(interface, "mac");
            entry.sandbox = text(interface, "sandbox");
        }
        // Since 0.3.0: a list, each with the index of its interface.
        for ip in list("ips") {
            let index = ip.get("interface").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
            let named = index.and_then(|index| interfaces.get(index)).map(|interface| text(interface, "name"));
            self.address(&named.unwrap_or_else(|| own.to_owned()), &text(&ip, "address"), text(&ip, "gateway"));
        }
        // Before: at most one of each family.
        for ip in ["ip4", "ip6"].iter().filter_map(|key| raw.get(*key)) {
            self.address(own, &text(ip, "ip"), text(ip, "gateway"));
            self.routes.extend(ip.get("routes").and_then(Value::as_array).into_iter().flatten().cloned());
        }
        self.routes.extend(list("routes"));
        self.dns.extend(raw.get("dns").filter(|dns| dns.as_object().is_some_and(|dns| !dns.is_empty())).cloned());
    }

    fn address(&mut self, interface: &str, cidr: &str, gateway: String) {
        let ip = cidr.split('/').next().unwrap_or_default().to_owned();
        if !ip.is_empty() {
            self.interfaces.entry(interface.to_owned()).or_default().ip_configs.push(IpConfig { ip, gateway });
        }
    }

    /// The addresses of `interface`, the preferred one first: `ipv4`, `ipv6`, or `cni` for the plugins' order.
    pub(super) fn ips(&self, interface: &str, preference: &str) -> Vec<IpAddr> {
        let configs = self.interfaces.get(interface).map(|i| i.ip_configs.as_slice()).unwrap_or_default();
        let mut ips: Vec<IpAddr> = configs.iter().filter_map(|config| config.ip.parse().ok()).collect();
        let first = match preference {
            "ipv6" => ips.iter().position(IpAddr::is_ipv6),
            "cni" => None,
            _ => ips.iter().position(IpAddr::is_ipv4),
        };
        if let Some(first) = first {
            ips[..=first].rotate_right(1);
        }
        ips
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(raw: Value) -> CniResult {
        let mut out = CniResult::default();
        out.add(&raw, "eth0");
        out
    }

    #[test]
    fn all_versions_give_addresses() {
        let new = of(json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "br0", "mac": "0a:00:00:00:00:01"},
                {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/ns"}
            ],
            "ips": [
                {"address": "fd00::5/64", "interface": 1},
                {"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 1}
            ],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {}
        }));
        let ips = |preference| new.ips("eth0", preference).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ips("ipv4"), ["10.1.0.5", "fd00::5"]);
        assert_eq!(ips("ipv6"), ["fd00::5", "10.1.0.5"]);
        assert_eq!(ips("cni"), ["fd00::5", "10.1.0.5"]);
        assert!(new.dns.is_empty() && new.routes.len() == 1 && new.interfaces.len() == 2);

        let old = of(json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.6/24", "routes": [{"dst": "0.0.0.0/0"}]}}));
        assert_eq!(old.ips("eth0", "ipv4"), ["10.1.0.6".parse::<IpAddr>().unwrap()]);
        let without_index = of(json!({"ips": [{"version": "4", "address": "10.1.0.7/24"}]}));
        assert_eq!(without_index.ips("eth0", "ipv4").len(), 1);
        assert!(of(json!({"ips": []})).ips("eth0", "ipv4").is_empty());
    }

    #[test]
    fn the_record_is_containerds() {
        let result = of(json!({"ips": [{"address": "10.1.0.7/24", "gateway": "10.1.0.1"}]}));
        let text = serde_json::to_value(&result).unwrap();
        let eth0 = json!({"IPConfigs": [{"IP": "10.1.0.7", "Gateway": "10.1.0.1"}], "Mac": "", "Sandbox": ""});
        assert_eq!(text, json!({"Interfaces": {"eth0": eth0}, "DNS": [], "Routes": []}));
        assert_eq!(serde_json::from_value::<CniResult>(text).unwrap(), result);
    }
}
