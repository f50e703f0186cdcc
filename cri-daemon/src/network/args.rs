//! What plugins are told about a pod: `CNI_ARGS`, and the arguments of the capabilities that they declare.

use serde_json::{Map, Value, json};
use shared_proto::cri::v1;

use super::config::kind;
use super::{NetworkError, PodNetwork};

/// `CNI_ARGS`, as pairs.
pub(super) fn cni_args(pod: &PodNetwork) -> Vec<[String; 2]> {
    [
        ["IgnoreUnknown", "1"],
        ["K8S_POD_NAMESPACE", &pod.namespace],
        ["K8S_POD_NAME", &pod.name],
        ["K8S_POD_INFRA_CONTAINER_ID", &pod.id],
        ["K8S_POD_UID", &pod.uid],
    ]
    .map(|pair| pair.map(String::from))
    .to_vec()
}

/// All that a pod has for capabilities; each plugin gets those that it declares.
pub(super) fn capabilities(pod: &PodNetwork) -> Map<String, Value> {
    let mut out = Map::new();
    let mappings: Vec<_> = pod.port_mappings.iter().filter(|m| m.host_port > 0).map(mapping).collect();
    if !mappings.is_empty() {
        out.insert("portMappings".into(), mappings.into());
    }
    if let Some(bandwidth) = bandwidth(pod) {
        out.insert("bandwidth".into(), bandwidth);
    }
    if let Some(dns) = pod.dns.as_ref().filter(|dns| **dns != v1::DnsConfig::default()) {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        out.insert("dns".into(), dns);
    }
    if !pod.cgroup_parent.is_empty() {
        out.insert("cgroupPath".into(), pod.cgroup_parent.clone().into());
    }
    out.insert("io.kubernetes.cri.pod-annotations".into(), json!(pod.annotations));
    out
}

/// The part of `all` that goes to `plugin`; `None` when it has nothing to do and needs no process.
///
/// Port mapping and traffic shaping do nothing without arguments, yet cost a process and a lock on the packet filter.
pub(super) fn runtime_config(plugin: &Map<String, Value>, all: &Map<String, Value>) -> Option<Map<String, Value>> {
    let declared = plugin.get("capabilities").and_then(Value::as_object).into_iter().flatten();
    let wanted = declared.filter(|(_, on)| **on == Value::Bool(true)).map(|(name, _)| name);
    let config: Map<_, _> = wanted.filter_map(|name| Some((name.clone(), all.get(name)?.clone()))).collect();
    let idle = match kind(plugin) {
        // What the file itself gives it is no concern of ours.
        _ if plugin.contains_key("runtimeConfig") => false,
        "portmap" => !config.contains_key("portMappings"),
        "bandwidth" => {
            let fixed = ["ingressRate", "egressRate"].iter().any(|key| plugin.contains_key(*key));
            !config.contains_key("bandwidth") && !fixed
        }
        _ => false,
    };
    (!idle).then_some(config)
}

fn mapping(mapping: &v1::PortMapping) -> Value {
    let protocol = match v1::Protocol::try_from(mapping.protocol).unwrap_or_default() {
        v1::Protocol::Tcp => "tcp",
        v1::Protocol::Udp => "udp",
        v1::Protocol::Sctp => "sctp",
    };
    json!({
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": protocol,
        "hostIP": mapping.host_ip,
    })
}

const BANDWIDTHS: [(&str, &str); 2] =
    [("ingress", "kubernetes.io/ingress-bandwidth"), ("egress", "kubernetes.io/egress-bandwidth")];

/// Whether everything that the pod asks for can be told to a plugin. A limit that can't be read is refused: a pod
/// without the limit that its owner wrote would harm its neighbours.
pub(super) fn check(pod: &PodNetwork) -> Result<(), NetworkError> {
    for (_, annotation) in BANDWIDTHS {
        if let Some(value) = pod.annotations.get(annotation).filter(|value| quantity(value).is_none()) {
            return Err(NetworkError::Bandwidth { annotation: annotation.to_owned(), value: value.clone() });
        }
    }
    pod.port_mappings.iter().enumerate().try_for_each(|(index, mapping)| check_mapping(index, mapping))
}

