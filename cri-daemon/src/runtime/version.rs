//! Version: who answers, and in which version of CRI. The kubelet compares `version` literally.

use shared_proto::Result;
use shared_proto::cri::v1;

use crate::Cri;

/// The version of the kubelet's runtime API, which has been the same since 2016.
const KUBE_API: &str = "0.1.0";
const NAME: &str = "seam";

impl Cri {
    pub async fn version(&self, _: v1::VersionRequest) -> Result<v1::VersionResponse> {
        Ok(v1::VersionResponse {
            version: KUBE_API.into(),
            runtime_name: NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }
}
