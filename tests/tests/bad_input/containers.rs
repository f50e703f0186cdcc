//! Containers that can't be, or are not in the state that a call needs. `conformance/` has the fields of security,
//! mounts, devices and resources.

use e2e::cri::{Cri, image};
use e2e::pod::{ready, sleeper};
use e2e::{Wiring, World};
use shared_proto::cri::v1::*;
use tonic::Code::{
    AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable, Unknown,
};

use crate::refused;

pub async fn containers(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "wrong").await;
    let before = world.inventory().await;
    let none = CreateContainerRequest { pod_sandbox_id: pod.clone(), ..Default::default() };
    refused("no configuration", cri.try_create_container(none).await, InvalidArgument, "config");
    type Change = fn(&mut ContainerConfig);
    let wrong: [(&str, tonic::Code, &str, Change); 8] = [
        ("no metadata", InvalidArgument, "config.metadata.name", |c| c.metadata = None),
        ("no name", InvalidArgument, "config.metadata.name", |c| c.metadata.get_or_insert_default().name.clear()),
        ("no image", InvalidArgument, "config.image", |c| c.image = None),
        ("an image that is not there", NotFound, "registry.k8s.io/not/pulled:1", |c| {
            c.image = Some(image("registry.k8s.io/not/pulled:1"));
        }),
        ("an image that is no name", NotFound, "UPPER//case::", |c| c.image = Some(image("UPPER//case::"))),
        ("a label that is too long", InvalidArgument, "\"key\"", |c| {
            c.labels = [("key".to_owned(), "v".repeat(5000))].into();
        }),
        ("a log that leads out", InvalidArgument, "log_path \"../../x.log\"", |c| c.log_path = "../../x.log".into()),
        ("a log of its own", InvalidArgument, "log_path \"/tmp/x.log\"", |c| c.log_path = "/tmp/x.log".into()),
    ];
    for (what, code, names, change) in wrong {
        let mut wrong = sleeper("wrong");
        change(&mut wrong);
        refused(what, cri.try_create(&pod, &config, &wrong).await, code, names);
        world.assert_as_before(&before).await;
    }
    let mut relative = world.pod("relative");
    relative.log_directory = "logs/here".into();
    let other = cri.run_pod(&relative).await;
    let create = cri.try_create(&other, &relative, &sleeper("main")).await;
    refused("a pod whose logs are nowhere", create, InvalidArgument, "log_directory \"logs/here\"");
    cri.end_pod(&other).await;
    world.assert_as_before(&before).await;

    states(&cri, &pod, &config).await;
    commands(&world, &cri, &pod, &config).await;
    logs(&world, &cri, &pod, &config).await;

    // What a stopped pod still answers.
    cri.try_stop_pod(&pod).await.expect("stop");
    let create = cri.try_create(&pod, &config, &sleeper("late")).await;
    refused("create in a stopped pod", create, FailedPrecondition, &pod);
    let forward = cri.try_port_forward(PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![80] }).await;
    refused("a port of a stopped pod", forward, FailedPrecondition, &pod);
    let stats = cri.try_pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id: pod.clone() }).await;
    refused("stats of a stopped pod", stats, Unavailable, &pod);
    cri.try_remove_pod(&pod).await.expect("remove");
}

async fn states(cri: &Cri, pod: &str, config: &PodSandboxConfig) {
    let of = |id: &str| id.to_owned();
    let exec =
        |id: &str| ExecRequest { container_id: of(id), cmd: vec!["true".into()], stdout: true, ..Default::default() };
    let attach = |id: &str| AttachRequest { container_id: of(id), stdout: true, ..Default::default() };
    let reopen = |id: &str| ReopenContainerLogRequest { container_id: of(id) };
    let id = cri.create(pod, config, &sleeper("states")).await;
    for (state, started) in [("created", false), ("exited", true)] {
        if started {
            cri.try_start(&id).await.expect("start");
            refused("a second start", cri.try_start(&id).await, FailedPrecondition, &id);
            refused("a command that is none", cri.try_exec_in(&id, &[], 1).await, InvalidArgument, &id);
            let none = ExecRequest { cmd: vec![], ..exec(&id) };
            refused("a command that is none", cri.try_exec(none).await, InvalidArgument, &id);
            let taken = cri.try_create(pod, config, &ContainerConfig { tty: true, ..sleeper("states") }).await;
            refused("a taken name", taken, AlreadyExists, &id);
            cri.try_stop(&id, 0).await.expect("stop");
            refused("a start after the end", cri.try_start(&id).await, FailedPrecondition, &id);
        }
        refused(state, cri.try_exec_in(&id, &["true"], 1).await, FailedPrecondition, &id);
        refused(state, cri.try_exec(exec(&id)).await, FailedPrecondition, &id);
        refused(state, cri.try_attach(attach(&id)).await, FailedPrecondition, &id);
        refused(state, cri.try_reopen_container_log(reopen(&id)).await, FailedPrecondition, &id);
    }
    cri.try_remove(&id).await.expect("remove");
}

