//! Sandboxes after a restart.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use shared_proto::Result;
use shared_proto::containerd::containers::Container as Stored;
use shared_proto::containerd::task_types::Process;
use shared_proto::cri::v1;

use super::{budgeted, created_at};
use crate::Cri;
use crate::call::tasks::is_alive;
use crate::pod::{Leftover, Phase, Record, Sandbox, State, record};
use crate::versioned::RecordError;

/// What becomes of a sandbox.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Is(State),
    /// Its process ended; the task is to be deleted.
    Ended,
    /// Nobody was told of it: take it back.
    Undo,
}

fn decide(phase: Phase, task: Result<Option<Process>>) -> Fate {
    let task = match (phase, task) {
        (Phase::Creating, _) => return Fate::Undo,
        (Phase::Made | Phase::Failed, Err(e)) => return Fate::Is(unknown(e.message)),
        (Phase::Made | Phase::Failed, Ok(task)) => task,
    };
    use shared_proto::containerd::task_types::Status;
    match task {
        Some(process) if is_alive(&process) => Fate::Is(State::Ready { pid: process.pid }),
        Some(process) if process.status() == Status::Unknown => {
            Fate::Is(unknown("the shim of the pause process does not answer".into()))
        }
        Some(_) => Fate::Ended,
        None => Fate::Is(State::NotReady { network: Leftover::Maybe }),
    }
}

fn unknown(reason: String) -> State {
    State::Unknown { reason, asking: true }
}

impl Cri {
    pub(super) async fn recover_sandbox(&self, stored: Stored) {
        let inner = &self.0;
        let id = stored.id.clone();
        let record = match read(&stored) {
            Ok(record) => record,
            Err(e) => {
                tracing::error!(sandbox = id, error = %e, "its record can't be read; it can only be stopped and removed");
                let state = State::Unknown { reason: e.to_string(), asking: false };
                inner.sandboxes.insert(Arc::new(Sandbox::new(stand_in(&stored), stored.snapshotter, state)));
                return;
            }
        };
        let fate = match record.phase {
            Phase::Creating => Fate::Undo,
            Phase::Made | Phase::Failed => decide(record.phase, budgeted(inner.task(&id)).await),
        };
        let named = record.phase == Phase::Made;
        let sandbox = |state| Arc::new(Sandbox::new(record.clone(), stored.snapshotter.clone(), state));
        match fate {
            Fate::Is(state) => {
                let found = sandbox(state.clone());
                inner.sandboxes.insert(found.clone());
                match state {
                    State::Unknown { reason, .. } => {
                        tracing::error!(
                            sandbox = id,
                            reason,
                            "until the core says more it can only be stopped and removed"
                        );
                        self.handle(id.clone(), None);
                    }
                    State::NotReady { .. } => inner.sandbox_found_ended(&found),
                    State::Creating | State::Ready { .. } => {}
                }
            }
            Fate::Ended => {
                let ended = sandbox(State::NotReady { network: Leftover::Maybe });
                inner.sandboxes.insert(ended.clone());
                inner.sandbox_found_ended(&ended);
                if let Err(e) = budgeted(inner.end_task(&id)).await {
                    tracing::warn!(sandbox = id, error = %e, "its task stays until the sandbox is stopped");
                }
            }
            Fate::Undo => {
                tracing::warn!(sandbox = id, "it was half made when the last daemon ended; taking it back");
                let half = sandbox(State::Creating);
                inner.sandboxes.insert(half.clone());
                // Not listed while it goes; nobody has to wait for it.
                let cri = self.clone();
                inner.work.spawn(async move { cri.0.discard_sandbox(&half).await });
                return;
            }
        }
        if named && !inner.sandbox_names.take(&record.name, &id) {
            tracing::error!(sandbox = id, name = record.name, "another sandbox has the same name");
        }
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

/// Where the network namespace of a sandbox is, as its spec says. Without it the address would never be given back.
fn netns(stored: &Stored) -> PathBuf {
    let spec: Option<Spec> = stored.spec.as_ref().and_then(|any| serde_json::from_slice(&any.value).ok());
    let namespaces = spec.and_then(|spec| spec.linux().as_ref()?.namespaces().clone()).unwrap_or_default();
    let network = namespaces.into_iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network);
    network.and_then(|namespace| namespace.path().clone()).unwrap_or_default()
}

/// What the kubelet is shown of a sandbox whose record can't be read: what its labels say.
fn stand_in(stored: &Stored) -> Record {
    let label = |key: &str| stored.labels.get(&format!("io.kubernetes.pod.{key}")).cloned().unwrap_or_default();
    let name = Some(label("name")).filter(|name| !name.is_empty()).unwrap_or_else(|| stored.id.clone());
    let metadata = v1::PodSandboxMetadata { name, uid: label("uid"), namespace: label("namespace"), attempt: 0 };
    let mut labels = stored.labels.clone();
    labels.remove(crate::call::records::KIND);
    Record {
        id: stored.id.clone(),
        name: stored.id.clone(),
        config: v1::PodSandboxConfig { metadata: Some(metadata), labels, ..Default::default() },
        netns: netns(stored),
        ip: String::new(),
        additional_ips: Vec::new(),
        runtime_handler: String::new(),
        cni_result: None,
        process_label: String::new(),
        created_at: created_at(stored),
        phase: Phase::Failed,
        updated_resources: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::Error;
    use shared_proto::containerd::task_types::Status;

    fn task(status: Status) -> Result<Option<Process>> {
        Ok(Some(Process { pid: 7, status: status.into(), ..Default::default() }))
    }

    #[test]
    fn the_task_says_whether_a_sandbox_is_ready() {
        assert_eq!(decide(Phase::Made, task(Status::Running)), Fate::Is(State::Ready { pid: 7 }));
        assert_eq!(decide(Phase::Made, task(Status::Stopped)), Fate::Ended);
        assert_eq!(decide(Phase::Made, task(Status::Created)), Fate::Ended);
        let gone = Fate::Is(State::NotReady { network: Leftover::Maybe });
        assert_eq!(decide(Phase::Made, Ok(None)), gone);
        assert_eq!(decide(Phase::Failed, Ok(None)), gone);
    }

    #[test]
    fn the_spec_tells_what_the_record_can_not() {
        let stored = |text: &str| {
            let spec = Some(shared_proto::any::raw(shared_proto::any::SPEC, text));
            Stored { id: "s".into(), spec, ..Default::default() }
        };
        let netns = |text: &str| stand_in(&stored(text)).netns;
        let spec =
            r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}]}}"#;
        assert_eq!(netns(spec), PathBuf::from("/n"));
        for without in [r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}]}}"#, "{", ""] {
            assert_eq!(netns(without), PathBuf::new(), "{without}");
        }
    }

    #[test]
    fn no_answer_is_no_end() {
        let silent = decide(Phase::Made, Err(Error::deadline("no answer")));
        assert_eq!(silent, Fate::Is(unknown("no answer".into())));
        assert!(matches!(decide(Phase::Made, task(Status::Unknown)), Fate::Is(State::Unknown { .. })));
    }

    #[test]
    fn what_nobody_was_told_of_is_taken_back() {
        assert_eq!(decide(Phase::Creating, task(Status::Running)), Fate::Undo);
    }
}
