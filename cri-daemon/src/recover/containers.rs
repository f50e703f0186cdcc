//! Containers after a restart.

use std::sync::Arc;

use shared_proto::containerd::containers::Container as Stored;
use shared_proto::containerd::task_types::{Process, Status};
use shared_proto::cri::v1;
use shared_proto::{Error, Result};

use super::{BUDGET, budgeted, created_at};
use crate::call::tasks::{Ended, is_alive};
use crate::container::{Container, Exit, Record, State, record, status};
use crate::events::Told;
use crate::versioned::RecordError;
use crate::{Cri, Inner, paths};

/// What becomes of a container.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Running {
        pid: u32,
        /// 0: not known.
        started_at: i64,
    },
    /// Its process ended while nobody looked: finish it as if the event had come now.
    Ended {
        pid: u32,
        started_at: i64,
        ended: Ended,
    },
    /// It had ended before; `task`: the core still has the task.
    Exited {
        exit: Exit,
        task: bool,
    },
    /// The last daemon ended in the middle of its start, which came to nothing.
    CutOff {
        code: i32,
    },
    /// Its process is gone, and nobody knows how.
    Lost {
        started_at: i64,
    },
    /// `task`: of a start that nobody was told of; delete it.
    Created {
        task: bool,
    },
    Unknown {
        reason: String,
    },
    /// Nobody was told of it: take it back.
    Undo,
}

fn decide(status: Option<State>, task: Result<Option<Process>>, complete: bool) -> Fate {
    let started_at = match &status {
        Some(State::Running { started_at, .. }) => *started_at,
        Some(State::Created | State::Starting | State::Exited(_) | State::Unknown { .. }) | None => 0,
    };
    let exit = match status.clone() {
        Some(State::Exited(exit)) => Some(exit),
        Some(State::Created | State::Starting | State::Running { .. } | State::Unknown { .. }) | None => None,
    };
    match (task, exit) {
        (Ok(Some(process)), _) if is_alive(&process) => Fate::Running { pid: process.pid, started_at },
        (Ok(task), Some(exit)) => Fate::Exited { exit, task: task.is_some() },
        (Err(_), Some(exit)) => Fate::Exited { exit, task: true },
        (Err(e), None) => Fate::Unknown { reason: e.message },
        (Ok(Some(process)), None) => match process.status() {
            Status::Stopped => {
                let ended = Ended::new(process.exit_status, process.exited_at.as_ref());
                match status {
                    // It is written when a container is made, and again when it has started.
                    Some(State::Created | State::Starting) => Fate::CutOff { code: ended.code },
                    Some(State::Running { .. } | State::Exited(_) | State::Unknown { .. }) | None => {
                        Fate::Ended { pid: process.pid, started_at, ended }
                    }
                }
            }
            Status::Created => Fate::Created { task: true },
            Status::Unknown | Status::Running | Status::Paused | Status::Pausing => {
                Fate::Unknown { reason: "the shim of the container does not answer".into() }
            }
        },
        (Ok(None), None) => match status {
            Some(State::Running { .. }) => Fate::Lost { started_at },
            Some(State::Created | State::Starting | State::Exited(_) | State::Unknown { .. }) => {
                Fate::Created { task: false }
            }
            None if complete => Fate::Created { task: false },
            None => Fate::Undo,
        },
    }
}

