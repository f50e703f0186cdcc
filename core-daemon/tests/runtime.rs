//! The task manager with real parts: containerd's runc shim, runc, busybox. Needs root.
//!
//! Each test has its own folders, namespace and cgroup, and checks at its end that nothing is left of it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_daemon::domain::{Id, Namespace, Payload};
use core_daemon::events::{Event, Exchange};
use core_daemon::runtime::{Create, Exec, Kill, RuntimeConfig, State, Stdio, Tasks, serve_ttrpc};
use prost::Message;
use serde_json::json;
use shared_proto::containerd::Mount;
use shared_proto::containerd::events::{TaskDelete, TaskExit};
use shared_proto::{Code, Error};
use tokio::sync::{mpsc, oneshot};

const SHIM: &str = "containerd-shim-runc-v2";

/// A core's runtime side in folders of its own.
struct Rig {
    dir: tempfile::TempDir,
    ns: Namespace,
    daemon: Option<Daemon>,
}

/// One run of it: what a restart ends.
struct Daemon {
    tasks: Tasks,
    events: mpsc::Receiver<Arc<Event>>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Rig {
    async fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("rt-").tempdir().unwrap();
        let root = dir.path().join("busybox");
        for folder in ["bin", "proc", "dev", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let ns = Namespace::parse(&format!("rt-{name}-{}", std::process::id())).unwrap();
        let mut rig = Self { dir, ns, daemon: None };
        rig.start().await;
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn start(&mut self) -> core_daemon::runtime::Recovered {
        let config = RuntimeConfig {
            state: self.path("state"),
            root: self.path("root"),
            core_socket: self.path("core.sock"),
            ttrpc_address: self.path("core.sock.ttrpc"),
            binary: "/bin/true".into(),
            steps: Default::default(),
        };
        let exchange = Exchange::default();
        let events = exchange.subscribe();
        let listener = shared_sys::socket::bind(&config.ttrpc_address, Default::default()).unwrap();
        let tasks = Tasks::new(config, exchange);
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve_ttrpc(listener, tasks.clone(), async {
            let _ = stopped.await;
        }));
        let recovered = tasks.recover().await;
        self.daemon = Some(Daemon { tasks, events, stop, served });
        recovered
    }

    /// Ends the daemon's part; shims go on.
    async fn stop(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.stop.send(()).unwrap();
        daemon.served.await.unwrap().unwrap();
        daemon.tasks.drain().await;
    }

    fn tasks(&self) -> Tasks {
        self.daemon.as_ref().unwrap().tasks.clone()
    }

    fn spec(&self, id: &str, args: &[&str], annotations: HashMap<&str, &str>) -> Vec<u8> {
        let args: Vec<&str> = ["/bin/busybox"].iter().chain(args).copied().collect();
        let namespaces: Vec<_> = ["pid", "ipc", "uts", "mount", "network"].map(|t| json!({"type": t})).into();
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": process(&args),
            "root": {"path": "rootfs"},
            "hostname": "rt",
            "annotations": annotations,
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                // The root filesystem is shared by all tasks of a test.
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{}/{id}", self.ns)},
        });
        serde_json::to_vec(&spec).unwrap()
    }

    fn request(&self, id: &str, args: &[&str]) -> Create {
        let rootfs = Mount {
            r#type: "bind".into(),
            source: self.path("busybox").to_string_lossy().into_owned(),
            options: vec!["rbind".into(), "rw".into()],
            ..Default::default()
        };
        Create { spec: self.spec(id, args, HashMap::new()), rootfs: vec![rootfs], ..Default::default() }
    }

    async fn create(&self, id: &str, args: &[&str]) -> u32 {
        self.tasks().create(&self.ns, &name(id), self.request(id, args)).await.unwrap()
    }

    async fn run(&self, id: &str, args: &[&str]) -> u32 {
        let pid = self.create(id, args).await;
        assert_eq!(self.tasks().start(&self.ns, &name(id), "").await.unwrap(), pid);
        pid
    }

    async fn state(&self, id: &str) -> State {
        self.tasks().get(&self.ns, &name(id), "").await.unwrap().state
    }

    async fn wait(&self, id: &str, exec: &str) -> u32 {
        let wait = tokio::time::timeout(Duration::from_secs(30), async {
            self.tasks().wait(&self.ns, &name(id), exec).await.unwrap()
        });
        wait.await.expect("no exit").status
    }

    async fn kill(&self, id: &str, signal: u32) -> Result<(), Error> {
        Ok(self.tasks().kill(&self.ns, &name(id), Kill { signal, ..Default::default() }).await?)
    }

    async fn delete(&self, id: &str) -> Result<u32, Error> {
        Ok(self.tasks().delete(&self.ns, &name(id)).await?.status)
    }

    /// Events up to and with the first that begins so; shown as `topic id[/exec] [status]`.
    async fn events_until(&mut self, wanted: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let receive = self.daemon.as_mut().unwrap().events.recv();
            let event = tokio::time::timeout(Duration::from_secs(20), receive).await;
            let event = event.unwrap_or_else(|_| panic!("no {wanted} in {seen:?}")).unwrap();
            let event = shown(&event);
            let found = event.starts_with(wanted);
            seen.push(event);
            if found {
                return seen;
            }
        }
    }

    /// Events that came so far.
    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.daemon.as_mut().unwrap().events.try_recv().ok()).map(|e| shown(&e)).collect()
    }

    /// What an earlier run of this rig has left on the machine.
    fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let here = self.dir.path().to_string_lossy().into_owned();
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains(&here)) {
            found.push(format!("mount: {line}"));
        }
        for pid in processes() {
            let words = command_line(pid);
            if words.iter().any(|word| word.contains(&here) || word == self.ns.as_str()) {
                found.push(format!("process {pid}: {words:?}"));
            }
        }
        for folder in ["state", "root"] {
            let path = self.path(folder).join("io.containerd.runtime.v2.task").join(self.ns.as_str());
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                found.push(format!("folder: {}", entry.path().display()));
            }
        }
        for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for entry in fs::read_dir(controller.path().join(self.ns.as_str())).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    found.push(format!("cgroup: {}", entry.path().display()));
                }
            }
        }
        found
    }

    async fn finish(mut self, addresses: &[String]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut found = self.leftovers();
            found.extend(addresses.iter().filter(|a| Path::new(a).exists()).map(|a| format!("socket: {a}")));
            if found.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "left behind: {found:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.stop().await;
    }

    fn socket(&self, id: &str) -> String {
        let bundle = self.path("state/io.containerd.runtime.v2.task").join(self.ns.as_str()).join(id);
        let text = fs::read(bundle.join("bootstrap.json")).unwrap();
        let bootstrap: serde_json::Value = serde_json::from_slice(&text).unwrap();
        bootstrap["address"].as_str().unwrap().trim_start_matches("unix://").to_owned()
    }

    /// The process of the shim of task `id`.
    fn shim_pid(&self, id: &str) -> i32 {
        let ours = |pid: &i32| {
            let words = command_line(*pid);
            words.first().is_some_and(|w| w.ends_with(SHIM))
                && words.windows(2).any(|w| w == ["-namespace", self.ns.as_str()])
                && words.windows(2).any(|w| w == ["-id", id])
        };
        processes().into_iter().find(ours).expect("no shim process")
    }

    fn kill_shim(&self, id: &str) {
        signal(self.shim_pid(id), nix::sys::signal::Signal::SIGKILL);
    }
}

