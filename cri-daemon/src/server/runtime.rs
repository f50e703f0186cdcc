//! The RuntimeService. The table at the end is the list of what is offered and what is not.

use futures::{StreamExt as _, TryStreamExt as _};
use shared_proto::cri::v1;
use tonic::{Request, Response, Status};

use super::call::{Needs, answer, unimplemented};
use super::v1alpha2;
use crate::Cri;

/// tonic's service over a [`Cri`].
pub struct Service(pub Cri);

/// Writes the service: Version, the RPCs that are methods of [`Cri`], and those that aren't offered.
macro_rules! service {
    (
        unary { $( $method:ident($req:ident) -> $resp:ident, $rpc:literal, $subject:expr; )* }
        streams { $( $listed:ident($listed_req:ident) -> $listed_item:ident as $listed_assoc:ident, $listed_rpc:literal; )* }
        unimplemented { $( $later:ident($later_req:ident) -> $later_resp:ident, $later_rpc:literal; )* }
        unimplemented_streams { $( $stream:ident($stream_req:ident) -> $item:ident as $assoc:ident, $stream_rpc:literal; )* }
    ) => {
        #[tonic::async_trait]
        impl v1::runtime_service_server::RuntimeService for Service {
            async fn version(
                &self,
                request: Request<v1::VersionRequest>,
            ) -> Result<Response<v1::VersionResponse>, Status> {
                let old = v1alpha2::is_old(&request);
                let cri = &self.0;
                let call = |req| async move {
                    let mut version = cri.version(req).await?;
                    if old {
                        version.runtime_api_version = v1alpha2::VERSION.into();
                    }
                    Ok(version)
                };
                answer(cri, "Version", Needs::Nothing, request, |_| String::new(), call).await
            }
            $( async fn $method(&self, request: Request<v1::$req>) -> Result<Response<v1::$resp>, Status> {
                answer(&self.0, $rpc, Needs::Recovery, request, $subject, |req| self.0.$method(req)).await
            } )*
            $( type $listed_assoc = futures::stream::BoxStream<'static, Result<v1::$listed_item, Status>>;
            async fn $listed(&self, request: Request<v1::$listed_req>) -> Result<Response<Self::$listed_assoc>, Status> {
                let call = |req| self.0.$listed(req);
                let answer = answer(&self.0, $listed_rpc, Needs::Recovery, request, |_| String::new(), call).await?;
                Ok(answer.map(|items| items.map_err(Into::into).boxed()))
            } )*
            $( async fn $later(&self, _: Request<v1::$later_req>) -> Result<Response<v1::$later_resp>, Status> {
                unimplemented($later_rpc)
            } )*
            $( type $assoc = futures::stream::BoxStream<'static, Result<v1::$item, Status>>;
            async fn $stream(&self, _: Request<v1::$stream_req>) -> Result<Response<Self::$assoc>, Status> {
                unimplemented($stream_rpc)
            } )*
        }
    };
}

/// `NAMESPACE/NAME` of the pod in a request.
fn pod(config: Option<&v1::PodSandboxConfig>) -> String {
    let metadata = config.and_then(|config| config.metadata.as_ref());
    metadata.map(|m| format!("{}/{}", m.namespace, m.name)).unwrap_or_default()
}

/// `NAME in SANDBOX` of the container in a request.
fn new_container(req: &v1::CreateContainerRequest) -> String {
    let metadata = req.config.as_ref().and_then(|config| config.metadata.as_ref());
    format!("{} in {}", metadata.map(|m| m.name.as_str()).unwrap_or_default(), req.pod_sandbox_id)
}

service! {
    unary {
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse, "RunPodSandbox", |r| pod(r.config.as_ref());
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse, "StopPodSandbox", |r| r.pod_sandbox_id.clone();
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse, "RemovePodSandbox", |r| r.pod_sandbox_id.clone();
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse, "PodSandboxStatus", |r| r.pod_sandbox_id.clone();
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse, "ListPodSandbox", |_| String::new();
        create_container(CreateContainerRequest) -> CreateContainerResponse, "CreateContainer", new_container;
        start_container(StartContainerRequest) -> StartContainerResponse, "StartContainer", |r| r.container_id.clone();
        stop_container(StopContainerRequest) -> StopContainerResponse, "StopContainer", |r| r.container_id.clone();
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse, "RemoveContainer", |r| r.container_id.clone();
        list_containers(ListContainersRequest) -> ListContainersResponse, "ListContainers", |_| String::new();
        container_status(ContainerStatusRequest) -> ContainerStatusResponse, "ContainerStatus", |r| r.container_id.clone();
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse, "ContainerStats", |r| r.container_id.clone();
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse, "ListContainerStats", |_| String::new();
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse, "PodSandboxStats", |r| r.pod_sandbox_id.clone();
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse, "ListPodSandboxStats", |_| String::new();
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse, "ReopenContainerLog", |r| r.container_id.clone();
        exec_sync(ExecSyncRequest) -> ExecSyncResponse, "ExecSync", |r| r.container_id.clone();
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse, "UpdateContainerResources", |r| r.container_id.clone();
        exec(ExecRequest) -> ExecResponse, "Exec", |r| r.container_id.clone();
        attach(AttachRequest) -> AttachResponse, "Attach", |r| r.container_id.clone();
        port_forward(PortForwardRequest) -> PortForwardResponse, "PortForward", |r| r.pod_sandbox_id.clone();
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse, "UpdatePodSandboxResources", |r| r.pod_sandbox_id.clone();
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse, "UpdateRuntimeConfig", |_| String::new();
        status(StatusRequest) -> StatusResponse, "Status", |_| String::new();
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse, "RuntimeConfig", |_| String::new();
    }
    streams {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesResponse as StreamPodSandboxesStream, "StreamPodSandboxes";
        stream_containers(StreamContainersRequest) -> StreamContainersResponse as StreamContainersStream, "StreamContainers";
        stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsResponse as StreamContainerStatsStream, "StreamContainerStats";
        get_container_events(GetEventsRequest) -> ContainerEventResponse as GetContainerEventsStream, "GetContainerEvents";
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsResponse as StreamPodSandboxStatsStream, "StreamPodSandboxStats";
    }
    unimplemented {
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse, "CheckpointContainer";
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse, "ListMetricDescriptors";
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse, "ListPodSandboxMetrics";
    }
    unimplemented_streams {
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> StreamPodSandboxMetricsResponse as StreamPodSandboxMetricsStream, "StreamPodSandboxMetrics";
    }
}
