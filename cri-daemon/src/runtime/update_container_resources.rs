//! UpdateContainerResources: other limits for a container that was created or runs.
//!
//! ```text
//!  merge ─▶ spec and record, in one step ─▶ look again ─┬─ created: they count from the start
//!                                                       └─ runs: the task's cgroup ──failed──▶ all of it back
//! ```
//!
//! One update of a container at a time. A start that comes in between has the old spec or the new one; the second look
//! waits for it, and gives the task the new limits in either case. Limit: a daemon that is killed between the record
//! and the task leaves a record that is ahead of the cgroup until the next update.

use std::sync::Arc;

use prost_types::Any;
use shared_proto::cri::v1::{UpdateContainerResourcesRequest, UpdateContainerResourcesResponse};
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result, any};

use crate::container::{Container, Record, State, record};
use crate::{Cri, Inner, spec};

impl Cri {
    pub async fn update_container_resources(
        &self,
        req: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse> {
        let container = self.0.containers.get(&req.container_id)?;
        let id = container.record.id.clone();
        let cri = self.clone();
        self.detached(async move { cri.0.update_resources(&container, req).await })
            .await
            .with_context(|| format!("update the resources of container {id}"))?;
        Ok(UpdateContainerResourcesResponse {})
    }
}

impl Inner {
    async fn update_resources(&self, container: &Arc<Container>, req: UpdateContainerResourcesRequest) -> Result<()> {
        let id = container.record.id.as_str();
        let _one = container.updating.lock().await;
        container.life.settled().await;
        container.life.may_change()?;
        let stored = self.record(id).await?;
        let old_spec = stored.spec.map(|spec| spec.value).unwrap_or_default();
        let old_extension = stored.extensions.get(record::EXTENSION).cloned();
        let old_extension = old_extension.ok_or_else(|| Error::precondition("it has no record of ours"))?;

        let limits = spec::merge(&container.resources().unwrap_or_default(), &req.linux.unwrap_or_default());
        let updated = spec::update(&old_spec, &limits, &self.config.runtime, self.host.facts())?;
        let new = Record { resources: Some(limits.clone()), ..container.record.clone() };
        self.write_resources(id, updated.spec, new.to_any()?).await?;
        match self.update_running(container, updated.resources, req.annotations).await {
            Ok(()) => {
                container.set_resources(limits);
                tracing::info!(container = id, "resources updated");
                Ok(())
            }
            Err(e) => Err(self.take_back(container, e, old_spec, old_extension).await),
        }
    }

    async fn write_resources(&self, id: &str, spec: Vec<u8>, extension: Any) -> Result<()> {
        self.complete_record(id, Some(spec), Some((record::EXTENSION, extension))).await
    }

    /// Gives the limits to the process, if there is one now.
    async fn update_running(
        &self,
        container: &Container,
        resources: Vec<u8>,
        annotations: std::collections::BTreeMap<String, String>,
    ) -> Result<()> {
        match container.life.settled().await {
            State::Running { .. } => {}
            // Ended meanwhile: there is nobody to limit.
            State::Created | State::Starting | State::Exited(_) | State::Unknown { .. } => return Ok(()),
        }
        let resources = any::raw(any::LINUX_RESOURCES, resources);
        match self.update_task(&container.record.id, resources, annotations).await {
            Err(e) if e.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// Puts back what was there, as far as that goes. The error to answer.
    async fn take_back(&self, container: &Container, mut e: Error, spec: Vec<u8>, extension: Any) -> Error {
        let id = container.record.id.as_str();
        // A call that failed may have done a part, or all of it.
        let old = spec::resources_of(&spec);
        if let Err(again) = self.update_running(container, old, Default::default()).await {
            tracing::warn!(container = id, error = %again, "the limits of before could not be set again");
        }
        if let Err(again) = self.write_resources(id, spec, extension).await {
            e.message.push_str("; ");
            e.message.push_str(&again.message);
        }
        e
    }
}
