//! From a manifest to what CRI wants to hear: the translation that a kubelet would do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shared_proto::cri::v1;

use super::manifest::{Container, Pod, Protocol};
use super::parts::{environment, expand, resources, seccomp};

/// What a kubelet hides from and protects against containers that are not privileged.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Label with the pod's name; the others have the same prefix.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// A pod to run, and where its files are.
pub struct Plan {
    pub pod: Pod,
    pub uid: String,
    /// Holds `logs` and `volumes`; goes with the pod.
    pub dir: PathBuf,
}

impl Plan {
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The log of a container.
    pub fn log_of(&self, container: &Container) -> PathBuf {
        self.logs().join(log_path(container))
    }

    pub fn empty_dir(&self, volume: &str) -> PathBuf {
        self.dir.join("volumes").join(volume)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let metadata = &self.pod.metadata;
        let ours = [(POD_NAME, &metadata.name), (POD_NAMESPACE, &metadata.namespace), (POD_UID, &self.uid)];
        let mut labels = metadata.labels.clone();
        labels.extend(ours.map(|(key, value)| (key.to_owned(), value.clone())));
        labels
    }

    pub fn sandbox(&self) -> v1::PodSandboxConfig {
        let Pod { metadata, spec, .. } = &self.pod;
        let ports = spec.containers.iter().flat_map(|container| &container.ports);
        let security = &spec.security_context;
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: metadata.name.clone(),
                uid: self.uid.clone(),
                namespace: metadata.namespace.clone(),
                attempt: 0,
            }),
            // A host name has at most 63 characters.
            hostname: metadata.name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned(),
            log_directory: text(&self.logs()),
            port_mappings: ports
                .map(|port| v1::PortMapping {
                    protocol: match port.protocol {
                        Protocol::Tcp => v1::Protocol::Tcp,
                        Protocol::Udp => v1::Protocol::Udp,
                        Protocol::Sctp => v1::Protocol::Sctp,
                    }
                    .into(),
                    container_port: port.container_port.into(),
                    host_port: port.host_port.into(),
                    host_ip: port.host_ip.clone(),
                })
                .collect(),
            labels: self.labels(),
            annotations: metadata.annotations.clone(),
            linux: Some(v1::LinuxPodSandboxConfig {
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    run_as_user: security.run_as_user.map(int),
                    run_as_group: security.run_as_group.map(int),
                    supplemental_groups: security.supplemental_groups.clone(),
                    privileged: spec.containers.iter().any(|container| container.security_context.privileged),
                    seccomp: Some(seccomp(security.seccomp_profile.as_ref())),
                    ..Default::default()
                }),
                sysctls: security.sysctls.iter().map(|s| (s.name.clone(), s.value.clone())).collect(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// `image` is the image's id.
    pub fn container(&self, container: &Container, image: &str) -> v1::ContainerConfig {
        let pod = &self.pod.spec.security_context;
        let own = &container.security_context;
        let mut labels = self.labels();
        labels.insert(CONTAINER_NAME.into(), container.name.clone());
        let env = environment(container);
        let expanded = |all: &[String]| all.iter().map(|one| expand(one, &env)).collect();
        let paths = |paths: &[&str]| match own.privileged {
            true => Vec::new(),
            false => paths.iter().map(|path| (*path).to_owned()).collect(),
        };
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: 0 }),
            image: Some(v1::ImageSpec {
                image: image.to_owned(),
                user_specified_image: container.image.clone(),
                ..Default::default()
            }),
            command: expanded(&container.command),
            args: expanded(&container.args),
            envs: env
                .iter()
                .map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone().into() })
                .collect(),
            mounts: self.mounts(container),
            labels,
            log_path: text(&log_path(container)),
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(resources(&container.resources)),
                security_context: Some(v1::LinuxContainerSecurityContext {
                    capabilities: Some(v1::Capability {
                        add_capabilities: own.capabilities.add.clone(),
                        drop_capabilities: own.capabilities.drop.clone(),
                        ..Default::default()
                    }),
                    privileged: own.privileged,
                    namespace_options: Some(namespaces()),
                    run_as_user: own.run_as_user.or(pod.run_as_user).map(int),
                    run_as_group: own.run_as_group.or(pod.run_as_group).map(int),
                    supplemental_groups: pod.supplemental_groups.clone(),
                    readonly_rootfs: own.read_only_root_filesystem,
                    no_new_privs: own.allow_privilege_escalation == Some(false),
                    masked_paths: paths(MASKED),
                    readonly_paths: paths(READ_ONLY),
                    seccomp: Some(seccomp(own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()))),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }

    fn mounts(&self, container: &Container) -> Vec<v1::Mount> {
        let mounts = container.volume_mounts.iter().filter_map(|mount| {
            let volume = self.pod.spec.volumes.iter().find(|volume| volume.name == mount.name)?;
            let host = volume.host_path.as_ref().map_or_else(|| self.empty_dir(&volume.name), |host| host.path.clone());
            Some(v1::Mount {
                container_path: mount.mount_path.clone(),
                host_path: text(&host),
                readonly: mount.read_only,
                ..Default::default()
            })
        });
        mounts.collect()
    }
}

