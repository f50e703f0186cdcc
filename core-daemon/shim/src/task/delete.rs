//! `Delete`: a stopped container or exec is forgotten, and what it had is given back.

use shared_proto::containerd::events::TaskDelete;
use shared_proto::ttrpc::task::DeleteRequest;

use super::Tasks;
use super::process::State;
use super::remove::{remove, remove_cgroup};
use crate::error::Error;
use crate::exits::Exit;

const KILL: u32 = 9;
/// Of a process that was never started.
const NEVER: u32 = 0;

impl Tasks {
    pub async fn delete(&self, request: DeleteRequest) -> Result<Exit, Error> {
        if request.exec_id.is_empty() {
            self.delete_container(&request.id).await
        } else {
            self.delete_exec(&request).await
        }
    }

    async fn delete_container(&self, id: &str) -> Result<Exit, Error> {
        let container = self.container(id)?;
        let init = &container.init;
        let turn = init.turn.lock().await;
        let ended = match init.state() {
            State::Running => return Err(Error::State(format!("cannot delete container {id:?}: it runs"))),
            State::Paused => return Err(Error::State(format!("cannot delete container {id:?}: it is paused"))),
            State::Created => false,
            State::Stopped(_) => true,
        };
        let pause = container.is_pause();
        if pause && !ended {
            // It waits at its gate.
            container.cgroup()?.kill(KILL);
        }
        let by_hand = ended && !container.hooks && !container.engine.options.systemd_cgroup;
        let removed = match container.cgroup() {
            Ok(cgroup) if pause => remove_cgroup(&cgroup, id).await,
            Ok(cgroup) if by_hand => remove(&container.engine.state(id), &cgroup, id).await,
            Ok(_) | Err(_) => false,
        };
        if !removed && pause {
            return Err(Error::State(format!("cannot delete container {id:?}: its cgroup can't be removed")));
        }
        if !removed {
            container.engine.delete(id).await?;
        }
        drop(turn);
        // The engine has killed a process that still waited for its start.
        let exit = init.ended().await;
        init.close();
        container.unmount()?;
        if self.containers().remove(id).is_none() {
            return Err(Error::no_container(id));
        }
        let event = TaskDelete {
            container_id: id.to_owned(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: Some(exit.timestamp()),
            id: id.to_owned(),
        };
        self.events.publish("/tasks/delete", &event);
        Ok(exit)
    }

    async fn delete_exec(&self, request: &DeleteRequest) -> Result<Exit, Error> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let _turn = process.turn.lock().await;
        let exit = match process.state() {
            State::Running | State::Paused => {
                return Err(Error::State(format!("cannot delete process {:?}: it runs", process.exec)));
            }
            State::Created => {
                let never = Exit { pid: 0, status: NEVER, at: std::time::SystemTime::now() };
                // Whoever waits for it would wait for ever, and keep the shim from ending.
                process.stop(never);
                never
            }
            State::Stopped(exit) => exit,
        };
        process.close();
        container.execs().remove(&process.exec);
        Ok(exit)
    }
}
