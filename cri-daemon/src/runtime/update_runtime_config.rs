//! UpdateRuntimeConfig: the kubelet's pod CIDR, from which a CNI configuration is rendered where there is a template
//! and no network yet.

use shared_proto::Result;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;

use crate::Cri;

impl Cri {
    pub async fn update_runtime_config(
        &self,
        req: v1::UpdateRuntimeConfigRequest,
    ) -> Result<v1::UpdateRuntimeConfigResponse> {
        let cidrs = req.runtime_config.and_then(|config| config.network_config).unwrap_or_default().pod_cidr;
        if !cidrs.is_empty() {
            self.0.network.set_pod_cidr(&cidrs).await.with_context(|| format!("pod CIDR {cidrs:?}"))?;
        }
        Ok(v1::UpdateRuntimeConfigResponse {})
    }
}