/// Below the pod's log folder, as a kubelet names it.
fn log_path(container: &Container) -> PathBuf {
    Path::new(&container.name).join("0.log")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn int(value: i64) -> v1::Int64Value {
    v1::Int64Value { value }
}

/// Network and IPC are the pod's, processes the container's own.
fn namespaces() -> v1::NamespaceOption {
    v1::NamespaceOption {
        network: v1::NamespaceMode::Pod.into(),
        pid: v1::NamespaceMode::Container.into(),
        ipc: v1::NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use v1::security_profile::ProfileType;

    use super::*;
    use crate::cli::check;

    fn plan(container: &str) -> Plan {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{a: b}}}}\nspec:\n  restartPolicy: Never\n  \
             securityContext: {{runAsUser: 5, sysctls: [{{name: net.x, value: '1'}}]}}\n  volumes: [{{name: e, \
             emptyDir: {{}}}}, {{name: h, hostPath: {{path: /h}}}}]\n  containers:\n  - {container}\n"
        );
        let pod = check::parse(&text, Path::new("p.yaml")).unwrap();
        Plan { pod, uid: "u".into(), dir: "/d/u".into() }
    }

    #[test]
    fn a_container_inherits_and_overrides() {
        let plan = plan(
            "{name: c, image: i, securityContext: {runAsGroup: 6, allowPrivilegeEscalation: false}, ports: \
             [{containerPort: 80, hostPort: 8080}], volumeMounts: [{name: e, mountPath: /e}, {name: h, mountPath: /m, \
             readOnly: true}]}",
        );
        let sandbox = plan.sandbox();
        assert_eq!(sandbox.labels[POD_UID], "u");
        assert_eq!((sandbox.hostname.as_str(), sandbox.log_directory.as_str()), ("p", "/d/u/logs"));
        assert_eq!(sandbox.port_mappings[0].host_port, 8080);
        assert_eq!(sandbox.linux.unwrap().sysctls["net.x"], "1");

        let config = plan.container(&plan.pod.spec.containers[0], "sha256:x");
        let mounts: Vec<_> = config.mounts.iter().map(|m| (m.host_path.as_str(), m.readonly)).collect();
        assert_eq!(mounts, [("/d/u/volumes/e", false), ("/h", true)]);
        let security = config.linux.unwrap().security_context.unwrap();
        assert_eq!((security.run_as_user, security.run_as_group), (Some(int(5)), Some(int(6))));
        assert!(security.no_new_privs && security.masked_paths.contains(&"/proc/kcore".to_owned()));
        assert_eq!(security.seccomp.unwrap().profile_type(), ProfileType::RuntimeDefault);
    }

    #[test]
    fn variables_are_expanded_in_order() {
        let plan = plan(
            "{name: c, image: i, env: [{name: A, value: x}, {name: B, value: '$(A)y'}], args: ['$(B) $$(A) $(C) $', \
             '$(A']}",
        );
        let config = plan.container(&plan.pod.spec.containers[0], "i");
        assert_eq!(config.envs[1].value, b"xy");
        assert_eq!(config.args, ["xy $(A) $(C) $", "$(A"]);
    }
}
