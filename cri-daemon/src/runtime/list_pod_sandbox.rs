//! ListPodSandbox: from memory.

use shared_proto::Result;
use shared_proto::cri::v1;

use super::selected;
use crate::Cri;

impl Cri {
    pub async fn list_pod_sandbox(&self, req: v1::ListPodSandboxRequest) -> Result<v1::ListPodSandboxResponse> {
        let filter = req.filter.unwrap_or_default();
        let candidates = match filter.id.as_str() {
            "" => self.0.sandboxes.list(),
            id => self.0.sandboxes.get(id).into_iter().collect(),
        };
        let items = candidates.iter().filter(|sandbox| sandbox.listed()).map(|sandbox| {
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
        });
        let state = filter.state.map(|wanted| wanted.state);
        let items = items.filter(|item| state.is_none_or(|state| state == item.state));
        let items = items.filter(|item| selected(&item.labels, &filter.label_selector)).collect();
        Ok(v1::ListPodSandboxResponse { items })
    }
}
