//! `Exec`: further processes in a container. The request registers one; `Start` runs it.

use std::sync::Arc;

use shared_proto::containerd::events::TaskExecAdded;
use shared_proto::ttrpc::task::ExecProcessRequest;

use super::Tasks;
use super::container::Container;
use super::process::{Process, State};
use crate::error::Error;
use crate::exits::Exit;
use crate::io::{self, Socket, Stdio};

impl Tasks {
    pub async fn exec(&self, request: ExecProcessRequest) -> Result<(), Error> {
        let container = self.container(&request.id)?;
        let name = &request.exec_id;
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(Error::Invalid(format!("exec id {name:?} is no name")));
        }
        let spec = request.spec.ok_or_else(|| Error::Invalid(format!("exec {name:?} has no process")))?;
        if let State::Stopped(_) = container.init.state() {
            return Err(Error::State(format!("cannot exec in container {:?}: it has ended", container.id)));
        }
        let stdio =
            Stdio { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
        let process = Arc::new(Process::new(name, stdio, spec.value));
        {
            let mut execs = container.execs();
            if execs.contains_key(name) {
                return Err(Error::Exists(format!("container {:?} has a process {name:?} already", container.id)));
            }
            execs.insert(name.clone(), process);
        }
        let event = TaskExecAdded { container_id: container.id.clone(), exec_id: name.clone() };
        self.events.publish("/tasks/exec-added", &event);
        Ok(())
    }

    pub(super) async fn start_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        process: &Arc<Process>,
    ) -> Result<(), Error> {
        container.running("exec in")?;
        let file = container.bundle.join(format!("{}.json", process.exec));
        std::fs::write(&file, &process.spec).map_err(Error::io("write", &file))?;
        let made = self.run_exec(container, process, &file).await;
        let _ = std::fs::remove_file(&file);
        if made.is_err() {
            // It can't be started again; whoever waits hears of an end.
            process.close();
            process.stop(Exit { pid: 0, status: 255, at: std::time::SystemTime::now() });
        }
        made
    }

    async fn run_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        process: &Arc<Process>,
        file: &std::path::Path,
    ) -> Result<(), Error> {
        let owner = container.owner();
        let (engine, id) = (container.engine_to("exec in")?, &container.id);
        let ((pid, _birth), io) = if process.stdio.terminal {
            let socket = Socket::listen()?;
            let made = engine.exec(id, file, io::nothing()?, Some(&socket.path)).await?;
            (made, io::attach(socket, &process.stdio, &owner).await?)
        } else {
            let (streams, io) = io::open(&process.stdio, &owner).await?;
            (engine.exec(id, file, streams, None).await?, io)
        };
        process.made(pid, io);
        process.set(State::Running);
        self.watch_exit(container, process, self.reaper.expect(pid));
        Ok(())
    }
}
