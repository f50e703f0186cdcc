//! RemoveContainer: kills what still runs, and then leaves nothing behind.

use shared_proto::Result;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;

use crate::call::CLEANUP;
use crate::container::Container;
use crate::{Cri, Inner};

impl Cri {
    pub async fn remove_container(&self, req: v1::RemoveContainerRequest) -> Result<v1::RemoveContainerResponse> {
        if let Some(container) = self.0.containers.find(&req.container_id)? {
            let cri = self.clone();
            let work = async move { cri.0.remove_container_now(&container).await };
            self.detached(work).await.with_context(|| format!("remove container {}", req.container_id))?;
        }
        Ok(v1::RemoveContainerResponse {})
    }
}

impl Inner {
    pub(super) async fn remove_container_now(&self, container: &Container) -> Result<()> {
        // None: somebody else has removed it.
        let Some(removing) = container.life.begin_removal(CLEANUP).await? else { return Ok(()) };
        self.kill(container).await?;
        self.remove_container_parts(container).await?;
        let record = &container.record;
        self.container_names.release(&record.name, &record.id);
        self.container_removed(container);
        removing.done();
        tracing::info!(container = record.id, "container removed");
        Ok(())
    }
}