impl Cri {
    pub(super) async fn recover_container(&self, stored: Stored) {
        let inner = &self.0;
        let id = stored.id.clone();
        let record = match read(&stored) {
            Ok(record) => record,
            Err(e) => {
                tracing::error!(container = id, error = %e, "its record can't be read; it can only be removed");
                let state = State::Unknown { reason: e.to_string(), asking: false };
                inner.containers.insert(Arc::new(Container::new(stand_in(&stored), stored.snapshotter, state)));
                return;
            }
        };
        let path = paths::container(&inner.config, &id).status();
        let written = shared_sys::blocking(move || status::read(&path)).await;
        let written = written.unwrap_or_else(|e| {
            tracing::warn!(container = id, error = %e, "its status is made again from the core");
            None
        });
        let task = budgeted(inner.task(&id)).await;
        // Without a status it may never have been finished.
        let complete = match (&written, &task) {
            (None, Ok(None)) => stored.spec.is_some() && budgeted(inner.mounts(&stored.snapshotter, &id)).await.is_ok(),
            (Some(_), _) | (None, _) => true,
        };
        let fate = decide(written, task, complete);
        let name = record.name.clone();
        let made = |state| Arc::new(Container::new(record.clone(), stored.snapshotter.clone(), state));
        let container = match fate {
            Fate::Undo => {
                tracing::warn!(container = id, "it was half made when the last daemon ended; taking it back");
                let reason = "it was half made when the last daemon ended".into();
                let half = made(State::Unknown { reason, asking: false });
                if let Err(e) = inner.remove_container_parts(&half).await {
                    tracing::warn!(container = id, error = %e, "it could not be taken back; it waits for removal");
                    inner.containers.insert(half);
                }
                return;
            }
            Fate::Running { pid, started_at } => {
                let started_at = if started_at == 0 { inner.host.now() } else { started_at };
                let container = made(State::Running { pid, started_at });
                inner.follow_again(&container).await;
                if let Err(e) = inner.write_status(&id, State::Running { pid, started_at }).await {
                    tracing::warn!(container = id, error = %e, "its status is not on disk");
                }
                container
            }
            Fate::Ended { pid, started_at, ended } => {
                let container = made(State::Running { pid, started_at });
                inner.follow_again(&container).await;
                inner.containers.insert(container.clone());
                // As if the event had come now; a shim that hangs is waited for by the handler alone.
                self.handle(id.clone(), Some(Told { pid, ended }));
                let _ = tokio::time::timeout(BUDGET, container.life.ended()).await;
                container
            }
            Fate::CutOff { code } => {
                let container = made(State::Starting);
                inner.follow_again(&container).await;
                inner.containers.insert(container.clone());
                let problem = format!("the daemon ended in the middle of the start; the process ended with {code}");
                let exit = Exit::start_error(inner.host.now(), &Error::unavailable(problem));
                report(&id, inner.end(&container, exit).await);
                container
            }
            Fate::Lost { started_at } => {
                let container = made(State::Running { pid: 0, started_at });
                inner.follow_again(&container).await;
                inner.containers.insert(container.clone());
                let exit = Exit::unknown(started_at, inner.host.now());
                report(&id, inner.end(&container, exit).await);
                container
            }
            Fate::Exited { exit, task } => {
                let container = made(State::Exited(exit.clone()));
                inner.follow_again(&container).await;
                inner.containers.insert(container.clone());
                inner.container_found_exited(&container, &exit);
                if task {
                    report(&id, budgeted(inner.end_task(&id)).await.map(drop));
                }
                inner.finish_log(&container, true).await;
                container
            }
            Fate::Created { task } => {
                if task {
                    report(&id, budgeted(inner.end_task(&id)).await.map(drop));
                }
                report(&id, inner.write_status(&id, State::Created).await);
                made(State::Created)
            }
            Fate::Unknown { reason } => {
                tracing::error!(container = id, reason, "until the core says more it can only be stopped and removed");
                let container = made(State::Unknown { reason, asking: true });
                inner.follow_again(&container).await;
                inner.containers.insert(container.clone());
                self.handle(id.clone(), None);
                container
            }
        };
        inner.containers.insert(container);
        if !inner.container_names.take(&name, &id) {
            tracing::error!(container = id, name, "another container has the same name");
        }
    }
}

impl Inner {
    /// Goes on reading what the container writes, and what it wrote while nobody read.
    async fn follow_again(&self, container: &Container) {
        let io = self.fifos(container);
        let stdout = io.stdout.clone();
        let there = shared_sys::blocking(move || shared_sys::fifo::is_fifo(&stdout)).await;
        if there && let Err(e) = self.attach_log(container, &io).await {
            tracing::error!(container = container.record.id, error = %e, "its output is not read");
        }
    }
}

fn report(id: &str, outcome: Result<()>) {
    if let Err(e) = outcome {
        tracing::warn!(container = id, error = %e, "something is left to do; it is done at the latest at removal");
    }
}

