//! The far end of an exec: a command whose pipes are the client's channels.
//!
//! A client that goes away does not end its command: stdin ends for it, and a terminal hangs up (SIGHUP), as on any
//! machine that one was logged in to; what it still writes is read and dropped, so that it never blocks. A daemon that
//! is stopped kills it. Whatever happens, exec and FIFOs are taken away when the command has ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared_proto::containerd::tasks as t;
use shared_proto::cri::v1;
use shared_proto::{Error, Result};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::channel::{PIECE, Sink, Source};
use super::remote::{self, Channels};
use super::resize::{Size, Sizes};
use super::status::Outcome;
use super::stdin::{Input, carry_in};
use crate::call::{RECORD, within};
use crate::command::{Command, Pipes, Wanted};
use crate::runtime::exec_sync::HELD_OPEN;
use crate::{Cri, Inner};

const SIGHUP: u32 = 1;

impl Cri {
    pub(super) async fn serve_exec(&self, req: v1::ExecRequest, channels: Channels) -> Outcome {
        let id = req.container_id.clone();
        match self.exec_with(req, channels).await {
            Ok(0) => Outcome::Success,
            Ok(code) => Outcome::Exit(code),
            Err(e) => Outcome::Failed(e.context(format!("exec in container {id}"))),
        }
    }

    async fn exec_with(&self, req: v1::ExecRequest, mut channels: Channels) -> Result<i32> {
        let container = self.0.running(&req.container_id)?;
        let wanted = Wanted { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, tty: req.tty };
        let command = Command::new(&self.0.config, &container.record.id, wanted);
        let mut pipes = match self.0.begin_command(&container, &command, &req.cmd).await {
            Ok(pipes) => pipes,
            Err(e) => {
                self.0.end_command(&command).await;
                return Err(e);
            }
        };
        let activity = channels.activity.clone();
        let outcome = tokio::select! {
            outcome = self.0.exchange(&command, &mut pipes, &mut channels) => Some(outcome),
            () = activity.gone().cancelled() => None,
        };
        match outcome {
            Some(outcome) => {
                // Only the shim knows of what holds the output open; without readers it ends.
                drop(pipes);
                self.0.end_command(&command).await;
                outcome
            }
            None => {
                let inner = self.0.clone();
                self.0.streams.work.spawn(async move { inner.abandon(&command, pipes, req.tty).await });
                Err(remote::ended(&activity))
            }
        }
    }
}

impl Inner {
    /// Carries bytes both ways until the command has ended and all its output is sent; its exit code.
    async fn exchange(&self, command: &Command, pipes: &mut Pipes, channels: &mut Channels) -> Result<i32> {
        let exited = CancellationToken::new();
        let ended = async {
            let ended = self.wait(&command.container, &command.id).await;
            exited.cancel();
            ended
        };
        let limit = self.config.runtime.drain_exec_sync_io_timeout;
        let output = async {
            let both = async {
                tokio::join!(
                    carry_out(&mut pipes.stdout, channels.stdout.as_ref()),
                    carry_out(&mut pipes.stderr, channels.stderr.as_ref())
                )
            };
            let late = async {
                exited.cancelled().await;
                match limit {
                    Duration::ZERO => std::future::pending().await,
                    limit => tokio::time::sleep(limit).await,
                }
            };
            tokio::select! { _ = both => true, () = late => false }
        };
        let main = async { tokio::join!(ended, output) };
        let stdin = channels.stdin.take().zip(pipes.stdin.take());
        let input = async {
            let Some((source, pipe)) = stdin else { return };
            if carry_in(source, pipe, command.stdin()).await == Input::Ended
                && let Err(error) = self.close_stdin(&command.container, &command.id).await
            {
                // It may have ended meanwhile.
                tracing::debug!(exec = command.id, %error, "its stdin could not be closed");
            }
        };
        let sizes = self.resize(&command.container, &command.id, channels.resize.take());
        let beside = async {
            tokio::join!(input, sizes);
            std::future::pending::<()>().await
        };
        tokio::select! {
            (ended, whole) = main => match (ended, whole) {
                (Ok(ended), true) => Ok(ended.code),
                (Ok(_), false) => Err(Error::deadline(HELD_OPEN)),
                (Err(e), _) => Err(e),
            },
            () = beside => Err(Error::internal("the input went on for ever")),
        }
    }

    /// Gives a terminal the sizes that come.
    pub(super) async fn resize(&self, container: &str, exec: &str, source: Option<Source>) {
        let Some(mut source) = source else { return };
        let mut sizes = Sizes::default();
        while let Some(data) = source.next().await {
            match sizes.add(&data) {
                Ok(Some(size)) => self.set_size(container, exec, size).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(container, exec, %error, "no more sizes are read");
                    return;
                }
            }
        }
    }

    async fn set_size(&self, container: &str, exec: &str, size: Size) {
        let request = t::ResizePtyRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
            width: size.width.into(),
            height: size.height.into(),
        };
        if let Err(error) = within("resize", RECORD, self.core.tasks.resize_pty(&self.cx, request)).await {
            tracing::debug!(container, exec, %error, "a terminal keeps its size");
        }
    }

    /// Sees a command through whose client is gone.
    async fn abandon(self: Arc<Self>, command: &Command, mut pipes: Pipes, tty: bool) {
        let (container, exec) = (&command.container, &command.id);
        drop(pipes.stdin.take());
        let over = async {
            // Either may fail because the command has ended, or has no stdin.
            let _ = self.close_stdin(container, exec).await;
            if tty {
                let _ = self.signal(container, exec, SIGHUP, false).await;
            }
            tokio::join!(
                carry_out(&mut pipes.stdout, None),
                carry_out(&mut pipes.stderr, None),
                self.wait(container, exec)
            )
        };
        if self.streams.shutdown.run_until_cancelled(over).await.is_none()
            && let Err(error) = self.kill_command(command).await
        {
            tracing::warn!(container, exec, %error, "an exec whose client is gone goes on");
        }
        self.end_command(command).await;
    }
}

/// Sends what a pipe holds until its end. Whoever does not want it any more does not keep the pipe from being emptied.
async fn carry_out(pipe: &mut Option<pipe::Receiver>, mut sink: Option<&Sink>) {
    let Some(pipe) = pipe else { return };
    let mut buffer = vec![0; PIECE];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if let Some(to) = sink
                    && to.send(Bytes::copy_from_slice(&buffer[..n])).await.is_err()
                {
                    sink = None;
                }
            }
        }
    }
}
