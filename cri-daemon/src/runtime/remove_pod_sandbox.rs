//! RemovePodSandbox: ends what still runs, removes the containers, and then leaves nothing behind.

use futures::future::join_all;
use shared_proto::Result;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;

use crate::Cri;
use crate::call::CLEANUP;
use crate::pod::teardown::Problems;

impl Cri {
    pub async fn remove_pod_sandbox(&self, req: v1::RemovePodSandboxRequest) -> Result<v1::RemovePodSandboxResponse> {
        if let Some(sandbox) = self.0.sandboxes.find(&req.pod_sandbox_id)? {
            let cri = self.clone();
            let work = async move {
                let inner = &cri.0;
                // None: somebody else has removed it.
                let Some(ending) = sandbox.life.end(CLEANUP).await? else { return Ok(()) };
                inner.stop_sandbox(&sandbox).await?;
                let record = sandbox.record();
                let containers = inner.containers_of(&record.id);
                let mut problems = Problems::default();
                for outcome in join_all(containers.iter().map(|c| inner.remove_container_now(c))).await {
                    problems.check(outcome);
                }
                problems.result()?;
                inner.remove_sandbox_parts(&record.id, &sandbox.snapshotter).await?;
                inner.sandbox_names.release(&record.name, &record.id);
                inner.sandbox_removed(&sandbox);
                ending.removed();
                tracing::info!(sandbox = record.id, "sandbox removed");
                Ok(())
            };
            self.detached(work).await.with_context(|| format!("remove sandbox {}", req.pod_sandbox_id))?;
        }
        Ok(v1::RemovePodSandboxResponse {})
    }
}
