//! Tasks as clients see them.

use std::borrow::Cow;
use std::time::SystemTime;

use shared_proto::api::Tasks as Port;
use shared_proto::containerd::runc::{CheckpointOptions, Options};
use shared_proto::containerd::task_types::{Process, Status};
use shared_proto::containerd::tasks::*;
use shared_proto::containerd::types::Metric;
use shared_proto::{Context, Error, Result, any};

use super::{convert, detached};
use crate::domain::filter::Fields;
use crate::domain::{Filters, Id, Namespace, Scope};
use crate::metadata::{Db, containers};
use crate::runtime::{Create, Exec, Exit, Info, Kill, State, Stdio, Tasks};
use crate::stages::Stages;

/// The port `Tasks` over the runtime, which gets spec and runtime from the container's record.
pub struct TasksService {
    tasks: Tasks,
    db: Db,
    stages: Stages,
}

impl TasksService {
    pub fn new(tasks: Tasks, db: Db) -> Self {
        Self { tasks, db, stages: Stages::default() }
    }

    /// The same; what starts were made of is kept there.
    pub fn recording(self, stages: &Stages) -> Self {
        Self { stages: stages.clone(), ..self }
    }
}

impl TasksService {
    async fn make(&self, ns: Namespace, id: Id, req: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let container = {
            let (ns, id) = (ns.clone(), id.clone());
            self.db.read(move |c| containers::get(c, &ns, id.as_str())).await
        }?;
        let runtime = container.runtime_name.clone();
        let no_spec = || Error::precondition(format!("container {:?} (runtime {runtime}) has no spec", id.as_str()));
        let options = req.options.map(convert::payload).or(container.runtime_options);
        let create = Create {
            runtime: container.runtime_name,
            runtime_path: req.runtime_path,
            spec: container.spec.ok_or_else(no_spec)?.value,
            checkpoint: options.clone().map(convert::any).map_or_else(String::new, |any| restored_from(&any)),
            options,
            rootfs: req.rootfs,
            stdio: Stdio { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, terminal: req.terminal },
        };
        let tasks = self.tasks.clone();
        let pid = detached(async move { Ok(tasks.create(&ns, &id, create).await?) }).await?;
        Ok(CreateTaskResponse { container_id: req.container_id, pid })
    }
}

/// Whose task is meant.
fn names(cx: &Context, id: &str) -> Result<(Namespace, Id)> {
    Ok((Scope::of(cx)?.ns, Id::parse(id)?))
}

#[async_trait::async_trait]
impl Port for TasksService {
    async fn create(&self, cx: &Context, req: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let (ns, id) = names(cx, &req.container_id)?;
        if req.checkpoint.is_some() {
            return Err(Error::unimplemented(
                "restoring from a checkpoint image; name a folder in the runtime options",
            ));
        }
        if !req.task_api_address.is_empty() {
            return Err(Error::unimplemented("a task in a sandbox that somebody else has started"));
        }
        let (stages, of) = (&self.stages, id.clone());
        stages.during(ns.clone().as_str(), of.as_str(), "Tasks.create", cx.watched, self.make(ns, id, req)).await
    }

