//! A CRI client. Methods named after an RPC panic when it fails; `try_` ones return the status.

use std::path::Path;
use std::time::Duration;

use shared_proto::cri::v1::image_service_client::ImageServiceClient;
use shared_proto::cri::v1::runtime_service_client::RuntimeServiceClient;
use shared_proto::cri::v1::*;
use shared_proto::transport;
use tonic::Status;
use tonic::transport::Channel;

use crate::eventually;

/// Both services of one socket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// The answer of a call.
pub type Answer<T> = Result<T, Status>;

/// `try_NAME` returns the status, `NAME` panics on one.
macro_rules! calls {
    ($($client:ident: $try_name:ident, $name:ident($request:ty) -> $response:ty;)*) => {
        impl Cri {
            $(
                pub async fn $try_name(&self, request: $request) -> Answer<$response> {
                    Ok(self.$client.clone().$name(request).await?.into_inner())
                }
                pub async fn $name(&self, request: $request) -> $response {
                    let shown = format!("{request:?}");
                    self.$try_name(request).await.unwrap_or_else(|e| panic!("{}: {e:?}\nrequest: {shown}", stringify!($name)))
                }
            )*
        }
    };
}

calls! {
    runtime: try_status, status(StatusRequest) -> StatusResponse;
    runtime: try_runtime_config, runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    runtime: try_update_runtime_config, update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    runtime: try_run_pod_sandbox, run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    runtime: try_stop_pod_sandbox, stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    runtime: try_remove_pod_sandbox, remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    runtime: try_pod_sandbox_status, pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    runtime: try_list_pod_sandbox, list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
    runtime: try_create_container, create_container(CreateContainerRequest) -> CreateContainerResponse;
    runtime: try_start_container, start_container(StartContainerRequest) -> StartContainerResponse;
    runtime: try_stop_container, stop_container(StopContainerRequest) -> StopContainerResponse;
    runtime: try_remove_container, remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    runtime: try_container_status, container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    runtime: try_list_containers, list_containers(ListContainersRequest) -> ListContainersResponse;
    runtime: try_exec_sync, exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    runtime: try_exec, exec(ExecRequest) -> ExecResponse;
    runtime: try_attach, attach(AttachRequest) -> AttachResponse;
    runtime: try_port_forward, port_forward(PortForwardRequest) -> PortForwardResponse;
    runtime: try_checkpoint_container, checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    runtime: try_reopen_container_log, reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    runtime: try_container_stats, container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    runtime: try_list_container_stats, list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    runtime: try_pod_sandbox_stats, pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    runtime: try_list_pod_sandbox_stats, list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    runtime: try_update_container_resources, update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    runtime: try_update_pod_sandbox_resources, update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    images: try_list_images, list_images(ListImagesRequest) -> ListImagesResponse;
    images: try_image_status, image_status(ImageStatusRequest) -> ImageStatusResponse;
    images: try_pull_image, pull_image(PullImageRequest) -> PullImageResponse;
    images: try_remove_image, remove_image(RemoveImageRequest) -> RemoveImageResponse;
    images: try_image_fs_info, image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
}

/// A call that must be refused: with this code, and a message that names the thing.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(what: &str, answer: Answer<T>, code: tonic::Code, names: &str) {
    let status = answer.expect_err(what);
    assert_eq!(status.code(), code, "{what}: {status:?}");
    assert!(status.message().contains(names), "{what}: the message does not name {names:?}: {status:?}");
}

/// The image spec of a reference.
pub fn image(reference: &str) -> ImageSpec {
    ImageSpec { image: reference.into(), ..Default::default() }
}

impl Cri {
    /// A client that connects at its first call, and again after a restart of the daemon.
    pub fn connect(socket: &Path) -> Self {
        let channel = transport::unix(socket);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(transport::MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(transport::MAX_MESSAGE),
        }
    }

    /// The client itself, for the calls that answer a stream.
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    pub async fn version(&self) -> Answer<VersionResponse> {
        let request = VersionRequest { version: "0.1.0".into() };
        Ok(self.runtime.clone().version(request).await?.into_inner())
    }

    /// Pulls anonymously; answers what a kubelet puts into `ContainerConfig.image` afterwards.
    pub async fn pull(&self, reference: &str) -> String {
        let request = PullImageRequest { image: Some(image(reference)), ..Default::default() };
        self.pull_image(request).await.image_ref
    }

    /// The image record of a reference or id, if there is one.
    pub async fn find_image(&self, reference: &str) -> Option<Image> {
        self.image_status(ImageStatusRequest { image: Some(image(reference)), verbose: false }).await.image
    }

    pub async fn list_pods(&self, request: ListPodSandboxRequest) -> Vec<PodSandbox> {
        self.list_pod_sandbox(request).await.items
    }

    pub async fn try_run_pod(&self, config: &PodSandboxConfig) -> Answer<String> {
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        Ok(self.try_run_pod_sandbox(request).await?.pod_sandbox_id)
    }

