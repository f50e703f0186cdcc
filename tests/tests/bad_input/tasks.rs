//! Tasks over the core's socket: those that can't be made, and calls on processes that are not there, or not so far.

use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};
use e2e::Wiring;
use e2e::pod::{ready, sleeper};
use shared_proto::containerd::{containers as c, namespaces as n, tasks as t};
use shared_proto::core::Core;
use shared_proto::{Code, Context, any};

use crate::fails;

/// Enough of a spec for a container that is never started.
pub const SPEC: &[u8] = br#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["true"]},"root":{"path":"rootfs"},
    "linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#;

pub async fn tasks(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "tasks").await;
    let core = world.core();
    let before = world.inventory().await;
    can_not_be_made(&core).await;
    world.assert_as_before(&before).await;

    let id = cri.run(&pod, &config, &sleeper("main")).await;
    cri.asleep(&id).await;
    let with_main = world.inventory().await;
    of_a_running_one(&core, &Context::new("k8s.io"), &id).await;
    world.assert_as_before(&with_main).await;
    assert_eq!(cri.exec_ok(&id, &["echo", "well"]).await, "well\n", "nothing has harmed it");
    cri.end_pod(&pod).await;
}

async fn can_not_be_made(core: &Core) {
    let cx = Context::new("default");
    let runc = "io.containerd.runc.v2";
    let spec = |text: &[u8]| Some(any::raw(any::SPEC, text));
    let cases: [(&str, &str, Option<prost_types::Any>, Code, &str); 8] = [
        ("specless", runc, None, FailedPrecondition, "\"specless\""),
        ("no-json", runc, spec(b"{ no JSON"), InvalidArgument, "\"no-json\": malformed spec"),
        ("no-object", runc, spec(b"[1, 2]"), InvalidArgument, "\"no-object\": malformed spec"),
        ("no-shim", "io.containerd.nosuch.v9", spec(SPEC), InvalidArgument, "containerd-shim-nosuch-v9"),
        ("no-path", "/no/such/shim", spec(SPEC), InvalidArgument, "/no/such/shim"),
        ("no-name", "nonsense", spec(SPEC), InvalidArgument, "\"nonsense\""),
        ("relative", "./shim", spec(SPEC), InvalidArgument, "\"./shim\""),
        ("rootless", runc, spec(SPEC), Code::Unknown, "\"rootless\""),
    ];
    for (id, runtime, spec, code, names) in cases {
        let runtime = Some(c::container::Runtime { name: runtime.into(), options: None });
        let container = Some(c::Container { id: id.into(), runtime, spec, ..Default::default() });
        core.containers.create(&cx, c::CreateContainerRequest { container }).await.expect(id);
        let create = t::CreateTaskRequest { container_id: id.into(), ..Default::default() };
        fails(id, core.tasks.create(&cx, create).await, code, names);
        let get = t::GetRequest { container_id: id.into(), ..Default::default() };
        fails("and so there is none", core.tasks.get(&cx, get).await, NotFound, id);
        core.containers.delete(&cx, c::DeleteContainerRequest { id: id.into() }).await.expect("delete");
    }
    let create =
        |id: &str| core.tasks.create(&cx, t::CreateTaskRequest { container_id: id.to_owned(), ..Default::default() });
    fails("no container", create("unknown-thing").await, NotFound, "unknown-thing");
    fails("an id that is none", create("../x").await, InvalidArgument, "../x");
    no_task(core, &cx).await;
    core.namespaces.delete(&cx, n::DeleteNamespaceRequest { name: "default".into() }).await.expect("nothing is in it");
}

/// Every call on a task that is not there.
async fn no_task(core: &Core, cx: &Context) {
    let (port, x) = (&core.tasks, || "unknown-thing".to_owned());
    const X: &str = "unknown-thing";
    let get = t::GetRequest { container_id: x(), ..Default::default() };
    fails("get", port.get(cx, get).await, NotFound, X);
    let start = t::StartRequest { container_id: x(), ..Default::default() };
    fails("start", port.start(cx, start).await, NotFound, X);
    let kill = t::KillRequest { container_id: x(), signal: 9, ..Default::default() };
    fails("kill", port.kill(cx, kill).await, NotFound, X);
    let wait = t::WaitRequest { container_id: x(), ..Default::default() };
    fails("wait", port.wait(cx, wait).await, NotFound, X);
    let delete = t::DeleteTaskRequest { container_id: x() };
    fails("delete", port.delete(cx, delete).await, NotFound, X);
    let exec = t::ExecProcessRequest { container_id: x(), exec_id: "e".into(), ..Default::default() };
    fails("exec", port.exec(cx, exec).await, NotFound, X);
    let delete = t::DeleteProcessRequest { container_id: x(), exec_id: "e".into() };
    fails("delete of an exec", port.delete_process(cx, delete).await, NotFound, X);
    fails("pause", port.pause(cx, t::PauseTaskRequest { container_id: x() }).await, NotFound, X);
    fails("resume", port.resume(cx, t::ResumeTaskRequest { container_id: x() }).await, NotFound, X);
    fails("pids", port.list_pids(cx, t::ListPidsRequest { container_id: x() }).await, NotFound, X);
    let resize = t::ResizePtyRequest { container_id: x(), ..Default::default() };
    fails("resize", port.resize_pty(cx, resize).await, NotFound, X);
    let close = t::CloseIoRequest { container_id: x(), ..Default::default() };
    fails("close", port.close_io(cx, close).await, NotFound, X);
    let update = t::UpdateTaskRequest { container_id: x(), ..Default::default() };
    fails("update", port.update(cx, update).await, NotFound, X);
    let metrics = t::MetricsRequest { filters: vec!["id~=(".into()] };
    fails("a filter that is none", port.metrics(cx, metrics).await, InvalidArgument, "id~=(");
    let of_none = port.metrics(cx, t::MetricsRequest { filters: vec!["id==unknown-thing".into()] }).await;
    assert!(of_none.expect("metrics").metrics.is_empty(), "of what is not there there are none");
}

