//! The configurations that a kubelet would send, with few words.

use std::path::PathBuf;

use shared_proto::cri::v1::*;

use crate::cri::{Cri, image};
use crate::fixtures::{BUSYBOX, PAUSE};
use crate::{Wiring, World};

impl World {
    /// A pod of this world: its logs, its cgroup.
    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "e2e".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.pod_logs(name).display().to_string(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.0.0.10".into()],
                searches: vec!["e2e.svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            labels: [("app".to_owned(), name.to_owned())].into(),
            annotations: [("e2e/note".to_owned(), "kept".to_owned())].into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.slot.name()),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// The folder of a pod's logs.
    pub fn pod_logs(&self, pod: &str) -> PathBuf {
        self.paths.logs.join(pod)
    }

    /// The log of a container made by [`container`], in its first attempt.
    pub fn log(&self, pod: &str, container: &str) -> PathBuf {
        self.pod_logs(pod).join(format!("{container}/0.log"))
    }
}

/// A world with the usual images and one ready pod in it: the world, its client, the pod's configuration and id.
pub async fn ready(wiring: Wiring, name: &str) -> (World, Cri, PodSandboxConfig, String) {
    ready_in(crate::world(wiring).await, name).await
}

/// The same in a world that the test has made.
pub async fn ready_in(world: World, name: &str) -> (World, Cri, PodSandboxConfig, String) {
    let cri = world.cri();
    for reference in [PAUSE, BUSYBOX] {
        world.pull(reference).await;
    }
    let config = world.pod(name);
    let pod = cri.run_pod(&config).await;
    (world, cri, config, pod)
}

/// A busybox container that runs `argv`.
pub fn container(name: &str, argv: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(image(BUSYBOX)),
        command: argv.iter().map(|&w| w.to_owned()).collect(),
        log_path: format!("{name}/0.log"),
        labels: [("container".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources { oom_score_adj: 1000, ..Default::default() }),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// A busybox container that runs a shell script.
pub fn script(name: &str, script: &str) -> ContainerConfig {
    container(name, &["sh", "-c", script])
}

/// A container that runs until it is told to stop, and ends at once then.
pub fn sleeper(name: &str) -> ContainerConfig {
    script(name, "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
}

/// The security context of a container's configuration.
pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The resources of a container's configuration.
pub fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

/// The namespaces of a pod's configuration.
pub fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default()
}

/// A container that prints 1, 2, 3, … up to `last`, about one every two milliseconds, and exits with `code`.
pub fn counter(name: &str, last: u64, code: i32) -> ContainerConfig {
    let text = format!("i=0; while [ $i -lt {last} ]; do i=$((i+1)); echo $i; usleep 1000; done; exit {code}");
    script(name, &text)
}
