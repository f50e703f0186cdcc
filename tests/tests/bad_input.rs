//! Wrong requests: the right code, a message that names the thing, and nothing left behind.

use std::time::Duration;

use e2e::cri::image;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{namespaces, security, sleeper};
use e2e::{Wiring, world};
use shared_proto::containerd::{containers, content, images, leases, namespaces as ns, snapshots, tasks};
use shared_proto::cri::v1::*;
use shared_proto::{Code, Context, Error};
use tonic::Status;

e2e::wirings!(over_cri, over_the_core, oversized_messages);

/// An id that nobody has.
const UNKNOWN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[track_caller]
fn assert_status<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>, code: tonic::Code, names: &str) {
    let status = answer.expect_err(what);
    assert_eq!(status.code(), code, "{what}: {status:?}");
    assert!(status.message().contains(names), "{what}: the message does not name {names:?}: {status:?}");
}

async fn over_cri(wiring: Wiring) {
    use tonic::Code::*;
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let empty = world.inventory().await;

    // Unknown ids. What is already gone counts as stopped and removed.
    let id = || UNKNOWN.to_owned();
    let status = cri.try_pod_sandbox_status(PodSandboxStatusRequest { pod_sandbox_id: id(), verbose: false }).await;
    assert_status("status of an unknown pod", status, NotFound, UNKNOWN);
    assert_status("status of an unknown container", cri.try_container(UNKNOWN).await, NotFound, UNKNOWN);
    assert_status("start of an unknown container", cri.try_start(UNKNOWN).await, NotFound, UNKNOWN);
    assert_status("exec in an unknown one", cri.try_exec_in(UNKNOWN, &["true"], 1).await, NotFound, UNKNOWN);
    let reopen = cri.try_reopen_container_log(ReopenContainerLogRequest { container_id: id() }).await;
    assert_status("log of an unknown container", reopen, NotFound, UNKNOWN);
    let config = world.pod("wrong");
    let create = cri.try_create(UNKNOWN, &config, &sleeper("main")).await;
    assert_status("create in an unknown pod", create, NotFound, UNKNOWN);
    cri.try_stop(UNKNOWN, 1).await.expect("stop of an unknown container");
    cri.try_remove(UNKNOWN).await.expect("remove of an unknown container");
    cri.try_stop_pod(UNKNOWN).await.expect("stop of an unknown pod");
    cri.try_remove_pod(UNKNOWN).await.expect("remove of an unknown pod");
    assert_status("status of no pod", cri.try_container("").await, NotFound, "");
    let filter = ContainerFilter { id: id(), ..Default::default() };
    let list = cri.list_containers(ListContainersRequest { filter: Some(filter) }).await;
    assert!(list.containers.is_empty());

    // Pods that can't be.
    let none = cri.try_run_pod_sandbox(RunPodSandboxRequest::default()).await;
    assert_status("a pod without a configuration", none, InvalidArgument, "config");
    let mut nameless = world.pod("nameless");
    nameless.metadata = None;
    let request = RunPodSandboxRequest { config: Some(nameless), ..Default::default() };
    assert_status("a pod without metadata", cri.try_run_pod_sandbox(request).await, InvalidArgument, "metadata");
    let request =
        RunPodSandboxRequest { config: Some(world.pod("handler")), runtime_handler: "no-such-handler".into() };
    assert_status("an unknown handler", cri.try_run_pod_sandbox(request).await, InvalidArgument, "no-such-handler");
    let mut sysctl = world.pod("sysctl");
    sysctl.linux.get_or_insert_default().sysctls = [("no.such.sysctl".to_owned(), "1".to_owned())].into();
    let answer = cri.try_run_pod(&sysctl).await.expect_err("there is no such sysctl");
    assert!(answer.message().contains("no/such/sysctl") || answer.message().contains("no.such.sysctl"), "{answer:?}");
    world.assert_as_before(&empty).await;

    let pod = cri.run_pod(&config).await;
    let before = world.inventory().await;

    // Containers that can't be.
    let mut wrong = sleeper("image");
    wrong.image = Some(image("registry.k8s.io/not/pulled:1"));
    let create = cri.try_create(&pod, &config, &wrong).await;
    assert_status("an image that is not there", create, NotFound, "registry.k8s.io/not/pulled:1");
    wrong.image = Some(image("UPPER//case::"));
    let answer = cri.try_create(&pod, &config, &wrong).await.expect_err("no reference");
    assert!(matches!(answer.code(), InvalidArgument | NotFound) && answer.message().contains("UPPER"), "{answer:?}");
    wrong.image = None;
    assert_status("no image", cri.try_create(&pod, &config, &wrong).await, InvalidArgument, "image");
    let mut wrong = sleeper("metadata");
    wrong.metadata = None;
    assert_status("no metadata", cri.try_create(&pod, &config, &wrong).await, InvalidArgument, "metadata");
    let mut wrong = sleeper("user");
    security(&mut wrong).run_as_username = "nobody-knows-me".into();
    let answer = cri.try_create(&pod, &config, &wrong).await.expect_err("there is no such user");
    assert!(answer.message().contains("nobody-knows-me"), "{answer:?}");
    let mut wrong = sleeper("group");
    security(&mut wrong).run_as_group = Some(Int64Value { value: 5 });
    assert_status("a group without a user", cri.try_create(&pod, &config, &wrong).await, InvalidArgument, "group");
    let mut wrong = sleeper("capability");
    security(&mut wrong).capabilities =
        Some(Capability { add_capabilities: vec!["NO_SUCH_RIGHT".into()], ..Default::default() });
    let create = cri.try_create(&pod, &config, &wrong).await;
    assert_status("an unknown capability", create, InvalidArgument, "NO_SUCH_RIGHT");
    let mut wrong = sleeper("privileged");
    security(&mut wrong).privileged = true;
    let answer = cri.try_create(&pod, &config, &wrong).await.expect_err("the pod is not privileged");
    assert!(answer.message().contains("privileged"), "{answer:?}");
    let mut wrong = sleeper("mount");
    wrong.mounts = vec![Mount { container_path: String::new(), host_path: "/tmp".into(), ..Default::default() }];
    cri.try_create(&pod, &config, &wrong).await.expect_err("a mount without a path");
    let mut wrong = sleeper("seccomp");
    security(&mut wrong).seccomp = Some(SecurityProfile {
        profile_type: security_profile::ProfileType::Localhost.into(),
        localhost_ref: "/no/such/profile.json".into(),
    });
    let answer = cri.try_create(&pod, &config, &wrong).await.expect_err("there is no such profile");
    assert!(answer.message().contains("/no/such/profile.json"), "{answer:?}");
    let mut wrong = sleeper("device");
    wrong.devices =
        vec![Device { container_path: "/dev/x".into(), host_path: "/dev/no-such".into(), permissions: "rw".into() }];
    let answer = cri.try_create(&pod, &config, &wrong).await.expect_err("there is no such device");
    assert!(answer.message().contains("/dev/no-such"), "{answer:?}");
    let mut wrong = sleeper("log");
    wrong.log_path = "../../escaped.log".into();
    let answer = cri.try_create(&pod, &config, &wrong).await;
    assert!(answer.is_err(), "a log path that leaves the pod's folder");
    world.assert_as_before(&before).await;

    // The wrong state.
    let created = cri.create(&pod, &config, &sleeper("created")).await;
    assert_status("exec before start", cri.try_exec_in(&created, &["true"], 1).await, FailedPrecondition, &created);
    let reopen = cri.try_reopen_container_log(ReopenContainerLogRequest { container_id: created.clone() }).await;
    assert_status("log before start", reopen, FailedPrecondition, &created);
    cri.try_start(&created).await.expect("start");
    assert_status("a second start", cri.try_start(&created).await, FailedPrecondition, &created);
    let empty_command = cri.try_exec_in(&created, &[], 1).await;
    assert_status("exec of nothing", empty_command, InvalidArgument, "");
    // An ambiguous prefix is no id: both ids begin with nothing.
    assert_status("an empty id", cri.try_start("").await, NotFound, "");
    cri.try_stop_pod(&pod).await.expect("stop");
    let create = cri.try_create(&pod, &config, &sleeper("late")).await;
    assert_status("create in a stopped pod", create, FailedPrecondition, &pod);
    cri.try_remove_pod(&pod).await.expect("remove");

    // Images.
    for (reference, names) in
        [("UPPER/Case", "UPPER/Case"), ("", "reference"), ("a b", "a b"), ("x@sha256:short", "x@sha256")]
    {
        let pull = cri.try_pull_image(PullImageRequest { image: Some(image(reference)), ..Default::default() }).await;
        let status = pull.expect_err("no reference");
        assert_eq!(status.code(), InvalidArgument, "{reference:?}: {status:?}");
        assert!(status.message().contains(names) || reference.is_empty(), "{reference:?}: {status:?}");
    }
    let none = cri.try_pull_image(PullImageRequest::default()).await;
    assert_status("a pull of nothing", none, InvalidArgument, "");
    cri.remove_image(RemoveImageRequest { image: Some(image("registry.k8s.io/never/seen:1")) }).await;
    world.assert_as_before(&empty).await;

    // A namespace mode that is not offered.
    let mut user = world.pod("userns");
    namespaces(&mut user).userns_options =
        Some(UserNamespace { mode: NamespaceMode::Pod.into(), ..Default::default() });
    if let Err(status) = cri.try_run_pod(&user).await {
        assert!(matches!(status.code(), InvalidArgument | Unimplemented), "{status:?}");
    }
    for pod in cri.list_pods(ListPodSandboxRequest::default()).await {
        cri.end_pod(&pod.id).await;
    }
    world.assert_as_before(&empty).await;
}