    async fn start(&self, cx: &Context, req: StartRequest) -> Result<StartResponse> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        let (of, of_task) = ((ns.clone(), id.clone()), req.exec_id.is_empty());
        let started = detached(async move { Ok(tasks.start(&ns, &id, &req.exec_id).await?) });
        let pid = match of_task {
            true => self.stages.during(of.0.as_str(), of.1.as_str(), "Tasks.start", cx.watched, started).await?,
            false => started.await?,
        };
        Ok(StartResponse { pid })
    }

    async fn delete(&self, cx: &Context, req: DeleteTaskRequest) -> Result<DeleteResponse> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        let exit = detached(async move { Ok(tasks.delete(&ns, &id).await?) }).await?;
        Ok(deleted(req.container_id, exit))
    }

    async fn delete_process(&self, cx: &Context, req: DeleteProcessRequest) -> Result<DeleteResponse> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        let exec = Id::parse(&req.exec_id)?;
        let exit = detached(async move { Ok(tasks.delete_process(&ns, &id, exec.as_str()).await?) }).await?;
        Ok(deleted(req.exec_id, exit))
    }

    async fn get(&self, cx: &Context, req: GetRequest) -> Result<GetResponse> {
        let (ns, id) = names(cx, &req.container_id)?;
        let info = self.tasks.get(&ns, &id, &req.exec_id).await?;
        Ok(GetResponse { process: Some(process(info)) })
    }

    async fn list(&self, cx: &Context, _: ListTasksRequest) -> Result<ListTasksResponse> {
        let infos = self.tasks.list(&Scope::of(cx)?.ns).await;
        Ok(ListTasksResponse { tasks: infos.into_iter().map(process).collect() })
    }

    async fn kill(&self, cx: &Context, req: KillRequest) -> Result<()> {
        let (ns, id) = names(cx, &req.container_id)?;
        let kill = Kill { exec: req.exec_id, signal: req.signal, all: req.all };
        Ok(self.tasks.kill(&ns, &id, kill).await?)
    }

    async fn exec(&self, cx: &Context, req: ExecProcessRequest) -> Result<()> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        let exec = Exec {
            exec: Id::parse(&req.exec_id)?.as_str().to_owned(),
            stdio: Stdio { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, terminal: req.terminal },
            spec: req.spec.map(convert::payload),
        };
        detached(async move { Ok(tasks.exec(&ns, &id, exec).await?) }).await
    }

    async fn resize_pty(&self, cx: &Context, req: ResizePtyRequest) -> Result<()> {
        let (ns, id) = names(cx, &req.container_id)?;
        Ok(self.tasks.resize_pty(&ns, &id, &req.exec_id, (req.width, req.height)).await?)
    }

    async fn close_io(&self, cx: &Context, req: CloseIoRequest) -> Result<()> {
        let (ns, id) = names(cx, &req.container_id)?;
        Ok(self.tasks.close_io(&ns, &id, &req.exec_id, req.stdin).await?)
    }

    async fn pause(&self, cx: &Context, req: PauseTaskRequest) -> Result<()> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        detached(async move { Ok(tasks.pause(&ns, &id).await?) }).await
    }

    async fn resume(&self, cx: &Context, req: ResumeTaskRequest) -> Result<()> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        detached(async move { Ok(tasks.resume(&ns, &id).await?) }).await
    }

    async fn list_pids(&self, cx: &Context, req: ListPidsRequest) -> Result<ListPidsResponse> {
        let (ns, id) = names(cx, &req.container_id)?;
        Ok(ListPidsResponse { processes: self.tasks.pids(&ns, &id).await? })
    }

    async fn checkpoint(&self, cx: &Context, req: CheckpointTaskRequest) -> Result<CheckpointTaskResponse> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        let path = match &req.options {
            Some(options) if any::is::<CheckpointOptions>(options) => {
                any::unpack::<CheckpointOptions>(options)?.image_path
            }
            Some(_) | None => String::new(),
        };
        if path.is_empty() {
            return Err(Error::unimplemented("checkpoints as images; name a folder (image path) in the options"));
        }
        let options = req.options.map(convert::payload);
        detached(async move { Ok(tasks.checkpoint(&ns, &id, &path, options).await?) }).await?;
        Ok(CheckpointTaskResponse::default())
    }

    async fn update(&self, cx: &Context, req: UpdateTaskRequest) -> Result<()> {
        let ((ns, id), tasks) = (names(cx, &req.container_id)?, self.tasks.clone());
        let resources = req.resources.map(convert::payload);
        detached(async move { Ok(tasks.update(&ns, &id, resources, req.annotations).await?) }).await
    }

    async fn metrics(&self, cx: &Context, req: MetricsRequest) -> Result<MetricsResponse> {
        let ns = Scope::of(cx)?.ns;
        let filters = Filters::parse(&req.filters)?;
        let wanted = |id: &Id| filters.is_empty() || filters.matches(&Named { ns: &ns, id });
        let samples = self.tasks.metrics(&ns, wanted).await;
        let metrics = samples.into_iter().map(|sample| Metric {
            timestamp: Some(SystemTime::now().into()),
            id: sample.id.to_string(),
            data: sample.data.map(convert::any),
        });
        Ok(MetricsResponse { metrics: metrics.collect() })
    }

    async fn wait(&self, cx: &Context, req: WaitRequest) -> Result<WaitResponse> {
        let (ns, id) = names(cx, &req.container_id)?;
        let exit = self.tasks.wait(&ns, &id, &req.exec_id).await?;
        Ok(WaitResponse { exit_status: exit.status, exited_at: Some(convert::timestamp(exit.at)) })
    }
}

