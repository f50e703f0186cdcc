//! The task manager with a shim that misbehaves: a script for its commands, and a server inside the test.
//!
//! What a well-behaved one does is in `runtime.rs`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use core_daemon::domain::{Id, Namespace};
use core_daemon::events::{Event, Exchange};
use core_daemon::runtime::{Create, RuntimeConfig, RuntimeError, State, Tasks};
use prost::Message;
use shared_proto::containerd::events::{TaskDelete, TaskExit};
use shared_proto::containerd::task_types::Status;
use shared_proto::ttrpc::{TASK_V2, task};
use shared_proto::{Code, Error};
use shared_ttrpc::{Answer, Context, Server, Service, encode};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// A shim with one task, always running until [`Shim::exit`].
#[derive(Default)]
struct Shim {
    calls: Mutex<Vec<String>>,
    refuse_create: bool,
    exit: Notify,
}

impl Service for Shim {
    fn call(&self, _: Context, method: &str, _: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let method = method.to_owned();
        Box::pin(async move {
            self.calls.lock().unwrap().push(method.clone());
            match method.as_str() {
                "Create" if self.refuse_create => Err(Error::new(Code::ResourceExhausted, "no room")),
                "Create" => encode(&task::CreateTaskResponse { pid: 42 }),
                "Start" => encode(&task::StartResponse { pid: 42 }),
                "State" => {
                    encode(&task::StateResponse { pid: 42, status: Status::Running.into(), ..Default::default() })
                }
                "Connect" | "Shutdown" => encode(&()),
                "Wait" => {
                    self.exit.notified().await;
                    encode(&task::WaitResponse { exit_status: 3, exited_at: None })
                }
                "Delete" if self.refuse_create => Err(Error::not_found("no task")),
                "Delete" => encode(&task::DeleteResponse { pid: 42, exit_status: 3, exited_at: None }),
                other => Err(Error::unimplemented(other)),
            }
        })
    }
}

