//! A CRI service over a core in memory, a machine in memory and a network of shell script, for tests.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use shared_config::Config;
use shared_proto::containerd::{Descriptor, containers as c, images as i, snapshots as s};
use shared_proto::core::Wiring;
use shared_proto::cri::v1;
use shared_proto::fake::FakeCore;
use shared_proto::meter::Meter;
use shared_proto::{Context, Result};

use crate::host::FakeHost;
use crate::{Cri, NAMESPACE};

/// Answers ADD with an address and writes every call to `calls`; fails while `fail` exists, waits while `hold` does.
const PLUGIN: &str = r#"#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND $CNI_CONTAINERID" >> DIR/calls
while [ -e DIR/hold ]; do sleep 0.02; done
if [ -e DIR/fail ] && [ "$CNI_COMMAND" = ADD ]; then
  echo '{"cniVersion":"0.4.0","code":100,"msg":"no address left"}'
  exit 1
fi
if [ "$CNI_COMMAND" = ADD ]; then
  echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","address":"10.9.0.2/16","gateway":"10.9.0.1","interface":0}]}'
fi
"#;

pub struct World {
    pub fake: FakeCore,
    pub host: Arc<FakeHost>,
    pub cri: Cri,
    pub config: Config,
    pub dir: tempfile::TempDir,
}

impl World {
    /// A service that is ready, with the sandbox image and `app` in place.
    pub async fn new() -> Self {
        Self::with(FakeHost::default(), |_| ()).await
    }

    /// The same on another machine, with another configuration.
    pub async fn with(host: FakeHost, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { root: dir.path().join("root"), state: dir.path().join("state"), ..Config::default() };
        config.runtime.cni.conf_dir = dir.path().join("net.d");
        config.runtime.cni.bin_dirs = vec![dir.path().join("bin")];
        config.runtime.netns_mounts_under_state_dir = true;
        std::fs::create_dir_all(&config.runtime.cni.conf_dir).unwrap();
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        let network = r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"script"}]}"#;
        std::fs::write(config.runtime.cni.conf_dir.join("10-test.conflist"), network).unwrap();
        let plugin = dir.path().join("bin/script");
        std::fs::write(&plugin, PLUGIN.replace("DIR", &dir.path().to_string_lossy())).unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();

        change(&mut config);
        let (fake, host) = (FakeCore::default(), Arc::new(host));
        for name in [config.images.sandbox_image.as_str(), "docker.io/library/app:1"] {
            image(&fake, name).await;
        }
        let cri = serve(&fake, &host, &config, &dir.path().join("cni"));
        cri.start().await.unwrap();
        Self { fake, host, cri, config, dir }
    }

    /// The daemon is gone and another one begins on the same core and folders.
    pub async fn restart(&mut self) {
        self.cri.stop(Duration::from_secs(5)).await;
        self.cri = serve(&self.fake, &self.host, &self.config, &self.dir.path().join("cni"));
        self.cri.start().await.unwrap();
    }

    /// Makes a file that the network plugin looks for, or takes it away.
    pub fn plugin(&self, file: &str, there: bool) {
        let path = self.dir.path().join(file);
        if there { std::fs::write(path, "").unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    /// What the network plugin was asked to do.
    pub fn plugin_calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        calls.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    pub async fn run(&self, name: &str) -> Result<String> {
        let request = v1::RunPodSandboxRequest { config: Some(pod(name)), runtime_handler: String::new() };
        self.cri.run_pod_sandbox(request).await.map(|answer| answer.pod_sandbox_id)
    }

    pub async fn create(&self, sandbox: &str, name: &str) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(container(name)),
            sandbox_config: None,
        };
        self.cri.create_container(request).await.map(|answer| answer.container_id)
    }

    pub async fn start(&self, id: &str) -> Result<()> {
        self.cri.start_container(v1::StartContainerRequest { container_id: id.into() }).await.map(drop)
    }

    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        self.cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() }).await.map(drop)
    }

    pub async fn pod_state(&self, id: &str) -> Option<v1::PodSandboxState> {
        let list = self.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
        list.items.iter().find(|item| item.id == id).map(v1::PodSandbox::state)
    }

    pub async fn status(&self, id: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.cri.container_status(request).await.unwrap().status.unwrap()
    }

    /// Waits until the container has ended.
    pub async fn ended(&self, id: &str) -> v1::ContainerStatus {
        for _ in 0..500 {
            let status = self.status(id).await;
            if status.state() == v1::ContainerState::ContainerExited {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} has not ended")
    }

    /// Everything that is left anywhere, by name.
    pub async fn left(&self) -> Vec<String> {
        let (core, cx) = (self.fake.core(), Context::new(NAMESPACE));
        let mut left: Vec<String> = core
            .tasks
            .list(&cx, Default::default())
            .await
            .unwrap()
            .tasks
            .into_iter()
            .map(|t| format!("task {}", t.id))
            .collect();
        let records = core.containers.list(&cx, c::ListContainersRequest::default()).await.unwrap().containers;
        left.extend(records.into_iter().map(|record| format!("record {}", record.id)));
        let list = s::ListSnapshotsRequest { snapshotter: "overlayfs".into(), ..Default::default() };
        let mut snapshots = core.snapshots.list(&cx, list).await.unwrap();
        while let Some(page) = snapshots.next().await {
            left.extend(page.unwrap().info.into_iter().map(|info| format!("snapshot {}", info.name)));
        }
        left.extend(self.host.netns().iter().chain(&self.host.mounts()).map(|path| path.display().to_string()));
        let (sandboxes, containers) = crate::paths::by_id(&self.config);
        for folder in sandboxes.iter().chain(&containers) {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        left
    }
}

fn serve(fake: &FakeCore, host: &Arc<FakeHost>, config: &Config, cni_cache: &std::path::Path) -> Cri {
    let meter = Meter::default();
    Cri::with_cni_cache(
        fake.core().metered(&meter, false),
        meter,
        Wiring::Merged,
        config.clone(),
        host.clone(),
        cni_cache,
    )
}

async fn image(fake: &FakeCore, name: &str) {
    let put = |blob: serde_json::Value| {
        let bytes = blob.to_string().into_bytes();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        fake.put_blob(NAMESPACE, &digest, bytes);
        digest
    };
    let architecture = crate::image::platform::Platform::host().architecture;
    let config = put(serde_json::json!({
        "os": "linux", "architecture": architecture, "config": { "Entrypoint": [format!("/{name}")] },
        "rootfs": { "type": "layers", "diff_ids": [] },
    }));
    let manifest =
        put(serde_json::json!({ "schemaVersion": 2, "config": { "digest": config, "size": 1 }, "layers": [] }));
    let target = Descriptor { digest: manifest, ..Default::default() };
    let record = i::Image { name: name.into(), target: Some(target), ..Default::default() };
    let request = i::CreateImageRequest { image: Some(record), source_date_epoch: None };
    fake.core().images.create(&Context::new(NAMESPACE), request).await.unwrap();
}

pub fn pod(name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(v1::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

pub fn container(name: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "app:1".into(), ..Default::default() }),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

/// Folders of a container's FIFOs that are there.
pub fn fifos(world: &World, id: &str) -> Option<PathBuf> {
    Some(crate::paths::container(&world.config, id).io()).filter(|path| path.exists())
}
