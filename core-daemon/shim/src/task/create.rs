//! `Create` and `Start`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shared_proto::containerd::events::{TaskCreate, TaskExecStarted, TaskIo, TaskStart};
use shared_proto::ttrpc::task::{CreateTaskRequest, StartRequest};
use shared_sys::mount::{self, Mount};

use super::Tasks;
use super::container::Container;
use super::process::{Process, State};
use super::release::release;
use crate::cgroup::Cgroup;
use crate::engine::Engine;
use crate::error::Error;
use crate::io::{self, Io, Socket, Stdio};
use crate::options::Options;
use crate::pause::{self, Plan, Waiting};
use crate::{log, spec};

impl Tasks {
    /// Makes a container. Its first process waits; answers its pid. A failure leaves nothing.
    pub async fn create(self: &Arc<Self>, request: CreateTaskRequest) -> Result<u32, Error> {
        if !request.checkpoint.is_empty() {
            return Err(Error::Unimplemented("restoring from a checkpoint".into()));
        }
        let bundle = PathBuf::from(&request.bundle);
        let options = Options::new(request.options.as_ref(), &self.namespace)?;
        options.save(&bundle)?;
        let facts = spec::read(&bundle)?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let engine = Engine::new(options, &bundle, self.reaper.clone(), self.program.clone());
        let init = Process::new("", stdio, Vec::new());
        let container = Arc::new(Container::new(&request.id, bundle, engine, &facts, init));
        // The name is taken from here on.
        {
            let mut containers = self.containers();
            if containers.contains_key(&request.id) {
                return Err(Error::Exists(format!("container {:?} is here already", request.id)));
            }
            containers.insert(request.id.clone(), container.clone());
        }
        let _turn = container.init.turn.lock().await;
        match self.make(&container, &request).await {
            Ok(pid) => Ok(pid),
            Err(e) => {
                if let Err(e) = container.unmount() {
                    log::warn(e);
                }
                self.containers().remove(&request.id);
                Err(e)
            }
        }
    }

    /// The engine's part. A container of a pod has its root filesystem in its own mount namespace then, and the node's
    /// is let go: see ADR 16.
    async fn make(self: &Arc<Self>, container: &Arc<Container>, request: &CreateTaskRequest) -> Result<u32, Error> {
        if let Some(pid) = self.make_pause(container, request).await? {
            return Ok(pid);
        }
        mount_root(&container.bundle, request)?;
        let (init, owner) = (&container.init, container.owner());
        let made = if init.stdio.terminal {
            let socket = Socket::listen()?;
            let made = container.engine.create(&container.id, io::nothing()?, Some(&socket.path)).await?;
            (made, io::attach(socket, &init.stdio, &owner).await)
        } else {
            let (streams, io) = io::open(&init.stdio, &owner).await?;
            (container.engine.create(&container.id, streams, None).await?, Ok(io))
        };
        let ((pid, _birth), io) = made;
        let prepared = io.and_then(|io| Ok((io, Cgroup::of(pid)?)));
        let (io, cgroup) = match prepared {
            Ok(prepared) => prepared,
            Err(e) => {
                if let Err(e) = container.engine.delete(&container.id).await {
                    log::warn(e);
                }
                return Err(e);
            }
        };
        if container.lets_go
            && let Err(e) = container.unmount()
        {
            log::warn(e);
        }
        self.made(container, request, pid, io, cgroup);
        Ok(pid)
    }

    /// Makes a pod's own process without the engine. `None`: it is for the engine.
    async fn make_pause(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: &CreateTaskRequest,
    ) -> Result<Option<u32>, Error> {
        let init = &container.init;
        if !container.engine.is_plain() || init.stdio.terminal || request.rootfs.is_empty() {
            return Ok(None);
        }
        let Ok(plan) = Plan::read(&container.bundle) else { return Ok(None) };
        make_folder(&container.bundle.join("rootfs"))?;
        let (streams, io) = io::open(&init.stdio, &container.owner()).await?;
        match pause::make(plan, &container.bundle, &mounts(request), streams, &self.reaper).await {
            Ok(Waiting { pid, birth: _birth, cgroup, gate }) => {
                *container.gate.lock().expect("the gate") = Some(gate);
                self.made(container, request, pid, io, cgroup);
                Ok(Some(pid))
            }
            Err(e) => {
                log::warn(format_args!("the engine makes {:?}: {e}", container.id));
                Ok(None)
            }
        }
    }

    /// The container is there: its events begin.
    fn made(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: &CreateTaskRequest,
        pid: u32,
        io: Io,
        cgroup: Cgroup,
    ) {
        let cgroup = container.set_cgroup(cgroup);
        container.init.made(pid, io);
        self.publish_create(request, pid);
        self.watch_memory(&container.id, &cgroup);
        self.watch_exit(container, &container.init, self.reaper.expect(pid));
    }

    fn publish_create(&self, request: &CreateTaskRequest, pid: u32) {
        let event = TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: Some(TaskIo {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            }),
            checkpoint: request.checkpoint.clone(),
            pid,
        };
        self.events.publish("/tasks/create", &event);
    }

    /// Starts a container's first process, or an exec. Answers its pid.
    pub async fn start(self: &Arc<Self>, request: StartRequest) -> Result<u32, Error> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let _turn = process.turn.lock().await;
        match process.state() {
            State::Created => {}
            State::Running | State::Paused => {
                return Err(Error::State(format!("process {:?} of {:?} runs already", process.exec, container.id)));
            }
            State::Stopped(_) => {
                return Err(Error::State(format!("process {:?} of {:?} has ended", process.exec, container.id)));
            }
        }
        if process.exec.is_empty() {
            self.start_first(&container, &process).await?;
            let event = TaskStart { container_id: container.id.clone(), pid: process.pid() };
            self.events.publish("/tasks/start", &event);
        } else {
            self.start_exec(&container, &process).await?;
            let event = TaskExecStarted {
                container_id: container.id.clone(),
                exec_id: process.exec.clone(),
                pid: process.pid(),
            };
            self.events.publish("/tasks/exec-started", &event);
        }
        Ok(process.pid())
    }

    async fn start_first(&self, container: &Container, process: &Process) -> Result<(), Error> {
        let gate = container.gate.lock().expect("the gate").take();
        let released = if let Some(gate) = gate {
            Some(gate.open())
        } else if container.hooks {
            None
        } else {
            release(&container.engine.state(&container.id), container.died.notified()).await
        };
        match released {
            Some(released) => released?,
            None => container.engine.start(&container.id).await?,
        }
        process.set(State::Running);
        Ok(())
    }
}

/// Mounts the root filesystem, if the request has one; the spec's own is used as it is otherwise.
fn mount_root(bundle: &Path, request: &CreateTaskRequest) -> Result<(), Error> {
    if request.rootfs.is_empty() {
        return Ok(());
    }
    let rootfs = bundle.join("rootfs");
    make_folder(&rootfs)?;
    mount::mount_all(&mounts(request), &rootfs).map_err(Error::Mount)
}

fn mounts(request: &CreateTaskRequest) -> Vec<Mount> {
    let mount = |mount: &shared_proto::containerd::types::Mount| Mount {
        kind: mount.r#type.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    };
    request.rootfs.iter().map(mount).collect()
}

fn make_folder(path: &Path) -> Result<(), Error> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::io("make", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}
