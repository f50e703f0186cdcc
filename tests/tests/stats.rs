//! What containers and pods use, as the kubelet is told: against real cgroups, layers and interfaces.

use std::time::Duration;

use e2e::cri::Cri;
use e2e::pod::{ready, resources, script, sleeper};
use e2e::{Wiring, eventually};
use shared_proto::cri::v1::*;

e2e::wirings!(figures_follow_the_load, lists_are_filtered_and_streamed, memory_that_ran_out_is_told);

const SOON: Duration = Duration::from_secs(20);

async fn stats(cri: &Cri, id: &str) -> ContainerStats {
    cri.container_stats(ContainerStatsRequest { container_id: id.into() }).await.stats.expect("stats")
}

async fn pod_stats(cri: &Cri, id: &str) -> LinuxPodSandboxStats {
    let answer = cri.pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id: id.into() }).await;
    answer.stats.expect("stats").linux.expect("linux")
}

fn number(value: Option<UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

async fn figures_follow_the_load(wiring: Wiring) {
    let (_world, cri, config, pod) = ready(wiring, "load").await;
    let burner = cri.run(&pod, &config, &script("burner", "while :; do :; done")).await;
    let idle = cri.run(&pod, &config, &sleeper("idle")).await;

    eventually("the burner uses a good part of a core, the idle one next to nothing", SOON, || async {
        let of = async |id: &str| number(stats(&cri, id).await.cpu.unwrap_or_default().usage_nano_cores);
        let (busy, calm) = (of(&burner).await, of(&idle).await);
        // Others use this machine, too.
        if busy > 100_000_000 && calm * 10 < busy { Ok(()) } else { Err(format!("{busy} and {calm}")) }
    })
    .await;
    let pod_cpu = pod_stats(&cri, &pod).await.cpu.expect("cpu");
    let own = stats(&cri, &burner).await.cpu.expect("cpu");
    assert!(number(own.usage_core_nano_seconds) > 100_000_000 && own.timestamp > 0, "{own:?}");
    assert!(number(pod_cpu.usage_core_nano_seconds) > 100_000_000, "the pod has its containers' share: {pod_cpu:?}");

    // Memory in use that can't be taken back: a file of a tmpfs, 30 MiB.
    let before = stats(&cri, &idle).await.memory.expect("memory");
    cri.exec_ok(&idle, &["dd", "if=/dev/zero", "of=/dev/shm/hog", "bs=1M", "count=30"]).await;
    let after = stats(&cri, &idle).await.memory.expect("memory");
    let grown = number(after.working_set_bytes).saturating_sub(number(before.working_set_bytes));
    assert!((28 << 20..40 << 20).contains(&grown), "30 MiB were written: {grown}");
    assert!(number(after.usage_bytes) >= number(after.working_set_bytes) && number(after.page_faults) > 0, "{after:?}");

    let layer = |stats: ContainerStats| stats.writable_layer.expect("a writable layer");
    let first = layer(stats(&cri, &idle).await);
    let mountpoint = first.fs_id.expect("fs_id").mountpoint;
    assert!(std::path::Path::new(&mountpoint).is_dir(), "{mountpoint}");
    cri.exec_ok(&idle, &["dd", "if=/dev/zero", "of=/big", "bs=1M", "count=5"]).await;
    eventually("the layer grows", SOON, || async {
        let grown = number(layer(stats(&cri, &idle).await).used_bytes).saturating_sub(number(first.used_bytes));
        if grown >= 5 << 20 { Ok(()) } else { Err(format!("{grown} bytes more")) }
    })
    .await;

    let linux = pod_stats(&cri, &pod).await;
    let eth0 = linux.network.expect("network").default_interface.expect("eth0");
    assert_eq!(eth0.name, "eth0");
    let gateway = cri.exec_ok(&idle, &["sh", "-c", "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'"]).await;
    cri.try_exec_in(&idle, &["ping", "-c", "3", "-i", "0.2", "-s", "1000", gateway.trim()], 10).await.expect("ping");
    let later = pod_stats(&cri, &pod).await.network.expect("network").default_interface.expect("eth0");
    assert!(number(later.tx_bytes) >= number(eth0.tx_bytes) + 3000, "{eth0:?} then {later:?}");
    // The pause process, and those of two containers.
    assert!(number(linux.process.expect("processes").process_count) >= 3);
    assert_eq!(linux.containers.len(), 2);

    cri.try_stop(&burner, 0).await.expect("stop");
    let ended = stats(&cri, &burner).await;
    assert!(ended.cpu.is_none() && ended.memory.is_none(), "it does not run: {ended:?}");
    cri.end_pod(&pod).await;
    let gone = cri.try_container_stats(ContainerStatsRequest { container_id: idle.clone() }).await;
    let gone = gone.expect_err("it is removed");
    assert!(gone.code() == tonic::Code::NotFound && gone.message().contains(&idle), "{gone:?}");
}

async fn lists_are_filtered_and_streamed(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "one").await;
    let other_config = world.pod("two");
    let other = cri.run_pod(&other_config).await;
    let a = cri.run(&pod, &config, &sleeper("a")).await;
    let b = cri.run(&pod, &config, &sleeper("b")).await;
    let c = cri.run(&other, &other_config, &sleeper("c")).await;

    let list = async |filter: Option<ContainerStatsFilter>| {
        let answer = cri.list_container_stats(ListContainerStatsRequest { filter }).await;
        let mut ids: Vec<String> = answer.stats.into_iter().map(|s| s.attributes.expect("attributes").id).collect();
        ids.sort();
        ids
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(list(None).await, sorted(&[&a, &b, &c]));
    let by = |id: &str, pod: &str, label: Option<(&str, &str)>| {
        let label_selector = label.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Some(ContainerStatsFilter { id: id.into(), pod_sandbox_id: pod.into(), label_selector })
    };
    assert_eq!(list(by(&a[..20], "", None)).await, sorted(&[&a]), "the beginning of an id");
    assert_eq!(list(by("", &pod, None)).await, sorted(&[&a, &b]));
    assert_eq!(list(by("", &pod[..20], None)).await, sorted(&[&a, &b]));
    assert_eq!(list(by("", "", Some(("container", "c")))).await, sorted(&[&c]));
    assert_eq!(list(by(&a, &other, None)).await, sorted(&[]));

    let filter =
        PodSandboxStatsFilter { label_selector: [("app".to_owned(), "two".to_owned())].into(), ..Default::default() };
    let pods = cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter: Some(filter) }).await.stats;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].attributes.as_ref().expect("attributes").id, other);

    let mut stream =
        cri.runtime().stream_containers(StreamContainersRequest::default()).await.expect("stream").into_inner();
    let mut ids = Vec::new();
    while let Some(message) = stream.message().await.expect("message") {
        assert!(!message.containers.is_empty());
        ids.extend(message.containers.into_iter().map(|container| container.id));
    }
    ids.sort();
    assert_eq!(ids, sorted(&[&a, &b, &c]));
    let mut stream = cri
        .runtime()
        .stream_pod_sandbox_stats(StreamPodSandboxStatsRequest::default())
        .await
        .expect("stream")
        .into_inner();
    let mut count = 0;
    while let Some(message) = stream.message().await.expect("message") {
        count += message.pod_sandbox_stats.len();
    }
    assert_eq!(count, 2);

    cri.try_stop_pod(&other).await.expect("stop");
    let stopped = cri.try_pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id: other.clone() }).await;
    assert_eq!(stopped.expect_err("it is not ready").code(), tonic::Code::Unavailable);
    cri.end_pod(&pod).await;
    cri.end_pod(&other).await;
}

