//! Every port method that the core in memory answers meaningfully, in scripts that leave nothing behind.
//!
//! A request is made before the clock runs: what is measured is the call alone. Not here: `Diff`, `Transfer` and
//! `Streaming`, `Tasks.checkpoint` and `Introspection.plugin_info`, which that core has not.

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use shared_proto::api::Items;
use shared_proto::containerd::{
    self as pb, Envelope, containers as c, content, events_service as e, introspection, snapshots, tasks as t,
};
use shared_proto::core::Core;
use shared_proto::{Context, Result, any};

use crate::{NAMESPACE, container};

/// One call.
pub struct Step {
    /// `PORT.METHOD`
    pub name: &'static str,
    /// Makes the request; the future makes the call.
    pub call: fn(Core) -> BoxFuture<'static, Result<()>>,
}

/// Calls that belong together, in an order in which each finds what it needs.
pub type Script = Vec<Step>;

/// A call with one answer.
macro_rules! one {
    ($port:ident . $method:ident, $request:expr) => {
        Step {
            name: concat!(stringify!($port), ".", stringify!($method)),
            call: |core| {
                let (cx, request) = (Context::new(NAMESPACE), $request);
                async move { core.$port.$method(&cx, request).await.map(drop) }.boxed()
            },
        }
    };
}

/// A call with a stream of answers, to its end.
macro_rules! all {
    ($port:ident . $method:ident, $request:expr) => {
        Step {
            name: concat!(stringify!($port), ".", stringify!($method)),
            call: |core| {
                let (cx, request) = (Context::new(NAMESPACE), $request);
                async move { drain(core.$port.$method(&cx, request).await?).await }.boxed()
            },
        }
    };
}

mod records;

async fn drain<T>(mut items: Items<T>) -> Result<()> {
    while let Some(item) = items.next().await {
        item?;
    }
    Ok(())
}

const SNAPSHOTTER: &str = "overlayfs";
const NEW: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
/// What is read and written, bytes.
const BLOCK: usize = 64 << 10;

/// A container without a task, and one whose task is made in the script.
const ID: &str = "made";

pub fn scripts() -> Vec<Script> {
    vec![
        vec![one!(version.version, ())],
        records::containers(),
        records::images(),
        records::leases(),
        records::namespaces(),
        records::sandboxes(),
        snapshots(),
        tasks(),
        content(),
        events(),
        vec![one!(introspection.plugins, introspection::PluginsRequest::default()), one!(introspection.server, ())],
    ]
}

fn snapshots() -> Script {
    use snapshots::*;
    vec![
        one!(
            snapshots.prepare,
            PrepareSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into(), ..Default::default() }
        ),
        one!(snapshots.mounts, MountsRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into() }),
        one!(snapshots.usage, UsageRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into() }),
        one!(snapshots.stat, StatSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into() }),
        all!(snapshots.list, ListSnapshotsRequest { snapshotter: SNAPSHOTTER.into(), ..Default::default() }),
        one!(
            snapshots.commit,
            CommitSnapshotRequest {
                snapshotter: SNAPSHOTTER.into(),
                name: "layer".into(),
                key: ID.into(),
                ..Default::default()
            }
        ),
        one!(
            snapshots.view,
            ViewSnapshotRequest {
                snapshotter: SNAPSHOTTER.into(),
                key: ID.into(),
                parent: "layer".into(),
                ..Default::default()
            }
        ),
        one!(
            snapshots.update,
            UpdateSnapshotRequest {
                snapshotter: SNAPSHOTTER.into(),
                info: Some(Info { name: "layer".into(), ..Default::default() }),
                update_mask: None
            }
        ),
        one!(snapshots.remove, RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into() }),
        one!(snapshots.remove, RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: "layer".into() }),
        one!(snapshots.cleanup, CleanupRequest { snapshotter: SNAPSHOTTER.into() }),
    ]
}

