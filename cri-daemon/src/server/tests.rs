//! The services over a real socket, with a core in memory behind them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared_proto::core::Wiring;
use shared_proto::cri::v1;
use shared_proto::fake::FakeCore;
use shared_proto::meter::Meter;
use shared_proto::transport;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

use super::*;
use crate::host::FakeHost;

struct World {
    dir: tempfile::TempDir,
    cri: Cri,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl World {
    /// A server that is up, and a CRI that is not recovered yet.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = shared_config::Config {
            root: dir.path().join("root"),
            state: dir.path().join("state"),
            ..Default::default()
        };
        let meter = Meter::default();
        let core = FakeCore::default().core().metered(&meter, false);
        let cri = Cri::new(core, meter, Wiring::Merged, config, Arc::new(FakeHost::default()));
        let access = shared_sys::socket::Access { mode: 0o600, ..Default::default() };
        let listener = shared_sys::socket::bind(&dir.path().join("cri.sock"), access).unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, cri.clone(), stop.clone().cancelled_owned()));
        Self { dir, cri, stop, server }
    }

    async fn ready() -> Self {
        let world = Self::new();
        world.cri.start().await.unwrap();
        world
    }

    fn channel(&self) -> Channel {
        let path: PathBuf = self.dir.path().join("cri.sock");
        transport::unix(path)
    }

    async fn stop(self) {
        self.cri.stop(Duration::from_secs(5)).await;
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.server).await.unwrap().unwrap().unwrap();
        assert!(!self.dir.path().join("cri.sock").exists(), "a socket goes with its server");
    }
}

/// Calls a method by its path, as a client of another version of the protocol would.
async fn call<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let answer = grpc.unary(tonic::Request::new(request), path.parse().unwrap(), codec).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn nothing_but_the_version_is_told_before_recovery() {
    let world = World::new();
    let mut runtime = RuntimeServiceClient::new(world.channel());
    let version = runtime.version(v1::VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1"));
    assert!(!version.runtime_name.is_empty() && version.runtime_version.contains('.'));
    for status in [
        runtime.status(v1::StatusRequest::default()).await.unwrap_err(),
        ImageServiceClient::new(world.channel()).list_images(v1::ListImagesRequest::default()).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    world.cri.start().await.unwrap();
    runtime.status(v1::StatusRequest::default()).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn status_tells_conditions_handlers_and_what_the_seam_cost() {
    let world = World::ready().await;
    let mut runtime = RuntimeServiceClient::new(world.channel());
    let status = runtime.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner();
    let conditions: Vec<_> = status.status.unwrap().conditions.into_iter().map(|c| (c.r#type, c.status)).collect();
    assert!(conditions.contains(&("RuntimeReady".into(), true)), "{conditions:?}");
    assert!(conditions.iter().any(|(kind, _)| kind == "NetworkReady") && conditions.len() == 3);
    let handlers: Vec<_> = status.runtime_handlers.into_iter().map(|handler| handler.name).collect();
    assert_eq!(handlers, ["", "runc"]);
    let seam: serde_json::Value = serde_json::from_str(&status.info["seam"]).unwrap();
    assert_eq!(seam["wiring"], "merged");
    assert!(seam["samples"].as_array().is_some_and(|samples| !samples.is_empty()), "{seam}");
    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert_eq!(config["cri"]["wiring"], "split", "the configuration as it was given");
    world.stop().await;
}

#[tokio::test]
async fn the_old_version_is_the_same_service_under_another_name() {
    let world = World::ready().await;
    let version: v1::VersionResponse =
        call(world.channel(), "/runtime.v1alpha2.RuntimeService/Version", v1::VersionRequest::default()).await.unwrap();
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1alpha2"));
    let fs: v1::ImageFsInfoResponse =
        call(world.channel(), "/runtime.v1alpha2.ImageService/ImageFsInfo", v1::ImageFsInfoRequest {}).await.unwrap();
    assert_eq!(fs.image_filesystems[0].fs_id.as_ref().unwrap().mountpoint, "/fake");
    let later = call::<_, v1::RuntimeConfigResponse>(
        world.channel(),
        "/runtime.v1alpha2.RuntimeService/RuntimeConfig",
        v1::RuntimeConfigRequest {},
    );
    assert_eq!(later.await.unwrap_err().code(), Code::Unimplemented);
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_offered_names_itself_and_errors_keep_their_codes() {
    let world = World::ready().await;
    let mut runtime = RuntimeServiceClient::new(world.channel());
    let status = runtime.checkpoint_container(v1::CheckpointContainerRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("CheckpointContainer"), "{status:?}");
    let request = v1::ContainerStatusRequest { container_id: "feed".into(), verbose: false };
    let status = runtime.container_status(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("feed"), "{status:?}");

    let mut images = ImageServiceClient::new(world.channel());
    let unnamed = images.pull_image(v1::PullImageRequest::default()).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
    let spec = |image: &str| Some(v1::ImageSpec { image: image.into(), ..Default::default() });
    let unknown = v1::ImageStatusRequest { image: spec("nowhere"), verbose: true };
    assert_eq!(images.image_status(unknown).await.unwrap().into_inner().image, None);
    images.remove_image(v1::RemoveImageRequest { image: spec("nowhere") }).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn health_is_told() {
    let world = World::new();
    let mut health = tonic_health::pb::health_client::HealthClient::new(world.channel());
    let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::ServingStatus::Serving.into());
    world.stop().await;
}