/// The folder of a checkpoint that the runtime's options name; empty = none.
fn restored_from(options: &prost_types::Any) -> String {
    any::unpack::<Options>(options).map(|options| options.criu_image_path).unwrap_or_default()
}

fn deleted(id: String, exit: Exit) -> DeleteResponse {
    DeleteResponse { id, pid: exit.pid, exit_status: exit.status, exited_at: Some(convert::timestamp(exit.at)) }
}

fn process(info: Info) -> Process {
    let (status, exit) = match info.state {
        State::Created => (Status::Created, None),
        State::Running => (Status::Running, None),
        State::Paused => (Status::Paused, None),
        State::Stopped(exit) => (Status::Stopped, Some(exit)),
        State::Unknown => (Status::Unknown, None),
    };
    // Clients know the init process by the name of its container.
    let id = if info.exec.is_empty() { info.id.clone() } else { info.exec };
    Process {
        container_id: info.id,
        id,
        pid: info.pid,
        status: status.into(),
        stdin: info.stdio.stdin,
        stdout: info.stdio.stdout,
        stderr: info.stdio.stderr,
        terminal: info.stdio.terminal,
        exit_status: exit.map_or(0, |exit| exit.status),
        exited_at: exit.map(|exit| convert::timestamp(exit.at)),
    }
}

/// What metrics can be filtered by.
struct Named<'a> {
    ns: &'a Namespace,
    id: &'a Id,
}

impl Fields for Named<'_> {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => Some(self.id.as_str().into()),
            ["namespace"] => Some(self.ns.as_str().into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use shared_proto::Code;

    use super::*;
    use crate::domain::Payload;
    use crate::events::Exchange;
    use crate::metadata::containers::Container;
    use crate::runtime::RuntimeConfig;

    #[tokio::test]
    async fn what_can_be_refused_needs_no_shim() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        let path = dir.path().to_owned();
        let config = RuntimeConfig {
            state: path.join("state"),
            root: path.join("root"),
            core_socket: path.join("core"),
            ttrpc_address: path.join("events"),
            binary: path.join("core-daemon"),
            steps: Default::default(),
        };
        let service = TasksService::new(Tasks::new(config, Exchange::default()), db.clone());
        let spec = Some(Payload { type_url: any::SPEC.into(), value: b"{}".to_vec() });
        for (id, spec) in [("bare", None), ("odd", spec)] {
            let runtime_name = "io.example.none.v1".to_owned();
            let container = Container { id: id.into(), runtime_name, spec, ..Default::default() };
            let ns = Namespace::parse("ns").unwrap();
            db.write(shared_sys::files::Durability::Rebuildable, move |c| containers::create(c, &ns, container))
                .await
                .unwrap();
        }
        let cx = Context::new("ns");
        let create = |id: &str| CreateTaskRequest { container_id: id.into(), ..Default::default() };
        for (cx, request, code, part) in [
            (Context::default(), create("bare"), Code::FailedPrecondition, "namespace"),
            (cx.clone(), create("../x"), Code::InvalidArgument, "../x"),
            (cx.clone(), create("nobody"), Code::NotFound, "nobody"),
            (cx.clone(), create("bare"), Code::FailedPrecondition, "bare"),
            (cx.clone(), create("odd"), Code::InvalidArgument, "containerd-shim-none-v1"),
            (
                cx.clone(),
                CreateTaskRequest { checkpoint: Some(Default::default()), ..create("odd") },
                Code::Unimplemented,
                "checkpoint",
            ),
        ] {
            let e = service.create(&cx, request).await.unwrap_err();
            assert!(e.code == code && e.message.contains(part), "{:?} {e}", e.code);
        }
        let get = GetRequest { container_id: "odd".into(), ..Default::default() };
        assert_eq!(service.get(&cx, get).await.unwrap_err().code, Code::NotFound);
        assert!(service.list(&cx, ListTasksRequest::default()).await.unwrap().tasks.is_empty());
    }
}