/// A plugin would forward another port than the one that was meant, or say something that nobody understands.
fn check_mapping(index: usize, mapping: &v1::PortMapping) -> Result<(), NetworkError> {
    let wrong = |field, value, problem| Err(NetworkError::PortMapping { index, field, value, problem });
    for (field, port) in [("container_port", mapping.container_port), ("host_port", mapping.host_port)] {
        // Without a host port there is nothing to map; kubelets list such ports as well.
        if !(0..=i32::from(u16::MAX)).contains(&port) {
            return wrong(field, port.to_string(), "is not between 0 and 65535");
        }
    }
    if v1::Protocol::try_from(mapping.protocol).is_err() {
        return wrong("protocol", mapping.protocol.to_string(), "is no protocol's number");
    }
    if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<std::net::IpAddr>().is_err() {
        return wrong("host_ip", format!("{:?}", mapping.host_ip), "is no address");
    }
    Ok(())
}

/// From the annotations that Kubernetes knows. The bursts are as large as the plugin takes them.
fn bandwidth(pod: &PodNetwork) -> Option<Value> {
    let mut out = Map::new();
    for (direction, annotation) in BANDWIDTHS {
        if let Some(rate) = pod.annotations.get(annotation).and_then(|value| quantity(value)) {
            out.insert(format!("{direction}Rate"), rate.into());
            out.insert(format!("{direction}Burst"), u32::MAX.into());
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// A Kubernetes quantity of whole bits per second: `10M`, `1.5G`, `512Ki`, `1e6`.
fn quantity(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        other => 10f64.powi(other.strip_prefix(['e', 'E'])?.parse().ok().filter(|e| (0..=18).contains(e))?),
    };
    let value = (number * factor).ceil();
    // Kubernetes accepts 1k to 1P.
    (1e3..=1e15).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_get_what_they_declare() {
        let mut pod = PodNetwork { cgroup_parent: "/kubepods/p".into(), ..Default::default() };
        let plugin = |value: Value| value.as_object().unwrap().clone();
        let portmap = plugin(json!({"type": "portmap", "capabilities": {"portMappings": true, "dns": false}}));
        let bandwidth = plugin(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
        let fixed = plugin(json!({"type": "bandwidth", "ingressRate": 1}));
        let bridge = plugin(json!({"type": "bridge", "capabilities": {"cgroupPath": true}}));
        let none = capabilities(&pod);
        assert_eq!(runtime_config(&portmap, &none), None);
        assert_eq!(runtime_config(&bandwidth, &none), None);
        assert_eq!(runtime_config(&fixed, &none), Some(Map::new()));
        assert_eq!(runtime_config(&bridge, &none).unwrap()["cgroupPath"], "/kubepods/p");

        let map = |host_port| v1::PortMapping { host_port, container_port: 80, protocol: 1, host_ip: "::1".into() };
        pod.port_mappings = vec![map(0), map(8080)];
        pod.annotations.insert("kubernetes.io/egress-bandwidth".into(), "1.5M".into());
        check(&pod).unwrap();
        pod.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "fast".into());
        let refused = check(&pod).unwrap_err();
        assert!(refused.to_string().contains("ingress-bandwidth\": \"fast\""), "{refused}");
        let all = capabilities(&pod);
        let expected = json!({"portMappings":
            [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "::1"}]});
        assert_eq!(Value::Object(runtime_config(&portmap, &all).unwrap()), expected);
        let expected = json!({"bandwidth": {"egressRate": 1_500_000, "egressBurst": u32::MAX}});
        assert_eq!(Value::Object(runtime_config(&bandwidth, &all).unwrap()), expected);
    }

    #[test]
    fn quantities() {
        let cases = [
            ("1000", 1000),
            ("10M", 10_000_000),
            ("512Ki", 524_288),
            ("1e6", 1_000_000),
            ("+1.5k", 1500),
            ("2000000m", 2000),
        ];
        for (text, expected) in cases {
            assert_eq!(quantity(text), Some(expected), "{text}");
        }
        for bad in ["", "x", "-1M", "10X", "999", "2P", "1e99"] {
            assert_eq!(quantity(bad), None, "{bad}");
        }
    }
}