/// After a test that failed: nothing of it stays on the machine.
impl Drop for Rig {
    fn drop(&mut self) {
        let runc = PathBuf::from("/run/containerd/runc").join(self.ns.as_str());
        for pid in processes().into_iter().filter(|pid| command_line(*pid).iter().any(|w| w == self.ns.as_str())) {
            signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
        for container in fs::read_dir(&runc).into_iter().flatten().flatten() {
            let mut delete = std::process::Command::new("runc");
            let _ = delete.arg("--root").arg(&runc).args(["delete", "--force"]).arg(container.file_name()).status();
        }
        let _ = fs::remove_dir(&runc);
        let bundles = self.path("state/io.containerd.runtime.v2.task").join(self.ns.as_str());
        for bundle in fs::read_dir(bundles).into_iter().flatten().flatten() {
            let _ = shared_sys::mount::unmount(&bundle.path().join("rootfs"));
        }
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(controller.path().join(self.ns.as_str()));
        }
    }
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

fn shown(event: &Event) -> String {
    match event.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(event.payload.value.as_slice()).unwrap();
            format!("{} {}/{} {}", event.topic, exit.container_id, exit.id, exit.exit_status)
        }
        "/tasks/delete" => {
            let delete = TaskDelete::decode(event.payload.value.as_slice()).unwrap();
            format!("{} {} {}", event.topic, delete.container_id, delete.exit_status)
        }
        topic => topic.to_owned(),
    }
}