#[track_caller]
fn assert_error<T>(what: &str, answer: Result<T, Error>, code: Code, names: &str) {
    let error = match answer {
        Ok(_) => panic!("{what}: should have failed"),
        Err(error) => error,
    };
    assert_eq!(error.code, code, "{what}: {error:?}");
    assert!(error.message.contains(names), "{what}: the message does not name {names:?}: {error:?}");
}

async fn over_the_core(wiring: Wiring) {
    use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};
    let world = world(wiring).await;
    let core = world.core();
    let before = world.inventory().await;
    let cx = Context::new("e2e");

    // No namespace, and one that can't be.
    let nowhere = Context::default();
    let required = "namespace is required";
    let list = core.containers.list(&nowhere, containers::ListContainersRequest::default()).await;
    assert_error("containers without a namespace", list, FailedPrecondition, required);
    let list = core.tasks.list(&nowhere, tasks::ListTasksRequest::default()).await;
    assert_error("tasks without a namespace", list, FailedPrecondition, required);
    let list = core.images.list(&nowhere, images::ListImagesRequest::default()).await;
    assert_error("images without a namespace", list, FailedPrecondition, required);
    let create = core.leases.create(&nowhere, leases::CreateRequest::default()).await;
    assert_error("a lease without a namespace", create, FailedPrecondition, required);
    let stat = snapshots::StatSnapshotRequest { snapshotter: "overlayfs".into(), key: "x".into() };
    assert_error(
        "a snapshot without a namespace",
        core.snapshots.stat(&nowhere, stat).await,
        FailedPrecondition,
        required,
    );
    let info = content::InfoRequest { digest: format!("sha256:{UNKNOWN}") };
    assert_error("content without a namespace", core.content.info(&nowhere, info).await, FailedPrecondition, required);
    let bad = Context::new("no/such namespace");
    let list = core.containers.list(&bad, containers::ListContainersRequest::default()).await;
    assert_error("a namespace that is no name", list, InvalidArgument, "no/such namespace");

    // Unknown things.
    let x = || "unknown-thing".to_owned();
    let get = core.containers.get(&cx, containers::GetContainerRequest { id: x() }).await;
    assert_error("an unknown container", get, NotFound, "unknown-thing");
    let delete = core.containers.delete(&cx, containers::DeleteContainerRequest { id: x() }).await;
    assert_error("delete of an unknown container", delete, NotFound, "unknown-thing");
    let get = core.tasks.get(&cx, tasks::GetRequest { container_id: x(), ..Default::default() }).await;
    assert_error("an unknown task", get, NotFound, "unknown-thing");
    let create = core.tasks.create(&cx, tasks::CreateTaskRequest { container_id: x(), ..Default::default() }).await;
    assert_error("a task of an unknown container", create, NotFound, "unknown-thing");
    let kill = core.tasks.kill(&cx, tasks::KillRequest { container_id: x(), signal: 9, ..Default::default() }).await;
    assert_error("kill of an unknown task", kill, NotFound, "unknown-thing");
    let wait = core.tasks.wait(&cx, tasks::WaitRequest { container_id: x(), ..Default::default() }).await;
    assert_error("wait for an unknown task", wait, NotFound, "unknown-thing");
    let get = core.images.get(&cx, images::GetImageRequest { name: x() }).await;
    assert_error("an unknown image", get, NotFound, "unknown-thing");
    let delete = core.images.delete(&cx, images::DeleteImageRequest { name: x(), ..Default::default() }).await;
    assert_error("delete of an unknown image", delete, NotFound, "unknown-thing");
    let delete = core.leases.delete(&cx, leases::DeleteRequest { id: x(), ..Default::default() }).await;
    assert_error("delete of an unknown lease", delete, NotFound, "unknown-thing");
    let digest = format!("sha256:{UNKNOWN}");
    let info = core.content.info(&cx, content::InfoRequest { digest: digest.clone() }).await;
    assert_error("unknown content", info, NotFound, &digest);
    let stat = snapshots::StatSnapshotRequest { snapshotter: "overlayfs".into(), key: x() };
    assert_error("an unknown snapshot", core.snapshots.stat(&cx, stat).await, NotFound, "unknown-thing");
    let delete = core.namespaces.delete(&cx, ns::DeleteNamespaceRequest { name: x() }).await;
    assert_error("delete of an unknown namespace", delete, NotFound, "unknown-thing");
    let gone = core.namespaces.get(&cx, ns::GetNamespaceRequest { name: x() }).await;
    gone.expect("an unknown namespace is an empty one: clients die of anything else");

    // Things that can't be.
    let info = core.content.info(&cx, content::InfoRequest { digest: "md5:abc".into() }).await;
    assert_error("a digest that is none", info, InvalidArgument, "md5:abc");
    let stat = snapshots::StatSnapshotRequest { snapshotter: "no-such-snapshotter".into(), key: x() };
    assert_error(
        "an unknown snapshotter",
        core.snapshots.stat(&cx, stat).await,
        InvalidArgument,
        "no-such-snapshotter",
    );
    let prepare = snapshots::PrepareSnapshotRequest {
        snapshotter: "overlayfs".into(),
        key: "child".into(),
        parent: x(),
        ..Default::default()
    };
    assert_error("a snapshot on nothing", core.snapshots.prepare(&cx, prepare).await, NotFound, "unknown-thing");
    let create = async |id: &str, runtime: &str| {
        let container = containers::Container {
            id: id.into(),
            runtime: Some(containers::container::Runtime { name: runtime.into(), options: None }),
            spec: Some(prost_types::Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: br#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["true"]},"root":{"path":"rootfs"}}"#
                    .to_vec(),
            }),
            ..Default::default()
        };
        core.containers.create(&cx, containers::CreateContainerRequest { container: Some(container) }).await
    };
    assert_error(
        "an id that is none",
        create("../escape", "io.containerd.runc.v2").await,
        InvalidArgument,
        "../escape",
    );
    let long = "x".repeat(77);
    assert_error("an id that is too long", create(&long, "io.containerd.runc.v2").await, InvalidArgument, &long);
    assert_error("no runtime", create("fine", "").await, InvalidArgument, "runtime");
    let nothing = core.containers.create(&cx, containers::CreateContainerRequest::default()).await;
    assert_error("no container", nothing, InvalidArgument, "container");
    create("fine", "io.containerd.nosuch.v9").await.expect("a runtime is looked for when it is used");
    assert_error("a taken id", create("fine", "io.containerd.runc.v2").await, AlreadyExists, "fine");
    let task = tasks::CreateTaskRequest { container_id: "fine".into(), ..Default::default() };
    let error = core.tasks.create(&cx, task).await.expect_err("there is no such runtime");
    assert!(error.message.contains("nosuch"), "{error:?}");
    core.containers.delete(&cx, containers::DeleteContainerRequest { id: "fine".into() }).await.expect("delete");
    let update = containers::UpdateContainerRequest {
        container: Some(containers::Container { id: x(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["no_such_field".into()] }),
    };
    let error = core.containers.update(&cx, update).await.expect_err("no such container or field");
    assert!(matches!(error.code, InvalidArgument | NotFound), "{error:?}");
    let filters = vec!["id~=(".to_owned()];
    let list = core.containers.list(&cx, containers::ListContainersRequest { filters }).await;
    assert_error("a filter that is none", list, InvalidArgument, "id~=(");
    core.namespaces.delete(&cx, ns::DeleteNamespaceRequest { name: "e2e".into() }).await.ok();
    world.assert_as_before(&before).await;
}

