//! Ending and removing a container.
//!
//! [`Inner::finish`] is what happens when its process ended: whether memory ran out is read from the cgroup, which goes
//! with the task; the status is written, because the core forgets the exit code with the task; then the task is deleted,
//! the log read to its end, and only then everybody is told.

use std::time::Duration;

use shared_proto::containerd::task_types::Status;
use shared_proto::{Error, Result};

use super::{Container, Exit, State, status};
use crate::call::tasks::Ended;
use crate::pod::teardown::{Problems, remove_folder};
use crate::{Inner, paths};

/// How long the end of a log may take once the task is deleted.
const DRAIN: Duration = Duration::from_secs(10);

impl Inner {
    /// Writes the status for the next daemon.
    pub async fn write_status(&self, id: &str, state: State) -> Result<()> {
        let path = paths::container(&self.config, id).status();
        Ok(shared_sys::blocking(move || status::write(&path, &state)).await?)
    }

    /// The process of a container that was running has ended. Repeatable after an error.
    ///
    /// Even when the core can't delete the task the end is told: it is a fact.
    pub async fn finish(&self, container: &Container, ended: Ended) -> Result<()> {
        let started_at = match container.life.state() {
            State::Running { started_at, .. } => started_at,
            State::Exited(exit) => exit.started_at,
            State::Unknown { .. } => self.written_start(&container.record.id).await,
            State::Created | State::Starting => 0,
        };
        let at = if ended.at == 0 { self.host.now() } else { ended.at };
        let oom = container.life.oom() || self.ran_out_of_memory(container, ended.code).await;
        let exit = Exit::of(started_at, at.max(started_at), ended.code, oom);
        self.end(container, exit).await
    }

    /// Ends a container whose process is gone with an exit that is known already.
    pub async fn end(&self, container: &Container, exit: Exit) -> Result<()> {
        let id = container.record.id.as_str();
        // An event and a look at the core may both bring the news: whoever is second finds the work done.
        let _one = container.ending.lock().await;
        if let State::Exited(_) = container.life.state() {
            return self.delete_task(id).await.map(drop);
        }
        let mut problems = Problems::default();
        problems.check(self.write_status(id, State::Exited(exit.clone())).await);
        let deleted = problems.check(self.delete_task(id).await.map(drop));
        self.finish_log(container, deleted).await;
        self.container_exited(container, exit);
        self.stats.forget(id);
        problems.result()
    }

    /// Reads the log to its end and removes the FIFOs. Without a deletion the shim may still hold them, so that they
    /// never end.
    pub(crate) async fn finish_log(&self, container: &Container, deleted: bool) {
        let id = container.record.id.as_str();
        if let Some(log) = container.take_log() {
            let deadline = if deleted { DRAIN } else { DRAIN / 10 };
            if !log.drained(deadline).await {
                tracing::warn!(container = %id, "the log was cut off: something still holds the container's output");
            }
        }
        if let Err(e) = remove_folder(&paths::container(&self.config, id).io()).await {
            tracing::warn!(container = %id, error = %e, "the FIFOs stay until the container is removed");
        }
    }

    /// Removes all that is stored of a container that does not run, the record last.
    pub async fn remove_container_parts(&self, container: &Container) -> Result<()> {
        let id = container.record.id.as_str();
        let dirs = paths::container(&self.config, id);
        let mut problems = Problems::default();
        problems.check(self.end_task(id).await.map(drop));
        if let Some(log) = container.take_log() {
            log.drained(DRAIN / 10).await;
        }
        problems.check(self.remove_snapshot(&container.snapshotter, id).await);
        for dir in [dirs.root, dirs.state] {
            problems.check(remove_folder(&dir).await);
        }
        problems.result()?;
        self.delete_record(id).await
    }

    /// Kills a container that runs and waits until its end is known; in any other state there is nothing to do.
    pub async fn kill(&self, container: &Container) -> Result<()> {
        let id = container.record.id.as_str();
        match container.life.settled().await {
            State::Created | State::Starting | State::Exited(_) => Ok(()),
            State::Unknown { .. } => {
                let ended = self.end_task(id).await?;
                match ended {
                    Some(ended) => self.finish(container, ended).await,
                    None => self.end(container, Exit::unknown(0, self.host.now())).await,
                }
            }
            State::Running { .. } => {
                let all = !container.record.own_pid_namespace();
                self.signal(id, "", crate::call::tasks::SIGKILL, all).await?;
                self.await_end(container, crate::call::CLEANUP).await
            }
        }
    }

    /// Waits for the end of a running container. The event may be lost, so the core is asked now and then.
    pub async fn await_end(&self, container: &Container, limit: Duration) -> Result<()> {
        const LOOK: Duration = Duration::from_secs(2);
        let id = container.record.id.as_str();
        let waiting = async {
            loop {
                if tokio::time::timeout(LOOK, container.life.ended()).await.is_ok() {
                    return Ok::<_, Error>(());
                }
                match self.look_at_container(container).await {
                    Err(e) if e.is_transient() => tracing::debug!(container = id, error = %e, "waiting for its end"),
                    outcome => outcome?,
                }
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::deadline(format!("container {id} has not ended after {limit:?}"))),
        }
    }

    /// Asks the core for the state of a container that we believe to run, or know nothing of, and acts on the answer.
    /// `Unavailable` while its shim does not answer.
    pub async fn look_at_container(&self, container: &Container) -> Result<()> {
        let id = container.record.id.as_str();
        let started_at = match container.life.state() {
            State::Running { started_at, .. } => started_at,
            State::Unknown { asking: true, .. } => self.written_start(id).await,
            State::Created | State::Starting | State::Exited(_) | State::Unknown { asking: false, .. } => return Ok(()),
        };
        let Some(process) = self.task(id).await? else {
            // The core has recovered before it answers: there is no such task any more.
            return self.end(container, Exit::unknown(started_at, self.host.now())).await;
        };
        match process.status() {
            Status::Stopped => {
                self.finish(container, Ended::new(process.exit_status, process.exited_at.as_ref())).await
            }
            Status::Running | Status::Paused | Status::Pausing => {
                self.container_found_running(container, process.pid, started_at);
                Ok(())
            }
            Status::Created => Ok(()),
            Status::Unknown => Err(Error::unavailable(format!("the shim of container {id} does not answer"))),
        }
    }

    /// When the container was started, as an earlier daemon wrote it; 0 = not known.
    async fn written_start(&self, id: &str) -> i64 {
        let path = paths::container(&self.config, id).status();
        match shared_sys::blocking(move || status::read(&path)).await {
            Ok(Some(State::Running { started_at, .. })) => started_at,
            Ok(_) | Err(_) => 0,
        }
    }
}