fn processes() -> Vec<i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Empty for a process that has ended, be it reaped or not.
fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).filter(|w| !w.is_empty()).collect()
}

/// The sockets and pipes that a process has open, as `socket:[inode]`.
fn files(pid: u32) -> std::collections::BTreeSet<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = open.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|l| l.to_string_lossy().into_owned());
    links.filter(|link| link.starts_with("socket:") || link.starts_with("pipe:")).collect()
}

fn process(args: &[&str]) -> serde_json::Value {
    json!({"user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/"})
}

fn exec(id: &str, args: &[&str]) -> Exec {
    let args: Vec<&str> = ["/bin/busybox"].iter().chain(args).copied().collect();
    let spec =
        Payload { type_url: shared_proto::any::PROCESS.into(), value: serde_json::to_vec(&process(&args)).unwrap() };
    Exec { exec: id.into(), spec: Some(spec), ..Default::default() }
}

fn name(id: &str) -> Id {
    Id::parse(id).unwrap()
}

fn code<T: std::fmt::Debug, E: Into<Error> + std::fmt::Debug>(outcome: Result<T, E>) -> Code {
    outcome.unwrap_err().into().code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_from_create_to_delete() {
    let mut rig = Rig::new("life").await;
    let (ns, tasks) = (rig.ns.clone(), rig.tasks());
    let out = rig.path("out");
    let uri = format!("file://{}", out.display());
    let request = Create {
        stdio: Stdio { stdout: uri.clone(), stderr: uri, ..Default::default() },
        ..rig.request("c1", &["sh", "-c", "echo hello; exit 7"])
    };
    let pid = tasks.create(&ns, &name("c1"), request.clone()).await.unwrap();
    let socket = rig.socket("c1");
    assert_eq!(rig.state("c1").await, State::Created);
    assert_eq!(code(tasks.create(&ns, &name("c1"), request).await), Code::AlreadyExists);

    // A wait before the start blocks.
    let waiting = {
        let (tasks, ns) = (tasks.clone(), ns.clone());
        tokio::spawn(async move { tasks.wait(&ns, &name("c1"), "").await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    tasks.start(&ns, &name("c1"), "").await.unwrap();
    let exit = waiting.await.unwrap().unwrap();
    assert_eq!((exit.pid, exit.status), (pid, 7));
    assert!(exit.at > 1_600_000_000_000_000_000);
    // So does one after the exit, with the same answer; and a signal finds nobody.
    assert_eq!(tasks.wait(&ns, &name("c1"), "").await.unwrap(), exit);
    assert!(matches!(rig.state("c1").await, State::Stopped(stored) if stored == exit));
    assert_eq!(code(rig.kill("c1", 15).await), Code::NotFound);

    assert_eq!(rig.delete("c1").await.unwrap(), 7);
    // A deletion waits for the rest of the output.
    assert_eq!(fs::read_to_string(&out).unwrap(), "hello\n");
    assert_eq!(code(tasks.get(&ns, &name("c1"), "").await), Code::NotFound);
    assert_eq!(code(rig.delete("c1").await), Code::NotFound);
    assert_eq!(
        rig.events_until("/tasks/delete").await,
        ["/tasks/create", "/tasks/start", "/tasks/exit c1/c1 7", "/tasks/delete c1 7"]
    );
    rig.finish(&[socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_and_its_execs() {
    let mut rig = Rig::new("exec").await;
    let (ns, tasks) = (rig.ns.clone(), rig.tasks());
    let pid = rig.run("c1", &["sleep", "1000"]).await;
    let socket = rig.socket("c1");
    assert_eq!(rig.state("c1").await, State::Running);
    assert_eq!(code(rig.delete("c1").await), Code::FailedPrecondition);

    tasks.exec(&ns, &name("c1"), exec("e1", &["sh", "-c", "exit 3"])).await.unwrap();
    assert_eq!(code(tasks.exec(&ns, &name("c1"), exec("e1", &["true"])).await), Code::AlreadyExists);
    let info = tasks.get(&ns, &name("c1"), "e1").await.unwrap();
    assert_eq!((info.pid, info.state), (0, State::Created));
    let started = tasks.start(&ns, &name("c1"), "e1").await.unwrap();
    assert_eq!(rig.wait("c1", "e1").await, 3);
    let exit = tasks.delete_process(&ns, &name("c1"), "e1").await.unwrap();
    assert_eq!((exit.pid, exit.status), (started, 3));
    assert_eq!(code(tasks.get(&ns, &name("c1"), "e1").await), Code::NotFound);
    assert_eq!(code(tasks.wait(&ns, &name("c1"), "e1").await), Code::NotFound);

    // An exec that can't start names the reason, and can be taken away.
    tasks.exec(&ns, &name("c1"), Exec { spec: Some(bad_process()), ..exec("e2", &[]) }).await.unwrap();
    let e = Error::from(tasks.start(&ns, &name("c1"), "e2").await.unwrap_err());
    assert!(e.message.contains("/no/such/file"), "{e}");
    tasks.delete_process(&ns, &name("c1"), "e2").await.unwrap();

    let pids = tasks.pids(&ns, &name("c1")).await.unwrap();
    assert!(pids.iter().any(|p| p.pid == pid), "{pids:?}");
    let samples = tasks.metrics(&ns, |id| id.as_str() == "c1").await;
    assert_eq!(samples[0].data.as_ref().unwrap().type_url, "io.containerd.cgroups.v1.Metrics");
    assert!(tasks.metrics(&ns, |id| id.as_str() == "other").await.is_empty());
    let limits =
        Payload { type_url: shared_proto::any::LINUX_RESOURCES.into(), value: br#"{"cpu":{"shares":512}}"#.to_vec() };
    tasks.update(&ns, &name("c1"), Some(limits), Default::default()).await.unwrap();

    // Nothing that this process has opened leaks into a shim (what it got from its parent itself isn't ours).
    let ours = &files(std::process::id()) - &files(std::os::unix::process::parent_id());
    let inherited = &files(rig.shim_pid("c1") as u32) & &ours;
    assert!(inherited.is_empty(), "{inherited:?}");

    tasks.pause(&ns, &name("c1")).await.unwrap();
    assert_eq!(rig.state("c1").await, State::Paused);
    tasks.resume(&ns, &name("c1")).await.unwrap();
    assert_eq!(rig.state("c1").await, State::Running);
    let listed = tasks.list(&ns).await;
    assert_eq!((listed.len(), listed[0].pid), (1, pid));

    rig.kill("c1", 9).await.unwrap();
    assert_eq!(rig.wait("c1", "").await, 137);
    assert_eq!(rig.delete("c1").await.unwrap(), 137);
    let seen = rig.events_until("/tasks/delete").await;
    assert!(
        seen.contains(&"/tasks/exit c1/e1 3".to_owned()) && seen.contains(&"/tasks/exit c1/c1 137".to_owned()),
        "{seen:?}"
    );
    rig.finish(&[socket]).await;
}

fn bad_process() -> Payload {
    let value = serde_json::to_vec(&process(&["/no/such/file"])).unwrap();
    Payload { type_url: shared_proto::any::PROCESS.into(), value }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_why_and_leaves_nothing() {
    let rig = Rig::new("fail").await;
    let (ns, tasks) = (rig.ns.clone(), rig.tasks());
    let c1 = name("c1");
    let create = |request| tasks.create(&ns, &c1, request);

    let command =
        String::from_utf8(rig.spec("c1", &[], HashMap::new())).unwrap().replace("/bin/busybox", "/no/such/file");
    let e = Error::from(create(Create { spec: command.into(), ..rig.request("c1", &[]) }).await.unwrap_err());
    assert!(e.message.contains("/no/such/file") && e.message.contains("c1"), "{e}");
    let no_mount = Mount { r#type: "bind".into(), source: "/no/such/source".into(), ..Default::default() };
    let e = Error::from(create(Create { rootfs: vec![no_mount], ..rig.request("c1", &[]) }).await.unwrap_err());
    assert!(e.message.contains("mount"), "{e}");
    let e = Error::from(
        create(Create { runtime: "io.example.none.v1".into(), ..rig.request("c1", &[]) }).await.unwrap_err(),
    );
    assert!(e.code == Code::InvalidArgument && e.message.contains("containerd-shim-none-v1"), "{e}");
    let e = Error::from(create(Create { spec: b"{".to_vec(), ..rig.request("c1", &[]) }).await.unwrap_err());
    assert_eq!(e.code, Code::InvalidArgument);
    let broken = rig.path("broken-shim");
    fs::write(&broken, "#!/bin/sh\necho this shim is broken >&2\nexit 4\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let runtime_path = broken.to_string_lossy().into_owned();
    let e = Error::from(create(Create { runtime_path, ..rig.request("c1", &[]) }).await.unwrap_err());
    assert!(e.message.contains("this shim is broken"), "{e}");

    // The name is free again, and everything can be undone before a start.
    rig.create("c1", &["true"]).await;
    let socket = rig.socket("c1");
    rig.delete("c1").await.unwrap();
    rig.finish(&[socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_sandbox_share_its_shim() {
    let rig = Rig::new("pod").await;
    let (ns, tasks) = (rig.ns.clone(), rig.tasks());
    let annotations = HashMap::from([("io.kubernetes.cri.sandbox-id", "pod")]);
    for id in ["pod", "app1", "app2"] {
        let spec = rig.spec(id, &["sleep", "1000"], annotations.clone());
        tasks.create(&ns, &name(id), Create { spec, ..rig.request(id, &[]) }).await.unwrap();
        tasks.start(&ns, &name(id), "").await.unwrap();
    }
    let socket = rig.socket("pod");
    assert_eq!((rig.socket("app1"), rig.socket("app2")), (socket.clone(), socket.clone()));
    // The sandbox's process may go first: the shim serves the others.
    for id in ["pod", "app1", "app2"] {
        rig.kill(id, 9).await.unwrap();
        assert_eq!(rig.wait(id, "").await, 137);
        assert_eq!(rig.delete(id).await.unwrap(), 137);
    }
    rig.finish(&[socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shim_is_an_exit_told_once() {
    let mut rig = Rig::new("dead").await;
    rig.run("c1", &["sleep", "1000"]).await;
    let socket = rig.socket("c1");
    let waiting = {
        let (tasks, ns) = (rig.tasks(), rig.ns.clone());
        tokio::spawn(async move { tasks.wait(&ns, &name("c1"), "").await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.kill_shim("c1");
    assert_eq!(waiting.await.unwrap().unwrap().status, 137);
    let seen = rig.events_until("/tasks/delete").await;
    assert_eq!(seen[2..], ["/tasks/exit c1/c1 137", "/tasks/delete c1 137"]);
    assert_eq!(code(rig.delete("c1").await), Code::NotFound);

    // An exit that was known keeps its status.
    rig.run("c2", &["sh", "-c", "exit 5"]).await;
    assert_eq!(rig.wait("c2", "").await, 5);
    rig.events_until("/tasks/exit").await;
    rig.kill_shim("c2");
    assert_eq!(rig.events_until("/tasks/delete").await, ["/tasks/delete c2 5"]);

    // The name can be used again at once.
    rig.run("c1", &["true"]).await;
    assert_eq!(rig.wait("c1", "").await, 0);
    rig.delete("c1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let late = rig.events();
    assert_eq!(late.iter().filter(|e| e.contains("exit")).count(), 1, "{late:?}");
    rig.finish(&[socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_shim_delays_nobody_else() {
    let rig = Rig::new("hung").await;
    let (ns, tasks) = (rig.ns.clone(), rig.tasks());
    rig.run("c1", &["sleep", "1000"]).await;
    rig.run("c2", &["sleep", "1000"]).await;
    let shim = rig.shim_pid("c1");
    signal(shim, nix::sys::signal::Signal::SIGSTOP);
    let hung = {
        let (tasks, ns) = (tasks.clone(), ns.clone());
        tokio::spawn(async move { tasks.kill(&ns, &name("c1"), Kill { signal: 9, ..Default::default() }).await })
    };
    let started = Instant::now();
    assert_eq!(tasks.list(&ns).await.len(), 2);
    rig.kill("c2", 9).await.unwrap();
    assert_eq!(rig.wait("c2", "").await, 137);
    rig.delete("c2").await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    signal(shim, nix::sys::signal::Signal::SIGCONT);
    hung.await.unwrap().unwrap();
    assert_eq!(rig.wait("c1", "").await, 137);
    rig.delete("c1").await.unwrap();
    rig.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_everything_again() {
    let mut rig = Rig::new("restart").await;
    let (ns, tasks) = (rig.ns.clone(), rig.tasks());
    let running = rig.run("running", &["sleep", "1000"]).await;
    let flag = rig.path("busybox/tmp/go");
    rig.run("exits", &["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.05; done; exit 9"]).await;
    rig.create("created", &["sh", "-c", "exit 4"]).await;
    rig.create("unheard", &["sh", "-c", "exit 5"]).await;
    rig.run("dies", &["sleep", "1000"]).await;
    let silent = rig.run("silent", &["sleep", "1000"]).await;
    tasks.exec(&ns, &name("running"), exec("e1", &["sh", "-c", "sleep 2; exit 6"])).await.unwrap();
    tasks.start(&ns, &name("running"), "e1").await.unwrap();
    let names = ["running", "exits", "created", "unheard", "dies", "silent"];
    let sockets: Vec<String> = names.map(|id| rig.socket(id)).into();
    let hung = rig.shim_pid("silent");
    drop(tasks);
    rig.stop().await;

    fs::write(&flag, "").unwrap();
    rig.kill_shim("dies");
    signal(hung, nix::sys::signal::Signal::SIGSTOP);
    // Its client was not told any more that it is made.
    let bundles = rig.path("state/io.containerd.runtime.v2.task").join(ns.as_str());
    fs::remove_file(bundles.join("unheard/made")).unwrap();
    // A `start` that lost its parent before it could say where its shim listens.
    let half = rig.path("state/io.containerd.runtime.v2.task").join(ns.as_str()).join("half");
    fs::create_dir_all(&half).unwrap();
    let mut orphan = std::process::Command::new("sleep").arg("1000").current_dir(&half).spawn().unwrap();
    fs::create_dir_all(rig.path("state/io.containerd.runtime.v2.task").join(ns.as_str()).join("empty")).unwrap();
    fs::create_dir_all(rig.path("root/io.containerd.runtime.v2.task").join(ns.as_str()).join("stray")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let recovered = rig.start().await;
    assert_eq!((recovered.tasks, recovered.silent, recovered.dead, recovered.empty), (4, 1, 1, 3));
    assert!(!orphan.wait().unwrap().success());

    let tasks = rig.tasks();
    // No client may have heard of an exit meanwhile: it is there to be read until somebody has.
    rig.events_until("/tasks/exit dies/dies 137").await;
    assert!(matches!(rig.state("dies").await, State::Stopped(exit) if exit.status == 137));
    assert_eq!(rig.wait("dies", "").await, 137);
    let info = tasks.get(&ns, &name("running"), "").await.unwrap();
    assert_eq!((info.pid, info.state), (running, State::Running));
    assert!(matches!(rig.state("exits").await, State::Stopped(exit) if exit.status == 9));
    assert_eq!(rig.wait("exits", "").await, 9);
    assert_eq!(rig.state("created").await, State::Created);
    assert_eq!(code(tasks.get(&ns, &name("unheard"), "").await), Code::NotFound);
    let info = tasks.get(&ns, &name("silent"), "").await.unwrap();
    assert_eq!((info.pid, info.state), (silent, State::Unknown));
    signal(hung, nix::sys::signal::Signal::SIGCONT);
    assert_eq!(rig.state("silent").await, State::Running);

    // Execs of the earlier run are known to the shim; news come on the new socket.
    assert_eq!(rig.wait("running", "e1").await, 6);
    rig.events_until("/tasks/exit running/e1 6").await;
    assert_eq!(rig.delete("dies").await.unwrap(), 137);
    assert_eq!(rig.events_until("/tasks/delete").await.last().unwrap(), "/tasks/delete dies 137");
    assert_eq!(code(tasks.get(&ns, &name("dies"), "").await), Code::NotFound);
    tasks.start(&ns, &name("created"), "").await.unwrap();
    assert_eq!(rig.wait("created", "").await, 4);
    for (id, status) in [("running", 137), ("silent", 137), ("exits", 9), ("created", 4)] {
        if status == 137 {
            rig.kill(id, 9).await.unwrap();
            assert_eq!(rig.wait(id, "").await, 137);
        }
        assert_eq!(rig.delete(id).await.unwrap(), status, "{id}");
    }
    drop(tasks);
    rig.finish(&sockets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_a_time() {
    let rig = Arc::new(Rig::new("many").await);
    let started = Instant::now();
    let lives = (0..20u32).map(|n| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let id = format!("c{n}");
            rig.run(&id, &["sh", "-c", &format!("exit {n}")]).await;
            assert_eq!(rig.wait(&id, "").await, n);
            assert_eq!(rig.delete(&id).await.unwrap(), n);
        })
    });
    for life in lives.collect::<Vec<_>>() {
        life.await.unwrap();
    }
    println!("20 lives in {:?}", started.elapsed());
    Arc::into_inner(rig).unwrap().finish(&[]).await;
}
