//! ContainerStats and ListContainerStats: one pass over the cgroup files, and what is known of the writable layers.
//!
//! A container that does not run has no figures but its layer's. A list leaves out what can't be read; a question for
//! one container is answered with the reason.

use std::sync::Arc;

use shared_proto::Result;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;

use crate::Cri;
use crate::container::Container;
use crate::stats::cgroup::Buffer;
use crate::stats::{Look, StatsError, message, target};

impl Cri {
    pub async fn container_stats(&self, req: v1::ContainerStatsRequest) -> Result<v1::ContainerStatsResponse> {
        let container = self.0.containers.get(&req.container_id)?;
        let id = container.record.id.clone();
        if self.0.stats.layers.used(&container).is_none()
            && let Err(error) = self.0.measure_layer(&container).await
        {
            tracing::debug!(container = id, %error, "its writable layer is not measured");
        }
        let cri = self.clone();
        let stats = shared_sys::blocking(move || cri.stats_of(&container, &mut Buffer::new())).await;
        Ok(v1::ContainerStatsResponse { stats: Some(stats.with_context(|| format!("stats of container {id}"))?) })
    }

    pub async fn list_container_stats(
        &self,
        req: v1::ListContainerStatsRequest,
    ) -> Result<v1::ListContainerStatsResponse> {
        let v1::ContainerStatsFilter { id, pod_sandbox_id, label_selector } = req.filter.unwrap_or_default();
        let filter = v1::ContainerFilter { id, pod_sandbox_id, label_selector, state: None };
        let containers = self.select_containers(&filter);
        let cri = self.clone();
        let stats = shared_sys::blocking(move || cri.stats_of_all(&containers, &mut Buffer::new())).await;
        Ok(v1::ListContainerStatsResponse { stats })
    }

    /// The stats of all that can be read. Blocks, for the kernel's own work only.
    pub(super) fn stats_of_all(&self, containers: &[Arc<Container>], buffer: &mut Buffer) -> Vec<v1::ContainerStats> {
        let each = containers.iter().filter_map(|container| match self.stats_of(container, buffer) {
            Ok(stats) => Some(stats),
            // It ended while we looked.
            Err(StatsError::Gone { .. }) => None,
            Err(error) => {
                tracing::debug!(container = container.record.id, %error, "left out of the list of stats");
                None
            }
        });
        each.collect()
    }

    fn stats_of(&self, container: &Container, buffer: &mut Buffer) -> Result<v1::ContainerStats, StatsError> {
        let look = match target(container) {
            Some(target) => self.0.stats.look(&target, buffer)?,
            None => Look::default(),
        };
        let config = &container.record.config;
        let now = self.0.host.now();
        let layer = self.0.stats.layers.used(container);
        Ok(v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: container.record.id.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            }),
            cpu: message::cpu(&look, now),
            memory: message::memory(&look, now),
            writable_layer: layer.map(|(used, mountpoint)| message::writable_layer(used, mountpoint)),
            swap: message::swap(&look, now),
            io: message::io(&look, now),
        })
    }
}
