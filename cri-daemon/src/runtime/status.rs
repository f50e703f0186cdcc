//! Status: whether pods can run here, and what the runtime can do. The kubelet asks every few seconds.
//!
//! Three conditions: the runtime (in `split` it is not ready while the core is away), the network, and containerd's
//! own about deprecated settings. Verbose answers add the configuration, the CNI configuration, and what the seam has
//! cost so far.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use shared_proto::containerd::introspection::ServerResponse;
use shared_proto::cri::v1;
use shared_proto::{Error, Result};

use crate::network::NetworkStatus;
use crate::{Cri, call};

/// The core answers this from memory. Short, because the kubelet marks the node by our answer.
const PATIENCE: Duration = Duration::from_secs(2);

impl Cri {
    pub async fn status(&self, req: v1::StatusRequest) -> Result<v1::StatusResponse> {
        let inner = &*self.0;
        let server = call::within("ask the core", PATIENCE, inner.core.introspection.server(&inner.cx, ()));
        let (server, network) = futures::join!(server, inner.network.status());
        let conditions = vec![runtime(&server), self::network(&network), deprecations(&server)];
        let info = if req.verbose { self.status_info(&network).await } else { BTreeMap::new() };
        Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info,
            runtime_handlers: self.handlers(),
            features: Some(features()),
        })
    }

    /// The configured handlers, and the one without a name, which is the default. None of them has user namespaces or
    /// mounts that are read-only all the way down.
    fn handlers(&self) -> Vec<v1::RuntimeHandler> {
        let names = std::iter::once("").chain(self.0.config.runtime.runtimes.keys().map(String::as_str));
        let features = Some(v1::RuntimeHandlerFeatures::default());
        names.map(|name| v1::RuntimeHandler { name: name.to_owned(), features }).collect()
    }

    async fn status_info(&self, network: &NetworkStatus) -> BTreeMap<String, String> {
        let inner = &*self.0;
        // Our own rendering always parses; were it not so, the answer would only be poorer.
        let config = toml::from_str::<Value>(&shared_config::render(&inner.config)).unwrap_or_default();
        let mut info = vec![
            ("config".to_owned(), config),
            ("cniconfig".to_owned(), inner.network.describe().await),
            ("lastCNILoadStatus".to_owned(), last_load(network)),
            ("lastCNILoadStatus.default".to_owned(), last_load(network)),
            ("seam".to_owned(), self.seam()),
        ];
        // Handlers with a configuration folder of their own.
        for (handler, network) in &inner.networks {
            info.push((format!("lastCNILoadStatus.{handler}"), last_load(&network.status().await)));
        }
        info.into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    /// What crossed the seam so far.
    fn seam(&self) -> Value {
        let samples = self.0.meter.samples();
        let samples: Vec<_> = samples
            .iter()
            .map(|s| {
                json!({
                    "service": s.service, "method": s.method, "calls": s.calls, "errors": s.errors,
                    "bytes_out": s.bytes_out, "bytes_in": s.bytes_in, "us": s.time.as_micros() as u64,
                })
            })
            .collect();
        json!({ "wiring": self.0.wiring.name(), "samples": samples })
    }
}

/// What the kubelet sends a pod here for, or not: a feature that is promised is kept, see `spec/`.
fn features() -> v1::RuntimeFeatures {
    v1::RuntimeFeatures { supplemental_groups_policy: true, user_namespaces_host_network: false }
}

/// What became of reading the configuration, in containerd's words.
fn last_load(network: &NetworkStatus) -> Value {
    Value::String(match network {
        NetworkStatus::Ready { left_out, .. } if left_out.is_empty() => "OK".to_owned(),
        NetworkStatus::Ready { left_out, .. } => left_out.join("; "),
        NetworkStatus::NotReady(reason) => reason.clone(),
    })
}

fn condition(kind: &str, problem: Option<(&str, String)>) -> v1::RuntimeCondition {
    let status = problem.is_none();
    let (reason, message) = problem.map(|(reason, message)| (reason.to_owned(), message)).unwrap_or_default();
    v1::RuntimeCondition { r#type: kind.to_owned(), status, reason, message }
}

fn runtime(server: &Result<ServerResponse, Error>) -> v1::RuntimeCondition {
    condition("RuntimeReady", server.as_ref().err().map(|e| ("CoreNotReady", e.message.clone())))
}

/// Files that are left out make no difference to the kubelet, but are said.
fn network(network: &NetworkStatus) -> v1::RuntimeCondition {
    const KIND: &str = "NetworkReady";
    match network {
        NetworkStatus::Ready { left_out, .. } if left_out.is_empty() => condition(KIND, None),
        NetworkStatus::Ready { left_out, .. } => {
            let told = condition(KIND, Some(("NetworkConfigurationLeftOut", left_out.join("; "))));
            v1::RuntimeCondition { status: true, ..told }
        }
        NetworkStatus::NotReady(reason) => condition(KIND, Some(("NetworkPluginNotReady", reason.clone()))),
    }
}

fn deprecations(server: &Result<ServerResponse, Error>) -> v1::RuntimeCondition {
    let used = server.as_ref().map(|server| server.deprecations.as_slice()).unwrap_or_default();
    let problem = (!used.is_empty()).then(|| {
        let messages: BTreeMap<&str, &str> = used.iter().map(|d| (d.id.as_str(), d.message.as_str())).collect();
        ("ContainerdHasDeprecationWarnings", json!(messages).to_string())
    });
    condition("ContainerdHasNoDeprecationWarnings", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_missing() {
        let away = Err(Error::unavailable("ask the core: connection refused"));
        let not_ready = runtime(&away);
        assert!(!not_ready.status && not_ready.message.contains("refused"), "{not_ready:?}");
        assert!(deprecations(&away).status, "unknown is no warning");
        assert!(runtime(&Ok(ServerResponse::default())).status);
        let no_network = network(&NetworkStatus::NotReady("no configuration in /etc/cni/net.d".into()));
        assert_eq!((no_network.r#type.as_str(), no_network.status), ("NetworkReady", false));
        assert!(no_network.message.contains("/etc/cni/net.d"));
        let left_out = vec!["network configuration 05-half.conflist: EOF".into()];
        let partly = network(&NetworkStatus::Ready { networks: vec!["pods".into()], left_out });
        assert!(partly.status && partly.message.contains("05-half.conflist"), "{partly:?}");
    }
}