/// With the shim's event, and without it: while nobody listens it is lost.
async fn memory_that_ran_out_is_told(wiring: Wiring) {
    let (mut world, cri, config, pod) = ready(wiring, "hungry").await;
    let hungry = |name: &str, text: &str| {
        let mut config = script(name, text);
        resources(&mut config).memory_limit_in_bytes = 16 << 20;
        config
    };
    for name in ["a", "b", "c"] {
        let id = cri.run(&pod, &config, &hungry(name, "exec tail /dev/zero")).await;
        let status = cri.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{name}");
    }
    let killed = cri.run(&pod, &config, &hungry("killed", "exec sleep 1000")).await;
    let pid = nix::unistd::Pid::from_raw(cri.pid(&killed).await);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the container's process");
    let status = cri.exited(&killed).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"), "memory had nothing to do with it");

    let wait = "while [ ! -e /tmp/go ]; do sleep 0.1; done; exec tail /dev/zero";
    let alone = cri.run(&pod, &config, &hungry("alone", wait)).await;
    let root = format!("/proc/{}/root", cri.pid(&alone).await);
    world.kill_cri();
    std::fs::create_dir_all(format!("{root}/tmp")).expect("its /tmp");
    std::fs::write(format!("{root}/tmp/go"), "").expect("tell it to go");
    let gone = || async { if std::path::Path::new(&root).exists() { Err("it runs".into()) } else { Ok(()) } };
    eventually("it ends while the daemon is away", SOON, gone).await;
    world.spawn();
    world.ready().await;
    let status = cri.exited(&alone).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "nobody heard the event");
    cri.end_pod(&pod).await;
}
