//! A command in a running container: an exec process of its task, with FIFOs for what it reads and writes.
//!
//! [`Inner::begin_command`] starts one, [`Inner::end_command`] takes away what it leaves, whatever became of it:
//! whoever begins one ends it. What goes through the pipes is the caller's business (ExecSync keeps it, Exec sends it
//! on).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared_proto::containerd::tasks as t;
use shared_proto::{Error, Result, any};
use tokio::net::unix::pipe;

use crate::call::tasks::{Io, SIGKILL};
use crate::call::{PROCESS, RECORD, within};
use crate::container::{Container, State};
use crate::{Inner, paths};

/// How long a killed command may take to be gone.
const KILLED: Duration = Duration::from_secs(10);

/// One command, to be begun or at work.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub container: String,
    pub id: String,
    io: Io,
}

/// Our ends of a command's FIFOs.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
}

/// Which pipes a command has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Command {
    pub fn new(config: &shared_config::Config, container: &str, wanted: Wanted) -> Self {
        let id = crate::runtime::new_id();
        let dir = paths::container(config, container).io();
        let path = |wanted: bool, name: &str| if wanted { dir.join(format!("{id}-{name}")) } else { PathBuf::new() };
        let io = Io {
            stdin: path(wanted.stdin, "stdin"),
            // A terminal always has an output, wanted or not, and only one.
            stdout: path(wanted.stdout || wanted.tty, "stdout"),
            stderr: path(wanted.stderr && !wanted.tty, "stderr"),
            terminal: wanted.tty,
        };
        Self { container: container.to_owned(), id, io }
    }

    /// The FIFO that it reads from.
    pub fn stdin(&self) -> &Path {
        &self.io.stdin
    }

    fn fifos(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.io.stdin, &self.io.stdout, &self.io.stderr].into_iter().filter(|path| !path.as_os_str().is_empty())
    }
}

impl Inner {
    /// The container of this id, if commands can run in it.
    pub(crate) fn running(&self, id: &str) -> Result<Arc<Container>> {
        let container = self.containers.get(id)?;
        let state = container.life.state();
        if matches!(state, State::Running { .. }) {
            return Ok(container);
        }
        let id = &container.record.id;
        Err(Error::precondition(format!("container {id} is {}; it must be running", state.name())))
    }

    /// Starts a command. Also after an error it has to be ended.
    pub(crate) async fn begin_command(
        &self,
        container: &Container,
        command: &Command,
        cmd: &[String],
    ) -> Result<Pipes> {
        let process = self.command_process(container, cmd, command.io.terminal).await?;
        let io = command.io.clone();
        let failed = |e: std::io::Error| Error::internal(format!("make the FIFOs of the command: {e}"));
        let (pipes, held) = shared_sys::blocking(move || open(&io)).await.map_err(failed)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let request = t::ExecProcessRequest {
            container_id: command.container.clone(),
            stdin: text(&command.io.stdin),
            stdout: text(&command.io.stdout),
            stderr: text(&command.io.stderr),
            terminal: command.io.terminal,
            spec: Some(any::raw(any::PROCESS, process)),
            exec_id: command.id.clone(),
        };
        within("exec", PROCESS, self.core.tasks.exec(&self.cx, request)).await?;
        self.start_process(&command.container, &command.id).await?;
        // The shim has its ends now: from here on the end of an output is the end.
        drop(held);
        Ok(pipes)
    }

    /// Takes away what a command leaves; it must have ended, or never begun.
    pub(crate) async fn end_command(&self, command: &Command) {
        let (container, exec) = (&command.container, &command.id);
        // Also ends what may still write into the FIFOs.
        if let Err(error) = self.delete_exec(container, exec).await {
            tracing::warn!(container, exec, %error, "an exec stays until its container ends");
        }
        for path in command.fifos() {
            // Never made, or removed with the container's folder.
            let _ = tokio::fs::remove_file(path).await;
        }
    }

    /// Kills a command and waits until it is gone; what went wrong with that.
    pub(crate) async fn kill_command(&self, command: &Command) -> Result<()> {
        self.signal(&command.container, &command.id, SIGKILL, false).await?;
        match within("wait for its end", KILLED, self.wait(&command.container, &command.id)).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Says that nothing more will be written to the stdin of a container (`exec` is empty) or a command.
    pub(crate) async fn close_stdin(&self, container: &str, exec: &str) -> Result<()> {
        let request = t::CloseIoRequest { container_id: container.to_owned(), exec_id: exec.to_owned(), stdin: true };
        within("close stdin", RECORD, self.core.tasks.close_io(&self.cx, request)).await
    }

    /// The process of a command: the container's own, with other arguments.
    async fn command_process(&self, container: &Container, cmd: &[String], tty: bool) -> Result<Vec<u8>> {
        let mut process = match container.process() {
            Some(process) => (*process).clone(),
            None => {
                let record = self.record(&container.record.id).await?;
                let process = crate::runtime::spec_json(&record)["process"].take();
                container.set_process(Arc::new(process.clone()));
                process
            }
        };
        let fields = process.as_object_mut().ok_or_else(|| Error::internal("the container's spec has no process"))?;
        fields.insert("args".into(), cmd.into());
        fields.insert("terminal".into(), tty.into());
        fields.remove("consoleSize");
        fields.remove("commandLine");
        if tty && let Some(env) = fields.entry("env").or_insert_with(|| serde_json::json!([])).as_array_mut() {
            let named = |entry: &serde_json::Value| entry.as_str().is_some_and(|entry| entry.starts_with("TERM="));
            if !env.iter().any(named) {
                env.push("TERM=xterm".into());
            }
        }
        serde_json::to_vec(&process).map_err(|e| Error::internal(format!("encode the process: {e}")))
    }
}

/// Makes the FIFOs and opens our ends. A FIFO without anybody at the other end reads as ended, and can't be opened to
/// write: what is held beside keeps both away until the shim has its ends.
fn open(io: &Io) -> std::io::Result<(Pipes, Vec<std::fs::File>)> {
    let mut held = Vec::new();
    let mut make = |path: &Path| {
        if path.as_os_str().is_empty() {
            return Ok(false);
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        shared_sys::fifo::make(path, 0o700)?;
        held.push(shared_sys::fifo::open_both(path)?);
        Ok::<bool, std::io::Error>(true)
    };
    let stdin = make(&io.stdin)?.then(|| shared_sys::fifo::open_write(&io.stdin)).transpose()?;
    let stdout = make(&io.stdout)?.then(|| shared_sys::fifo::open_read(&io.stdout)).transpose()?;
    let stderr = make(&io.stderr)?.then(|| shared_sys::fifo::open_read(&io.stderr)).transpose()?;
    let pipes = Pipes {
        stdin: stdin.map(pipe::Sender::from_file).transpose()?,
        stdout: stdout.map(pipe::Receiver::from_file).transpose()?,
        stderr: stderr.map(pipe::Receiver::from_file).transpose()?,
    };
    Ok((pipes, held))
}
