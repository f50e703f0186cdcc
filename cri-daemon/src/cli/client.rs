//! A plain CRI client: what `run`, `rm`, `why`, `trace`, `bill` and `seam` are, in every wiring.

use std::path::Path;

use shared_proto::cri::v1;
use shared_proto::seam::v1::starts_client::StartsClient;
use shared_proto::transport::{self, MAX_MESSAGE};
use tonic::transport::Channel;
use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

#[derive(Clone)]
pub struct Client {
    pub starts: StartsClient<Channel>,
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
}

impl Client {
    /// Connects to the CRI socket at `address`.
    pub async fn connect(address: &Path) -> anyhow::Result<Self> {
        let channel = transport::unix_now(address)
            .await
            .map_err(|e| anyhow::anyhow!("{e}; is the daemon running, and is this its CRI socket?"))?;
        Ok(Self {
            starts: StartsClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    pub async fn container(&mut self, id: &str, verbose: bool) -> anyhow::Result<v1::ContainerStatusResponse> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose };
        said(self.runtime.container_status(request).await)
    }

    pub async fn sandbox(&mut self, id: &str, verbose: bool) -> anyhow::Result<v1::PodSandboxStatusResponse> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        said(self.runtime.pod_sandbox_status(request).await)
    }

    /// Stops and removes a pod with its containers.
    pub async fn remove_sandbox(&mut self, id: &str) -> anyhow::Result<()> {
        let pod_sandbox_id = id.to_owned();
        said(self.runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id }).await)?;
        let pod_sandbox_id = id.to_owned();
        said(self.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id }).await)?;
        Ok(())
    }
}

/// The answer, or the error as the daemon worded it, without gRPC's wrapping.
pub fn said<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> anyhow::Result<T> {
    Ok(answer.map_err(shared_proto::Error::from)?.into_inner())
}