/// Commands that don't come to an end, or to a beginning. The container goes on.
async fn commands(world: &World, cri: &Cri, pod: &str, config: &PodSandboxConfig) {
    let id = cri.run(pod, config, &sleeper("commands")).await;
    cri.asleep(&id).await;
    let before = world.inventory().await;
    let late = cri.try_exec_in(&id, &["sleep", "777"], 1).await;
    for names in ["\"sleep 777\"", &id] {
        refused("one that takes too long", late.clone(), DeadlineExceeded, names);
    }
    world.assert_as_before(&before).await;
    let missing = cri.try_exec_in(&id, &["/no/such/command"], 5).await;
    for names in ["/no/such/command", &id] {
        refused("one that is not there", missing.clone(), Unknown, names);
    }
    world.assert_as_before(&before).await;
    // It ends in time, what it left behind does not, and holds the output.
    let held = cri.try_exec_in(&id, &["sh", "-c", "sleep 3 & echo begun"], 1).await;
    for names in ["held open", &id] {
        refused("one that leaves its output to others", held.clone(), DeadlineExceeded, names);
    }
    world.assert_as_before(&before).await;
    cri.try_remove(&id).await.expect("remove");
}

/// A log that can't be opened anew: the container writes on into the one that it has.
async fn logs(world: &World, cri: &Cri, pod: &str, config: &PodSandboxConfig) {
    let before = world.inventory().await;
    let id = cri.run(pod, config, &e2e::pod::script("ticks", "while :; do echo tick; usleep 50000; done")).await;
    let log = world.log("wrong", "ticks");
    let (folder, aside) = (log.parent().expect("a folder").to_owned(), world.pod_logs("wrong").join("aside"));
    std::fs::rename(&folder, &aside).expect("take the folder away");
    std::fs::write(&folder, "a file in its place").expect("put a file there");
    let reopen = ReopenContainerLogRequest { container_id: id.clone() };
    let answer = cri.try_reopen_container_log(reopen.clone()).await.expect_err("the folder is a file");
    assert_eq!(answer.code(), tonic::Code::Internal, "{answer:?}");
    assert!(answer.message().contains(&id) && answer.message().contains(&log.display().to_string()), "{answer:?}");
    let length = || std::fs::metadata(aside.join("0.log")).map_or(0, |meta| meta.len());
    let then = length();
    e2e::eventually("it goes on in the old file", std::time::Duration::from_secs(5), || async {
        if length() > then { Ok(()) } else { Err(format!("{then} bytes")) }
    })
    .await;
    std::fs::remove_file(&folder).expect("remove the file");
    cri.reopen_container_log(reopen).await;
    assert!(log.exists(), "the next call makes it");
    cri.try_stop(&id, 0).await.expect("stop");
    cri.try_remove(&id).await.expect("remove");
    // A log that can't be opened at first fails the start, which is then told like any other.
    std::fs::remove_dir_all(&folder).expect("remove the folder");
    std::fs::write(&folder, "a file in its place").expect("put a file there");
    let id = cri.create(pod, config, &sleeper("ticks")).await;
    let answer = cri.try_start(&id).await.expect_err("its log can't be opened");
    assert!(answer.message().contains(&folder.display().to_string()), "{answer:?}");
    let status = cri.container(&id).await;
    assert_eq!((status.state(), status.reason.as_str()), (ContainerState::ContainerExited, "StartError"));
    cri.try_remove(&id).await.expect("remove");
    std::fs::remove_file(&folder).expect("remove the file");
    world.assert_as_before(&before).await;
}
