//! The far end of an attach: a container's own process.
//!
//! A client sees what the container writes from now on, beside the log, until the container ends. What it types goes
//! into the container's stdin, if that was asked for when the container was made; several clients may type at a time.
//!
//! When a client's stdin ends, or the client goes away: with `stdin_once` and without a terminal the container's stdin
//! ends for good; otherwise the client is detached, and the next one can type. A daemon that stops ends no stdin.
//!
//! Limits: see [`tap`](crate::logs::tap) for clients that read too slowly.

use std::path::PathBuf;
use std::time::Duration;

use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Code, Error, Result};
use tokio::net::unix::pipe;

use super::channel::{Sink, Source};
use super::remote::{self, Channels};
use super::status::Outcome;
use super::stdin::{Input, carry_in};
use crate::container::Container;
use crate::logs::tap::{Output, Tap};
use crate::{Cri, Inner};

/// How long a container may take to read what a client typed that is gone.
const LAST_WORDS: Duration = Duration::from_secs(10);

impl Cri {
    pub(super) async fn serve_attach(&self, req: v1::AttachRequest, channels: Channels) -> Outcome {
        let id = req.container_id;
        match self.0.attach_to(&id, channels).await.context(format!("attach to container {id}")) {
            Ok(()) => Outcome::Success,
            Err(e) => Outcome::Failed(e),
        }
    }
}

impl Inner {
    async fn attach_to(&self, id: &str, channels: Channels) -> Result<()> {
        let container = self.running(id)?;
        let id = container.record.id.as_str();
        let gone = || Error::precondition(format!("container {id} has ended"));
        let tap = container.log().ok_or_else(gone)?.tap();
        let Channels { stdin, stdout, stderr, resize, activity } = channels;
        let once = container.record.config.stdin_once && !container.record.config.tty;
        let output = copy_out(tap, stdout, stderr);
        let input = async {
            let input = self.input(&container, stdin).await;
            if input == Some(Input::Ended) && once {
                self.end_stdin(id).await;
            }
            input
        };
        let sizes = self.resize(id, "", resize);
        tokio::pin!(output, input, sizes);
        let (mut typing, mut sizing) = (true, true);
        loop {
            tokio::select! {
                ended = &mut output => return ended,
                input = &mut input, if typing => match input {
                    Some(Input::Ended) if !once => return Ok(()),
                    // The output goes on to the end of the container.
                    Some(Input::Ended | Input::Unread) | None => typing = false,
                },
                () = &mut sizes, if sizing => sizing = false,
                () = activity.gone().cancelled() => {
                    if typing && once && !self.streams.shutdown.is_cancelled() {
                        // What had arrived is typed before the end of it.
                        let _ = tokio::time::timeout(LAST_WORDS, &mut input).await;
                    }
                    return Err(remote::ended(&activity));
                }
            }
        }
    }

    /// Carries what the client types; `None`: the container, or the client, has no stdin.
    async fn input(&self, container: &Container, source: Option<Source>) -> Option<Input> {
        let source = source?;
        let path = self.fifos(container).stdin;
        if path.as_os_str().is_empty() {
            return None;
        }
        match open(path.clone()).await {
            Ok(pipe) => Some(carry_in(source, pipe, &path).await),
            Err(error) => {
                tracing::debug!(container = container.record.id, %error, "its stdin has ended");
                Some(Input::Unread)
            }
        }
    }

    async fn end_stdin(&self, id: &str) {
        if let Err(error) = self.close_stdin(id, "").await {
            // It may have ended meanwhile.
            tracing::debug!(container = id, %error, "its stdin could not be closed");
        }
    }
}

async fn open(path: PathBuf) -> std::io::Result<pipe::Sender> {
    let file = shared_sys::blocking(move || shared_sys::fifo::open_write(&path)).await?;
    pipe::Sender::from_file(file)
}

/// Sends what the container writes, until it has ended.
async fn copy_out(mut tap: Tap, mut stdout: Option<Sink>, mut stderr: Option<Sink>) -> Result<()> {
    while let Some(piece) = tap.next().await {
        let (output, data) = piece.map_err(|e| Error::new(Code::ResourceExhausted, e.to_string()))?;
        let sink = match output {
            Output::Stdout => &mut stdout,
            Output::Stderr => &mut stderr,
        };
        if let Some(to) = sink
            && to.send(data).await.is_err()
        {
            *sink = None;
        }
    }
    Ok(())
}