fn tasks() -> Script {
    vec![
        one!(containers.create, c::CreateContainerRequest { container: Some(container("task")) }),
        one!(tasks.create, t::CreateTaskRequest { container_id: "task".into(), ..Default::default() }),
        one!(tasks.start, t::StartRequest { container_id: "task".into(), ..Default::default() }),
        one!(tasks.get, t::GetRequest { container_id: "task".into(), ..Default::default() }),
        one!(tasks.list, t::ListTasksRequest::default()),
        one!(tasks.list_pids, t::ListPidsRequest { container_id: "task".into() }),
        one!(tasks.pause, t::PauseTaskRequest { container_id: "task".into() }),
        one!(tasks.resume, t::ResumeTaskRequest { container_id: "task".into() }),
        one!(tasks.update, t::UpdateTaskRequest { container_id: "task".into(), ..Default::default() }),
        one!(tasks.metrics, t::MetricsRequest::default()),
        one!(
            tasks.exec,
            t::ExecProcessRequest { container_id: "task".into(), exec_id: "exec".into(), ..Default::default() }
        ),
        one!(
            tasks.resize_pty,
            t::ResizePtyRequest { container_id: "task".into(), exec_id: "exec".into(), width: 80, height: 25 }
        ),
        one!(tasks.close_io, t::CloseIoRequest { container_id: "task".into(), exec_id: "exec".into(), stdin: true }),
        one!(tasks.delete_process, t::DeleteProcessRequest { container_id: "task".into(), exec_id: "exec".into() }),
        one!(tasks.kill, t::KillRequest { container_id: "task".into(), signal: 9, ..Default::default() }),
        one!(tasks.wait, t::WaitRequest { container_id: "task".into(), ..Default::default() }),
        one!(tasks.delete, t::DeleteTaskRequest { container_id: "task".into() }),
        one!(containers.delete, c::DeleteContainerRequest { id: "task".into() }),
    ]
}

fn content() -> Script {
    use content::*;
    fn write(action: WriteAction, name: &str) -> Items<WriteContentRequest> {
        let request = WriteContentRequest {
            action: action.into(),
            r#ref: name.into(),
            expected: if action == WriteAction::Commit { NEW.into() } else { String::new() },
            data: vec![7; BLOCK].into(),
            ..Default::default()
        };
        futures::stream::iter([Ok(request)]).boxed()
    }
    vec![
        all!(content.write, write(WriteAction::Write, "kept")),
        one!(content.status, StatusRequest { r#ref: "kept".into() }),
        one!(content.list_statuses, ListStatusesRequest::default()),
        one!(content.abort, AbortRequest { r#ref: "kept".into() }),
        all!(content.write, write(WriteAction::Commit, "whole")),
        one!(content.info, InfoRequest { digest: NEW.into() }),
        one!(
            content.update,
            UpdateRequest { info: Some(Info { digest: NEW.into(), ..Default::default() }), update_mask: None }
        ),
        all!(content.list, ListContentRequest::default()),
        all!(content.read, ReadContentRequest { digest: NEW.into(), offset: 0, size: 0 }),
        one!(content.delete, DeleteContentRequest { digest: NEW.into() }),
    ]
}

fn events() -> Script {
    fn started() -> pb::events::TaskStart {
        pb::events::TaskStart { container_id: ID.into(), pid: 7 }
    }
    vec![
        one!(events.publish, e::PublishRequest { topic: "/tasks/start".into(), event: Some(any::pack(&started())) }),
        one!(
            events.forward,
            e::ForwardRequest {
                envelope: Some(Envelope {
                    namespace: NAMESPACE.into(),
                    topic: "/tasks/start".into(),
                    event: Some(any::pack(&started())),
                    ..Default::default()
                })
            }
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::fake::FakeCore;

    #[tokio::test]
    async fn scripts_can_be_repeated() {
        let fake = FakeCore::default();
        for core in [fake.core(), fake.over_pipe().await.unwrap()] {
            for round in 0..2 {
                for step in scripts().into_iter().flatten() {
                    (step.call)(core.clone()).await.unwrap_or_else(|e| panic!("{} in round {round}: {e}", step.name));
                }
            }
        }
        assert!(scripts().iter().map(Vec::len).sum::<usize>() > 65);
    }
}