    pub async fn run_pod(&self, config: &PodSandboxConfig) -> String {
        let name = &config.metadata.as_ref().expect("the pod has metadata").name;
        self.try_run_pod(config).await.unwrap_or_else(|e| panic!("run pod {name}: {e:?}"))
    }

    pub async fn pod_status(&self, pod: &str) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
        self.pod_sandbox_status(request).await.status.expect("a pod's status")
    }

    /// The pod's address.
    pub async fn pod_ip(&self, pod: &str) -> String {
        self.pod_status(pod).await.network.map(|n| n.ip).unwrap_or_default()
    }

    pub async fn try_stop_pod(&self, pod: &str) -> Answer<()> {
        self.try_stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.into() }).await.map(drop)
    }

    pub async fn try_remove_pod(&self, pod: &str) -> Answer<()> {
        self.try_remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod.into() }).await.map(drop)
    }

    /// Stops and removes a pod, and its containers with it.
    pub async fn end_pod(&self, pod: &str) {
        self.try_stop_pod(pod).await.unwrap_or_else(|e| panic!("stop pod {pod}: {e:?}"));
        self.try_remove_pod(pod).await.unwrap_or_else(|e| panic!("remove pod {pod}: {e:?}"));
    }

    pub async fn try_create(&self, pod: &str, sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Answer<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.try_create_container(request).await?.container_id)
    }

    pub async fn create(&self, pod: &str, sandbox: &PodSandboxConfig, config: &ContainerConfig) -> String {
        self.try_create(pod, sandbox, config).await.unwrap_or_else(|e| panic!("create {config:?}: {e:?}"))
    }

    pub async fn try_start(&self, container: &str) -> Answer<()> {
        self.try_start_container(StartContainerRequest { container_id: container.into() }).await.map(drop)
    }

    /// Creates and starts a container.
    pub async fn run(&self, pod: &str, sandbox: &PodSandboxConfig, config: &ContainerConfig) -> String {
        let id = self.create(pod, sandbox, config).await;
        self.try_start(&id).await.unwrap_or_else(|e| panic!("start {config:?}: {e:?}"));
        id
    }

    pub async fn try_stop(&self, container: &str, timeout: i64) -> Answer<()> {
        self.try_stop_container(StopContainerRequest { container_id: container.into(), timeout }).await.map(drop)
    }

    pub async fn try_remove(&self, container: &str) -> Answer<()> {
        self.try_remove_container(RemoveContainerRequest { container_id: container.into() }).await.map(drop)
    }

    pub async fn try_container(&self, container: &str) -> Answer<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: container.into(), verbose: false };
        Ok(self.try_container_status(request).await?.status.expect("a container's status"))
    }

    pub async fn container(&self, container: &str) -> ContainerStatus {
        self.try_container(container).await.unwrap_or_else(|e| panic!("status of container {container}: {e:?}"))
    }

    /// The verbose information of a container, parsed.
    pub async fn container_info(&self, container: &str) -> serde_json::Value {
        let request = ContainerStatusRequest { container_id: container.into(), verbose: true };
        let info = self.container_status(request).await.info;
        let text = info.get("info").unwrap_or_else(|| panic!("container {container} has no info: {info:?}"));
        serde_json::from_str(text).unwrap_or_else(|e| panic!("info of container {container}: {e}: {text}"))
    }

    /// The pid of a container's first process, on the host.
    pub async fn pid(&self, container: &str) -> i32 {
        let info = self.container_info(container).await;
        info["pid"].as_i64().unwrap_or_else(|| panic!("no pid in {info}")) as i32
    }

    /// Waits until a container has exited.
    pub async fn exited(&self, container: &str) -> ContainerStatus {
        eventually(format!("container {container} exits"), Duration::from_secs(15), || async {
            match self.try_container(container).await {
                Ok(status) if status.state() == ContainerState::ContainerExited => Ok(status),
                Ok(status) => Err(format!("it is {:?}", status.state())),
                Err(e) => Err(e.to_string()),
            }
        })
        .await
    }

    /// Waits until a container made by [`crate::pod::sleeper`] sleeps: no process of it is still to come.
    pub async fn asleep(&self, container: &str) {
        self.exec_ok(container, &["sh", "-c", "until busybox pidof sleep; do usleep 10000; done"]).await;
    }

    pub async fn try_exec_in(&self, container: &str, cmd: &[&str], timeout: i64) -> Answer<ExecSyncResponse> {
        let cmd = cmd.iter().map(|&w| w.to_owned()).collect();
        self.try_exec_sync(ExecSyncRequest { container_id: container.into(), cmd, timeout }).await
    }

    /// Runs a command in a container; it must succeed. Answers its output.
    pub async fn exec_ok(&self, container: &str, cmd: &[&str]) -> String {
        let answer =
            self.try_exec_in(container, cmd, 20).await.unwrap_or_else(|e| panic!("exec {cmd:?} in {container}: {e:?}"));
        let (out, err) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        assert_eq!(answer.exit_code, 0, "exec {cmd:?} in {container}: stdout {out:?}, stderr {err:?}");
        out.into_owned()
    }
}