struct Rig {
    dir: tempfile::TempDir,
    tasks: Tasks,
    events: mpsc::Receiver<Arc<Event>>,
    ns: Namespace,
    id: Id,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let exchange = Exchange::default();
        let events = exchange.subscribe();
        let path = |name: &str| dir.path().join(name);
        let config = RuntimeConfig {
            state: path("state"),
            root: path("root"),
            core_socket: path("core"),
            ttrpc_address: path("events"),
            binary: "/bin/true".into(),
            steps: Default::default(),
        };
        let script = format!(
            "#!/bin/sh\nfor last; do :; done\necho \"$last\" >>{0}/commands\n[ \"$last\" = start ] && exec cat {0}/answer\n:\n",
            dir.path().display()
        );
        std::fs::write(path("shim"), script).unwrap();
        std::fs::set_permissions(path("shim"), PermissionsExt::from_mode(0o755)).unwrap();
        let (ns, id) = (Namespace::parse("odd").unwrap(), Id::parse("c1").unwrap());
        Self { tasks: Tasks::new(config, exchange), dir, events, ns, id }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `start` prints.
    fn answers(&self, version: u32, protocol: &str) {
        let address = format!("unix://{}", self.path("listen").display());
        let answer = format!(r#"{{"version":{version},"address":"{address}","protocol":"{protocol}"}}"#);
        std::fs::write(self.path("answer"), answer).unwrap();
    }

    /// Serves the shim, and a relay to it that can be cut. `start` names the relay.
    fn serve(&self, shim: &Arc<Shim>) -> Relay {
        let behind = self.path("behind");
        let server = Server::new().service(TASK_V2, shim.clone());
        tokio::spawn(server.serve(UnixListener::bind(&behind).unwrap(), std::future::pending()));
        let listener = UnixListener::bind(self.path("listen")).unwrap();
        let links: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let accepting = tokio::spawn({
            let links = links.clone();
            async move {
                loop {
                    let (mut near, _) = listener.accept().await.unwrap();
                    let mut far = UnixStream::connect(&behind).await.unwrap();
                    links.lock().unwrap().push(tokio::spawn(async move {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }));
                }
            }
        });
        Relay { links, accepting }
    }

    async fn create(&self) -> Result<u32, RuntimeError> {
        let request = Create {
            runtime_path: self.path("shim").to_string_lossy().into_owned(),
            spec: b"{}".to_vec(),
            ..Default::default()
        };
        self.tasks.create(&self.ns, &self.id, request).await
    }

    async fn wait(&self) -> u32 {
        let wait = self.tasks.wait(&self.ns, &self.id, "");
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("no exit").unwrap().status
    }

    async fn event(&mut self) -> Arc<Event> {
        tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await.expect("no event").unwrap()
    }

    fn commands(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("commands")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn bundles(&self) -> usize {
        let dir = self.path("state/io.containerd.runtime.v2.task/odd");
        std::fs::read_dir(dir).map_or(0, |entries| entries.count())
    }
}

struct Relay {
    links: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Breaks the connections; new ones can be made.
    fn cut(&self) {
        self.links.lock().unwrap().drain(..).for_each(|link| link.abort());
    }

    /// Nobody listens any more.
    fn die(self) {
        self.accepting.abort();
        self.cut();
    }
}

#[tokio::test]
async fn a_version_that_is_not_served_gives_way_and_a_lost_event_is_made_good() {
    let mut rig = Rig::new();
    rig.answers(3, "ttrpc");
    let shim = Arc::new(Shim::default());
    let _relay = rig.serve(&shim);
    assert_eq!(rig.create().await.unwrap(), 42);
    rig.tasks.start(&rig.ns, &rig.id, "").await.unwrap();
    shim.exit.notify_one();
    assert_eq!(rig.wait().await, 3);
    // This shim has sent no event.
    let event = rig.event().await;
    let exit = TaskExit::decode(event.payload.value.as_slice()).unwrap();
    assert_eq!((event.topic.as_str(), exit.pid, exit.exit_status), ("/tasks/exit", 42, 3));
    assert_eq!(rig.tasks.delete(&rig.ns, &rig.id).await.unwrap().status, 3);
    assert_eq!(*shim.calls.lock().unwrap(), ["Create", "Start", "Wait", "Delete", "Shutdown"]);
    assert_eq!((rig.commands(), rig.bundles()), (vec!["start".to_owned()], 0));
}

#[tokio::test]
async fn a_broken_connection_is_not_an_exit() {
    let mut rig = Rig::new();
    rig.answers(2, "ttrpc");
    let shim = Arc::new(Shim::default());
    let relay = rig.serve(&shim);
    rig.create().await.unwrap();
    rig.tasks.start(&rig.ns, &rig.id, "").await.unwrap();
    for _ in 0..3 {
        relay.cut();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rig.tasks.get(&rig.ns, &rig.id, "").await.unwrap().state, State::Running);
    assert_eq!(rig.commands(), ["start"]);
    shim.exit.notify_waiters();
    assert_eq!(rig.wait().await, 3, "the watch has moved to the new connection");

    // When nobody listens any more, it is; a `delete` that says nothing changes no known status.
    relay.die();
    let (exit, delete) = (rig.event().await, rig.event().await);
    assert_eq!((exit.topic.as_str(), delete.topic.as_str()), ("/tasks/exit", "/tasks/delete"));
    assert_eq!(TaskDelete::decode(delete.payload.value.as_slice()).unwrap().exit_status, 3);
    assert_eq!((rig.commands(), rig.bundles()), (vec!["start".to_owned(), "delete".to_owned()], 0));
    assert!(!rig.path("listen").exists(), "the dead shim's socket");
}

#[tokio::test]
async fn an_end_of_which_nothing_is_known_has_status_255() {
    let mut rig = Rig::new();
    rig.answers(2, "ttrpc");
    let relay = rig.serve(&Arc::new(Shim::default()));
    rig.create().await.unwrap();
    rig.tasks.start(&rig.ns, &rig.id, "").await.unwrap();
    relay.die();
    assert_eq!(rig.wait().await, 255);
    let exit = TaskExit::decode(rig.event().await.payload.value.as_slice()).unwrap();
    assert_eq!((exit.pid, exit.exit_status, exit.id.as_str()), (42, 255, "c1"));
    assert!(exit.exited_at.is_some_and(|at| at.seconds > 1_600_000_000));
}

#[tokio::test]
async fn a_refused_create_keeps_its_code_and_ends_the_shim() {
    let rig = Rig::new();
    rig.answers(2, "ttrpc");
    let shim = Arc::new(Shim { refuse_create: true, ..Default::default() });
    let _relay = rig.serve(&shim);
    let e = Error::from(rig.create().await.unwrap_err());
    assert_eq!(e.code, Code::ResourceExhausted);
    assert!(e.message.contains("no room") && e.message.contains("c1"), "{e}");
    assert_eq!(*shim.calls.lock().unwrap(), ["Create", "Delete", "Shutdown"]);
    assert_eq!(rig.bundles(), 0);
    assert!(matches!(rig.tasks.get(&rig.ns, &rig.id, "").await, Err(RuntimeError::NoTask { .. })));
}

#[tokio::test]
async fn what_start_may_say() {
    let rig = Rig::new();
    rig.answers(2, "grpc");
    let cases = BTreeMap::from([("", "no address"), ("unix:///nowhere/at/all", "/nowhere/at/all")]);
    let e = rig.create().await.unwrap_err().to_string();
    assert!(e.contains("grpc"), "{e}");
    for (answer, part) in cases {
        std::fs::write(rig.path("answer"), answer).unwrap();
        let e = rig.create().await.unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    }
    assert_eq!(rig.bundles(), 0);
}
