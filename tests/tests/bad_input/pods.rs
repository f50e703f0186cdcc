//! Pods that can't be, as far as the request itself says so. `conformance/pod.rs` has the fields of the security
//! context.

use e2e::Wiring;
use e2e::fixtures::PAUSE;
use e2e::world;
use shared_proto::cri::v1::*;
use tonic::Code::{AlreadyExists, InvalidArgument};

use crate::refused;

pub async fn pods(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    let before = world.inventory().await;

    let none = cri.try_run_pod_sandbox(RunPodSandboxRequest::default()).await;
    refused("no configuration", none, InvalidArgument, "config");
    type Change = fn(&mut PodSandboxConfig);
    fn metadata(c: &mut PodSandboxConfig) -> &mut PodSandboxMetadata {
        c.metadata.get_or_insert_default()
    }
    fn ports(c: &mut PodSandboxConfig, mapping: PortMapping) {
        let good = PortMapping { container_port: 80, ..Default::default() };
        c.port_mappings = vec![good, mapping];
    }
    let wrong: [(&str, &str, Change); 12] = [
        ("no metadata", "config.metadata", |c| c.metadata = None),
        ("no name", "config.metadata.name", |c| metadata(c).name.clear()),
        ("no namespace", "config.metadata.namespace", |c| metadata(c).namespace.clear()),
        ("no uid", "config.metadata.uid", |c| metadata(c).uid.clear()),
        ("a host name with a slash", "hostname: \"a/b\"", |c| c.hostname = "a/b".into()),
        ("a label that is too long", "\"key\"", |c| c.labels = [("key".to_owned(), "v".repeat(5000))].into()),
        ("a cgroup that leads out", "linux.cgroup_parent: \"/a/../../b\"", |c| {
            c.linux.get_or_insert_default().cgroup_parent = "/a/../../b".into();
        }),
        ("a sysctl of the machine", "\"kernel.panic\"", |c| {
            c.linux.get_or_insert_default().sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
        }),
        ("a host port that is none", "port_mappings[1].host_port: 65536", |c| {
            ports(c, PortMapping { container_port: 80, host_port: 65_536, ..Default::default() });
        }),
        ("a container port that is none", "port_mappings[1].container_port: -1", |c| {
            ports(c, PortMapping { container_port: -1, host_port: 80, ..Default::default() });
        }),
        ("a protocol that is none", "port_mappings[1].protocol: 9", |c| {
            ports(c, PortMapping { container_port: 80, host_port: 80, protocol: 9, ..Default::default() });
        }),
        ("an address that is none", "port_mappings[1].host_ip: \"here\"", |c| {
            ports(c, PortMapping { container_port: 80, host_port: 80, host_ip: "here".into(), ..Default::default() });
        }),
    ];
    for (what, names, change) in wrong {
        let mut config = world.pod("wrong");
        change(&mut config);
        refused(what, cri.try_run_pod(&config).await, InvalidArgument, names);
        world.assert_as_before(&before).await;
    }

    let run = async |handler: &str, annotated: bool| {
        let mut config = world.pod("handler");
        if annotated {
            config.annotations.insert("io.kubernetes.cri.untrusted-workload".into(), "true".into());
        }
        cri.try_run_pod_sandbox(RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() }).await
    };
    refused("an unknown handler", run("no-such-handler", false).await, InvalidArgument, "\"no-such-handler\"");
    refused("no handler for the untrusted", run("", true).await, InvalidArgument, "\"untrusted\"");
    refused("another one for the untrusted", run("runc", true).await, InvalidArgument, "\"runc\"");
    world.assert_as_before(&before).await;

    // A sysctl that the kernel does not have is found out when the pod is nearly made.
    let mut config = world.pod("sysctl");
    config.linux.get_or_insert_default().sysctls = [("net.no.such".to_owned(), "1".to_owned())].into();
    let answer = cri.try_run_pod(&config).await.expect_err("there is no such sysctl");
    assert!(answer.message().contains("net/no/such") || answer.message().contains("net.no.such"), "{answer:?}");
    world.assert_as_before(&before).await;

    // A name is one pod's.
    let config = world.pod("taken");
    let pod = cri.run_pod(&config).await;
    let with_pod = world.inventory().await;
    let mut other = config.clone();
    other.hostname = "other".into();
    refused("a taken name", cri.try_run_pod(&other).await, AlreadyExists, "taken_e2e_uid-taken_0");
    refused("and by whom", cri.try_run_pod(&other).await, AlreadyExists, &pod);
    cri.try_stop_pod(&pod).await.expect("stop");
    refused("a stopped one's name", cri.try_run_pod(&config).await, AlreadyExists, &pod);
    cri.try_remove_pod(&pod).await.expect("remove");
    assert!(with_pod != before);
    world.assert_as_before(&before).await;
}
