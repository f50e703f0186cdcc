//! ListPodSandbox: from memory.

use std::sync::Arc;

use shared_proto::Result;
use shared_proto::cri::v1;

use super::selected;
use crate::Cri;
use crate::pod::Sandbox;

impl Cri {
    pub async fn list_pod_sandbox(&self, req: v1::ListPodSandboxRequest) -> Result<v1::ListPodSandboxResponse> {
        let filter = req.filter.unwrap_or_default();
        let items = self.select_sandboxes(&filter).iter().map(|sandbox| item(sandbox)).collect();
        Ok(v1::ListPodSandboxResponse { items })
    }

    /// The sandboxes that a filter leaves, in the order of their ids. An id may be cut short.
    pub(super) fn select_sandboxes(&self, filter: &v1::PodSandboxFilter) -> Vec<Arc<Sandbox>> {
        let candidates = match filter.id.as_str() {
            "" => self.0.sandboxes.list(),
            id => self.0.sandboxes.get(id).into_iter().collect(),
        };
        let state = filter.state.map(|wanted| wanted.state);
        candidates
            .into_iter()
            .filter(|sandbox| sandbox.listed())
            .filter(|sandbox| state.is_none_or(|state| state == i32::from(sandbox.life.state().cri())))
            .filter(|sandbox| selected(&sandbox.record().config.labels, &filter.label_selector))
            .collect()
    }
}

fn item(sandbox: &Sandbox) -> v1::PodSandbox {
    let record = sandbox.record();
    v1::PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox.life.state().cri().into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}