fn read(stored: &Stored) -> Result<Record, RecordError> {
    let any = stored.extensions.get(record::EXTENSION).ok_or(RecordError::Missing(record::EXTENSION))?;
    let mut record = Record::from_any(any)?;
    record.id = stored.id.clone();
    if record.created_at == 0 {
        record.created_at = created_at(stored);
    }
    Ok(record)
}

/// What the kubelet is shown of a container whose record can't be read: what its labels say.
fn stand_in(stored: &Stored) -> Record {
    let name = stored.labels.get("io.kubernetes.container.name").cloned().unwrap_or_else(|| stored.id.clone());
    let mut labels = stored.labels.clone();
    labels.remove(crate::call::records::KIND);
    Record {
        id: stored.id.clone(),
        name: stored.id.clone(),
        sandbox_id: stored.sandbox.clone(),
        config: v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name, attempt: 0 }),
            image: Some(v1::ImageSpec { image: stored.image.clone(), ..Default::default() }),
            labels,
            ..Default::default()
        },
        image_ref: stored.image.clone(),
        log_path: String::new(),
        stop_signal: String::new(),
        process_label: String::new(),
        image_name: stored.image.clone(),
        repo_digest: String::new(),
        user: None,
        created_at: created_at(stored),
        resources: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: State = State::Running { pid: 5, started_at: 100 };

    fn task(status: Status) -> Result<Option<Process>> {
        let exited_at = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        Ok(Some(Process { pid: 5, status: status.into(), exit_status: 3, exited_at, ..Default::default() }))
    }

    fn exit() -> Exit {
        Exit::of(100, 200, 7, false)
    }

    #[test]
    fn a_running_task_is_a_running_container_whatever_the_file_says() {
        for status in [None, Some(State::Created), Some(State::Starting)] {
            assert_eq!(decide(status, task(Status::Running), true), Fate::Running { pid: 5, started_at: 0 });
        }
        assert_eq!(decide(Some(RUNNING), task(Status::Paused), true), Fate::Running { pid: 5, started_at: 100 });
    }

    #[test]
    fn an_end_that_nobody_saw_has_the_tasks_code() {
        let ended = Ended { code: 3, at: 1_000_000_000 };
        let fate = |started_at| Fate::Ended { pid: 5, started_at, ended };
        assert_eq!(decide(Some(RUNNING), task(Status::Stopped), true), fate(100));
        assert_eq!(decide(None, task(Status::Stopped), true), fate(0));
        assert_eq!(decide(Some(State::Created), task(Status::Stopped), true), Fate::CutOff { code: 3 });
        let written = Some(State::Exited(exit()));
        assert_eq!(decide(written, task(Status::Stopped), true), Fate::Exited { exit: exit(), task: true });
    }

    #[test]
    fn without_a_task_the_file_decides() {
        assert_eq!(decide(Some(RUNNING), Ok(None), true), Fate::Lost { started_at: 100 });
        assert_eq!(decide(Some(State::Created), Ok(None), true), Fate::Created { task: false });
        let written = Some(State::Exited(exit()));
        assert_eq!(decide(written, Ok(None), true), Fate::Exited { exit: exit(), task: false });
    }

    #[test]
    fn what_nobody_was_told_of_is_taken_back() {
        assert_eq!(decide(None, Ok(None), false), Fate::Undo);
        assert_eq!(decide(None, Ok(None), true), Fate::Created { task: false }, "only its status was lost");
        assert_eq!(decide(Some(State::Created), task(Status::Created), true), Fate::Created { task: true });
    }

    #[test]
    fn no_answer_is_no_end() {
        let silent = || Err(Error::deadline("no answer"));
        assert_eq!(decide(Some(RUNNING), silent(), true), Fate::Unknown { reason: "no answer".into() });
        let written = Some(State::Exited(exit()));
        assert_eq!(decide(written, silent(), true), Fate::Exited { exit: exit(), task: true });
        assert!(matches!(decide(Some(RUNNING), task(Status::Unknown), true), Fate::Unknown { .. }));
    }
}
