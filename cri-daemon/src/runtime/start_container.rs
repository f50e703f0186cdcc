//! StartContainer: log and FIFOs, task, process.
//!
//! Only a created container can be started, once. When it fails the container has ended, with code 128 and the reason
//! `StartError`, and whatever the attempt made is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::meter::Way;
use shared_proto::{Error, Result};

use crate::call::tasks::Io;
use crate::container::{Container, Exit, State};
use crate::instrument::Request;
use crate::logs::LogInput;
use crate::pod::teardown::remove_folder;
use crate::{Cri, Inner, paths};

impl Cri {
    pub async fn start_container(&self, req: v1::StartContainerRequest) -> Result<v1::StartContainerResponse> {
        let came = Instant::now();
        let asked = self.0.starts.watches.note(&req);
        let container = self.0.containers.get(&req.container_id)?;
        let id = container.record.id.clone();
        let sandbox = self.0.sandboxes.get(&container.record.sandbox_id);
        let sandbox = sandbox.with_context(|| format!("start container {id}"))?;
        let (admitted, _) = sandbox.life.admit().with_context(|| format!("start container {id}"))?;
        container.life.begin_start()?;
        let handler = sandbox.record().runtime_handler.clone();
        let cri = self.clone();
        let subject = container.record.config.metadata.as_ref().map_or("", |metadata| &metadata.name);
        let request = self.0.starts.request(&sandbox.start, "StartContainer", (subject, &id), came, &self.0.metrics);
        request.asked(asked);
        container.timeline.add(request.account());
        let work = async move {
            request.waited("queue");
            request.pause(Way::There).await;
            let started = request.watch(cri.0.start(&container, &handler, &request)).await;
            if started.is_ok() {
                request.answered(&v1::StartContainerResponse {});
            }
            request.pause(Way::Back).await;
            drop(request);
            drop(admitted);
            started
        };
        self.detached(work).await.with_context(|| format!("start container {id}"))?;
        Ok(v1::StartContainerResponse {})
    }
}

impl Inner {
    async fn start(&self, container: &Arc<Container>, handler: &str, request: &Request) -> Result<()> {
        let id = container.record.id.as_str();
        match self.launch(container, handler, request).await {
            Ok(pid) => {
                let state = State::Running { pid, started_at: self.host.now() };
                // Without the file a restarted daemon still finds the task, and only the time of the start is lost.
                if let Err(e) = self.write_status(id, state.clone()).await {
                    tracing::warn!(container = id, error = %e, "its status is not on disk");
                }
                if let State::Running { pid, started_at } = state {
                    self.container_started(container, pid, started_at);
                }
                tracing::info!(container = id, pid, "container started");
                Ok(())
            }
            Err(e) => {
                request.failed(&e);
                let _stage = request.stage("rollback");
                self.give_up(container, &e).await;
                Err(e)
            }
        }
    }

    /// Takes back what a failed start has made, and ends the container.
    async fn give_up(&self, container: &Container, e: &Error) {
        let id = container.record.id.as_str();
        if let Err(e) = self.end_task(id).await {
            tracing::warn!(container = id, error = %e, "the task of a failed start stays until the container is removed");
        }
        let log = container.take_log();
        if let Some(log) = log {
            log.drained(std::time::Duration::from_secs(1)).await;
        }
        if let Err(e) = remove_folder(&paths::container(&self.config, id).io()).await {
            tracing::warn!(container = id, error = %e, "the FIFOs stay until the container is removed");
        }
        let exit = Exit::start_error(self.host.now(), e);
        if let Err(e) = self.write_status(id, State::Exited(exit.clone())).await {
            tracing::warn!(container = id, error = %e, "its status is not on disk");
        }
        self.container_exited(container, exit);
    }

    async fn launch(&self, container: &Arc<Container>, handler: &str, request: &Request) -> Result<u32> {
        let record = &container.record;
        let id = record.id.as_str();
        let runtime = self.runtime(handler)?;
        let io = {
            let _stage = request.stage("log");
            let io = self.make_fifos(container).await?;
            self.attach_log(container, &io).await?;
            io
        };
        let rootfs = match container.rootfs() {
            Some(mounts) => mounts,
            None => {
                let _stage = request.stage("mounts");
                self.mounts(&container.snapshotter, id).await?
            }
        };
        {
            let _stage = request.stage_of("task-create", &runtime.runtime_type);
            self.create_task(id, rootfs, &io, runtime).await?;
        }
        let _stage = request.stage("task-start");
        self.start_process(id, "").await
    }

    /// Where a container's FIFOs are.
    pub(crate) fn fifos(&self, container: &Container) -> Io {
        let (id, config) = (&container.record.id, &container.record.config);
        let dir = paths::container(&self.config, id).io();
        let path = |wanted: bool, name: &str| if wanted { dir.join(format!("{id}-{name}")) } else { PathBuf::new() };
        Io {
            stdin: path(config.stdin, "stdin"),
            stdout: path(true, "stdout"),
            // With a terminal there is one output.
            stderr: path(!config.tty, "stderr"),
            terminal: config.tty,
        }
    }

    async fn make_fifos(&self, container: &Container) -> Result<Io> {
        let io = self.fifos(container);
        let dir = paths::container(&self.config, &container.record.id).io();
        let all: Vec<PathBuf> =
            [&io.stdin, &io.stdout, &io.stderr].into_iter().filter(|p| !p.as_os_str().is_empty()).cloned().collect();
        let make = move || {
            std::fs::create_dir_all(&dir)?;
            all.iter().try_for_each(|path| shared_sys::fifo::make(path, 0o700))
        };
        shared_sys::blocking(make).await.map_err(|e| Error::internal(format!("make the FIFOs: {e}")))?;
        Ok(io)
    }

    /// Opens the reading ends of the FIFOs and the log. The reader comes before the shim.
    pub(crate) async fn attach_log(&self, container: &Container, io: &Io) -> Result<()> {
        let record = &container.record;
        let some = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let input = LogInput {
            id: record.id.clone(),
            stdout: some(&io.stdout),
            stderr: some(&io.stderr),
            log_path: some(&PathBuf::from(&record.log_path)),
            max_line: self.config.runtime.max_container_log_line_size,
        };
        let log = self.logs.attach(input).await;
        let log = log.map_err(|e| Error::internal(format!("open the log {:?}: {e}", record.log_path)))?;
        container.set_log(log);
        Ok(())
    }
}
