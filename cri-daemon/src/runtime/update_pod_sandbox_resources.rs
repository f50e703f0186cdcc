//! UpdatePodSandboxResources: what the kubelet has changed a pod's resources and overhead to.
//!
//! The pod's cgroup is the kubelet's own: it sets the limits there itself and tells the runtime what they are, so, as
//! in containerd, nothing is set here. They are kept in the sandbox's record, for the next daemon and for whoever looks
//! at the pod (verbose status). `config` stays as it was asked for: a request that is sent again must find itself
//! there. What a request does not name stays as it is; what it names is replaced as a whole.
//! Limit: shims are not told, so the size of a virtual machine does not change.

use shared_proto::Result;
use shared_proto::cri::v1::{UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};
use shared_proto::errdefs::ResultExt as _;

use crate::pod::record::{self, PodResources};
use crate::pod::{Record, Sandbox};
use crate::{Cri, Inner, spec};

impl Cri {
    pub async fn update_pod_sandbox_resources(
        &self,
        req: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse> {
        let sandbox = self.0.sandboxes.get(&req.pod_sandbox_id)?;
        let id = sandbox.record().id.clone();
        let cri = self.clone();
        let work = async move {
            // Nobody removes the record meanwhile.
            let (_admitted, _) = sandbox.life.admit()?;
            cri.0.update_pod_resources(&sandbox, req).await
        };
        self.detached(work).await.with_context(|| format!("update the resources of sandbox {id}"))?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}

impl Inner {
    async fn update_pod_resources(&self, sandbox: &Sandbox, req: UpdatePodSandboxResourcesRequest) -> Result<()> {
        for (field, limits) in [("overhead", &req.overhead), ("resources", &req.resources)] {
            if let Some(limits) = limits {
                spec::check_limits(field, limits, &self.config.runtime, self.host.facts())?;
            }
        }
        let _one = sandbox.updating.lock().await;
        let old = sandbox.record();
        let before = old.resources_now();
        let now =
            PodResources { overhead: req.overhead.or(before.overhead), resources: req.resources.or(before.resources) };
        let new = Record { updated_resources: Some(now), ..(*old).clone() };
        self.complete_record(&old.id, None, Some((record::EXTENSION, new.to_any()?))).await?;
        sandbox.set_record(new);
        tracing::info!(sandbox = old.id, "resources of the pod noted");
        Ok(())
    }
}
