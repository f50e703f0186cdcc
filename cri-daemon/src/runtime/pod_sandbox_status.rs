//! PodSandboxStatus: from memory; only the verbose answer asks the core.

use serde_json::json;
use shared_proto::Result;
use shared_proto::cri::v1;

use super::{info, spec_json};
use crate::pod::{Record, Sandbox, State};
use crate::{Cri, Inner};

impl Cri {
    pub async fn pod_sandbox_status(&self, req: v1::PodSandboxStatusRequest) -> Result<v1::PodSandboxStatusResponse> {
        let sandbox = self.0.sandboxes.get(&req.pod_sandbox_id)?;
        let containers = self.0.containers_of(&sandbox.record().id);
        Ok(v1::PodSandboxStatusResponse {
            status: Some(status(&sandbox)),
            info: if req.verbose {
                let own = sandbox.start.timeline.shown(|account| account.rpc == "RunPodSandbox");
                info(&self.0.describe_sandbox(&sandbox).await?, &own)
            } else {
                Default::default()
            },
            containers_statuses: containers.iter().map(|container| self.0.container_status_of(container)).collect(),
            timestamp: self.0.host.now(),
        })
    }
}

pub(crate) fn status(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let record = sandbox.record();
    let config = &record.config;
    let options = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .and_then(|context| context.namespace_options.clone());
    v1::PodSandboxStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: sandbox.life.state().cri().into(),
        created_at: record.created_at,
        network: Some(network(&record)),
        linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options }) }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// No addresses for a pod in the machine's network: the kubelet knows those.
fn network(record: &Record) -> v1::PodSandboxNetworkStatus {
    v1::PodSandboxNetworkStatus {
        ip: record.ip.clone(),
        additional_ips: record.additional_ips.iter().map(|ip| v1::PodIp { ip: ip.clone() }).collect(),
    }
}

impl Inner {
    async fn describe_sandbox(&self, sandbox: &Sandbox) -> Result<serde_json::Value> {
        let record = sandbox.record();
        let stored = self.record(&record.id).await?;
        let (state, now) = (sandbox.life.state(), record.resources_now());
        let (pid, why) = match &state {
            State::Ready { pid } => (*pid, ""),
            State::Unknown { reason, .. } => (0, reason.as_str()),
            State::Creating | State::NotReady { .. } => (0, ""),
        };
        Ok(json!({
            "pid": pid,
            "processStatus": state.name(),
            "message": why,
            "netNamespaceClosed": !record.host_network() && !crate::pod::teardown::exists(&record.netns).await,
            "image": stored.image,
            "snapshotKey": stored.snapshot_key,
            "snapshotter": stored.snapshotter,
            "runtimeHandler": record.runtime_handler,
            "runtimeType": stored.runtime.as_ref().map(|runtime| runtime.name.as_str()),
            "config": record.config,
            "overhead": now.overhead,
            "resources": now.resources,
            "runtimeSpec": spec_json(&stored),
            "cniResult": record.cni_result,
        }))
    }
}