async fn of_a_running_one(core: &Core, cx: &Context, id: &str) {
    let (port, of) = (&core.tasks, || id.to_owned());
    fails(
        "a second task",
        port.create(cx, t::CreateTaskRequest { container_id: of(), ..Default::default() }).await,
        AlreadyExists,
        id,
    );
    let start = |exec: &str| port.start(cx, t::StartRequest { container_id: of(), exec_id: exec.to_owned() });
    fails("a second start", start("").await, FailedPrecondition, id);
    let delete = port.delete(cx, t::DeleteTaskRequest { container_id: of() }).await;
    fails("delete while it runs", delete, FailedPrecondition, id);
    let kill = port.kill(cx, t::KillRequest { container_id: of(), signal: 999, ..Default::default() }).await;
    fails("a signal that is none", kill, InvalidArgument, "999");
    let update = t::UpdateTaskRequest {
        container_id: of(),
        resources: Some(any::raw(any::LINUX_RESOURCES, b"{ no JSON".to_vec())),
        ..Default::default()
    };
    fails("limits that are none", port.update(cx, update).await, InvalidArgument, id);

    // Commands.
    let exec = |exec: &str, spec: &[u8]| {
        let spec = Some(any::raw(any::PROCESS, spec));
        port.exec(
            cx,
            t::ExecProcessRequest { container_id: of(), exec_id: exec.to_owned(), spec, ..Default::default() },
        )
    };
    let process = br#"{"cwd":"/","args":["/bin/sleep","100"],"user":{"uid":0,"gid":0}}"#;
    fails("a name that is none", exec("../x", process).await, InvalidArgument, "../x");
    fails("no name", exec("", process).await, InvalidArgument, "empty");
    fails("no process", exec("broken", b"{ no JSON").await, InvalidArgument, id);
    fails("an unknown command", start("nobody").await, NotFound, id);
    let wait = |exec: &str| port.wait(cx, t::WaitRequest { container_id: of(), exec_id: exec.to_owned() });
    fails("wait for it", wait("nobody").await, NotFound, "nobody");
    let kill = |exec: &str| {
        port.kill(cx, t::KillRequest { container_id: of(), exec_id: exec.to_owned(), signal: 9, ..Default::default() })
    };
    fails("kill it", kill("nobody").await, NotFound, "nobody");
    let get = |exec: &str| port.get(cx, t::GetRequest { container_id: of(), exec_id: exec.to_owned() });
    fails("get it", get("nobody").await, NotFound, "nobody");
    let delete =
        |exec: &str| port.delete_process(cx, t::DeleteProcessRequest { container_id: of(), exec_id: exec.to_owned() });
    fails("delete it", delete("nobody").await, NotFound, "nobody");
    let resize = t::ResizePtyRequest { container_id: of(), exec_id: "nobody".into(), width: 1, height: 1 };
    fails("resize it", port.resize_pty(cx, resize).await, NotFound, id);
    let close = t::CloseIoRequest { container_id: of(), exec_id: "nobody".into(), stdin: true };
    fails("close its input", port.close_io(cx, close).await, NotFound, id);

    exec("slow", process).await.expect("exec");
    fails("a taken name", exec("slow", process).await, AlreadyExists, "slow");
    start("slow").await.expect("start");
    fails("a second start", start("slow").await, FailedPrecondition, id);
    fails("delete while it runs", delete("slow").await, FailedPrecondition, id);
    kill("slow").await.expect("kill");
    let exit = wait("slow").await.expect("wait").exit_status;
    assert_eq!(exit, 137);
    fails("kill what has ended", kill("slow").await, NotFound, "slow");
    delete("slow").await.expect("delete");
    fails("wait for what is gone", wait("slow").await, NotFound, "slow");
    let missing = br#"{"cwd":"/","args":["/no/such/command"],"user":{"uid":0,"gid":0}}"#;
    exec("missing", missing).await.expect("exec");
    let error = start("missing").await.expect_err("there is no such command");
    assert!(error.message.contains("/no/such/command"), "{error:?}");
    delete("missing").await.expect("delete");
}
