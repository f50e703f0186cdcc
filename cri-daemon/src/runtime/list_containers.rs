//! ListContainers: from memory.

use std::sync::Arc;

use shared_proto::Result;
use shared_proto::cri::v1;

use super::selected;
use crate::Cri;
use crate::container::Container;

impl Cri {
    pub async fn list_containers(&self, req: v1::ListContainersRequest) -> Result<v1::ListContainersResponse> {
        let filter = req.filter.unwrap_or_default();
        let containers = self.select_containers(&filter).iter().map(|container| item(container)).collect();
        Ok(v1::ListContainersResponse { containers })
    }

    /// The containers that a filter leaves, in the order of their ids. Ids may be cut short.
    pub(super) fn select_containers(&self, filter: &v1::ContainerFilter) -> Vec<Arc<Container>> {
        let sandbox = match filter.pod_sandbox_id.as_str() {
            "" => None,
            id => match self.0.sandboxes.get(id) {
                Ok(sandbox) => Some(sandbox.record().id.clone()),
                // A sandbox that is gone may have left containers behind: compare with what was asked for.
                Err(_) => Some(id.to_owned()),
            },
        };
        let candidates = match filter.id.as_str() {
            "" => self.0.containers.list(),
            id => self.0.containers.get(id).into_iter().collect(),
        };
        let state = filter.state.map(|wanted| wanted.state);
        candidates
            .into_iter()
            .filter(|container| sandbox.as_ref().is_none_or(|id| *id == container.record.sandbox_id))
            .filter(|container| state.is_none_or(|state| state == i32::from(container.life.state().cri())))
            .filter(|container| selected(&container.record.config.labels, &filter.label_selector))
            .collect()
    }
}

fn item(container: &Container) -> v1::Container {
    let record = &container.record;
    v1::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        state: container.life.state().cri().into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_ref.clone(),
    }
}
