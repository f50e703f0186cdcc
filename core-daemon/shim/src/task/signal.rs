//! `Kill`, `Pause`, `Resume`, `Update`, `Checkpoint`, `ResizePty`, `CloseIO`.

use shared_proto::any;
use shared_proto::containerd::events::{TaskCheckpointed, TaskPaused, TaskResumed};
use shared_proto::containerd::runc::CheckpointOptions;
use shared_proto::ttrpc::task::{
    CheckpointTaskRequest, CloseIoRequest, KillRequest, PauseRequest, ResizePtyRequest, ResumeRequest,
    UpdateTaskRequest,
};

use super::Tasks;
use super::process::State;
use crate::error::Error;

/// The signal that also ends what is frozen.
const KILL: u32 = 9;

impl Tasks {
    pub async fn kill(&self, request: KillRequest) -> Result<(), Error> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        if request.all {
            container.cgroup()?.kill(request.signal);
        } else {
            if let State::Stopped(_) = process.state() {
                return Err(Error::NotFound(format!(
                    "process {:?} of {:?} already finished",
                    process.exec, request.id
                )));
            }
            let pid = process.pid();
            if pid == 0 {
                return Err(Error::State(format!("process {:?} of {:?} was not started", process.exec, request.id)));
            }
            // Its pid can't have passed to another: see the reaper.
            match shared_sys::process::kill(pid, request.signal) {
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                    return Err(Error::NotFound(format!(
                        "process {:?} of {:?} already finished",
                        process.exec, request.id
                    )));
                }
                Err(e) => return Err(Error::Invalid(format!("signal {} to {:?}: {e}", request.signal, request.id))),
                Ok(()) => {}
            }
        }
        if request.signal == KILL && container.init.state() == State::Paused {
            container.cgroup()?.freeze(false).await?;
        }
        Ok(())
    }

    pub async fn pause(&self, request: PauseRequest) -> Result<(), Error> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        container.running("pause")?;
        container.cgroup()?.freeze(true).await?;
        container.init.set(State::Paused);
        self.events.publish("/tasks/paused", &TaskPaused { container_id: request.id });
        Ok(())
    }

    pub async fn resume(&self, request: ResumeRequest) -> Result<(), Error> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        match container.init.state() {
            State::Paused => {}
            State::Created | State::Running | State::Stopped(_) => {
                return Err(Error::State(format!("cannot resume container {:?}: it is not paused", request.id)));
            }
        }
        container.cgroup()?.freeze(false).await?;
        container.init.set(State::Running);
        self.events.publish("/tasks/resumed", &TaskResumed { container_id: request.id });
        Ok(())
    }

    pub async fn update(&self, request: UpdateTaskRequest) -> Result<(), Error> {
        let container = self.container(&request.id)?;
        let resources = request.resources.ok_or_else(|| Error::Invalid("no resources".into()))?;
        if let State::Stopped(_) = container.init.state() {
            return Err(Error::State(format!("cannot update container {:?}: it has ended", request.id)));
        }
        let _turn = container.init.turn.lock().await;
        container.engine_to("update")?.update(&request.id, &resources.value).await
    }

    pub async fn checkpoint(&self, request: CheckpointTaskRequest) -> Result<(), Error> {
        let container = self.container(&request.id)?;
        container.running("checkpoint")?;
        let options = match &request.options {
            Some(given) => any::unpack::<CheckpointOptions>(given).map_err(|e| Error::Invalid(e.message))?,
            None => CheckpointOptions::default(),
        };
        let mut arguments = vec!["--image-path".to_owned(), request.path.clone()];
        for (flag, is) in [
            ("--leave-running", !options.exit),
            ("--tcp-established", options.open_tcp),
            ("--ext-unix-sk", options.external_unix_sockets),
            ("--shell-job", options.terminal),
            ("--file-locks", options.file_locks),
        ] {
            if is {
                arguments.push(flag.to_owned());
            }
        }
        if !options.cgroups_mode.is_empty() {
            arguments.extend(["--manage-cgroups-mode".to_owned(), options.cgroups_mode]);
        }
        container.engine_to("checkpoint")?.checkpoint(&request.id, &arguments).await?;
        let event = TaskCheckpointed { container_id: request.id, checkpoint: request.path };
        self.events.publish("/tasks/checkpointed", &event);
        Ok(())
    }

    pub fn resize(&self, request: &ResizePtyRequest) -> Result<(), Error> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let side = |n: u32| u16::try_from(n).map_err(|_| Error::Invalid(format!("a terminal of {n} cells")));
        let (width, height) = (side(request.width)?, side(request.height)?);
        match process.with_io(|io| io.resize(width, height)) {
            Some(done) => done.map_err(Error::io("resize", "the terminal")),
            // As containerd's own: nothing to do.
            None => Ok(()),
        }
    }

    pub fn close_io(&self, request: &CloseIoRequest) -> Result<(), Error> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(())
    }
}
