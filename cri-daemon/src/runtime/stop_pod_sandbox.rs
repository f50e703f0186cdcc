//! StopPodSandbox: ends the containers, the pause process and the network. What is stored stays, for RemovePodSandbox.

use std::sync::Arc;

use futures::future::join_all;
use shared_proto::Result;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;

use crate::call::CLEANUP;
use crate::container::Container;
use crate::pod::teardown::Problems;
use crate::pod::{Leftover, Sandbox, State};
use crate::{Cri, Inner};

impl Cri {
    pub async fn stop_pod_sandbox(&self, req: v1::StopPodSandboxRequest) -> Result<v1::StopPodSandboxResponse> {
        if let Some(sandbox) = self.0.sandboxes.find(&req.pod_sandbox_id)? {
            let cri = self.clone();
            self.detached(async move {
                // None: removed meanwhile.
                let Some(_ending) = sandbox.life.end(CLEANUP).await? else { return Ok(()) };
                cri.0.stop_sandbox(&sandbox).await
            })
            .await
            .with_context(|| format!("stop sandbox {}", req.pod_sandbox_id))?;
        }
        Ok(v1::StopPodSandboxResponse {})
    }
}

impl Inner {
    /// Ends what runs of a sandbox and its containers. The caller has the right to end it.
    pub(super) async fn stop_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        let record = sandbox.record();
        let containers = self.containers_of(&record.id);
        let mut problems = Problems::default();
        for outcome in join_all(containers.iter().map(|container| self.kill(container))).await {
            problems.check(outcome);
        }
        problems.result()?;
        if sandbox.life.state() == (State::NotReady { network: Leftover::Nothing }) {
            return Ok(());
        }
        self.stop_sandbox_parts(&record).await?;
        self.sandbox_ended(sandbox, Leftover::Nothing);
        self.stats.forget(&record.id);
        tracing::info!(sandbox = record.id, "sandbox stopped");
        Ok(())
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers.list().into_iter().filter(|container| container.record.sandbox_id == sandbox).collect()
    }
}