async fn oversized_messages(wiring: Wiring) {
    let world = world(wiring).await;
    let (cri, core) = (world.cri(), world.core());
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let cx = Context::new("e2e");
    let big = "x".repeat(17 << 20);
    let raw = ns::GetNamespaceRequest { name: big.clone() };
    let error = core.namespaces.get(&cx, raw).await.expect_err("over the client's limit");
    assert!(
        matches!(error.code, Code::OutOfRange | Code::ResourceExhausted),
        "{:?} {:.300}",
        error.code,
        error.message
    );
    // Past the client's own limit: only the server says no.
    let mut pod = world.pod("big");
    pod.annotations = [("big".to_owned(), big)].into();
    let status = cri.try_run_pod(&pod).await.expect_err("over the server's limit");
    assert!(
        matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::ResourceExhausted),
        "{:?} {}",
        status.code(),
        status.message()
    );
    // Below the limit of messages, above that of labels.
    let mut labels = world.pod("labels");
    labels.labels = [("key".to_owned(), "v".repeat(5000))].into();
    let status = cri.try_run_pod(&labels).await.expect_err("a label that is too long");
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    world.assert_as_before(&before).await;
    // The connection and the daemons live on.
    tokio::time::timeout(Duration::from_secs(5), cri.version()).await.expect("in time").expect("Version");

    // A message close to the limit, and answers as large as a message may be, go through.
    let mut large = world.pod("large");
    large.annotations = [("large".to_owned(), "x".repeat(1 << 20))].into();
    let pod = cri.run_pod(&large).await;
    assert_eq!(cri.pod_status(&pod).await.annotations, large.annotations);
    let id = cri.run(&pod, &large, &sleeper("main")).await;
    let answer = cri.try_exec_in(&id, &["sh", "-c", "yes 0123456789abcde | head -c 20000000"], 60).await;
    // Output is cut at 16 MiB, or the answer would be larger than any client takes.
    match answer {
        Ok(answer) => {
            assert!(answer.stdout.len() <= 16 << 20 && answer.stdout.len() > 15 << 20, "{}", answer.stdout.len())
        }
        Err(status) => panic!("{:?} {}", status.code(), status.message()),
    }
    cri.end_pod(&pod).await;
}
