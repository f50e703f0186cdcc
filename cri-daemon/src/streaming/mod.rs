//! Exec, Attach and PortForward: streams between a client and a process or a port, over HTTP.
//!
//! The RPC checks a request and answers the address of a one-time [`tokens`] entry; the client calls there and upgrades
//! the connection to SPDY/3.1 or WebSocket. Nothing of this crosses the seam but the calls on tasks, so all wirings
//! behave the same.
//!
//! ```text
//!  server ─▶ negotiate ─▶ spdy ──────┬▶ remote ─┬▶ exec
//!                    └──▶ websocket ─┤          └▶ attach
//!                                    └▶ forward
//! ```
//!
//! - [`server`]: the HTTP server, started and ended with the daemon; [`tls`]: its certificate.
//! - [`negotiate`]: which protocol is spoken.
//! - [`spdy`], [`websocket`]: the protocols, each as [`channel`]s; [`activity`]: is the connection still of use.
//! - [`tunnel`]: SPDY inside of WebSocket.
//! - [`remote`]: the channels of a process; [`stdin`], [`resize`], [`status`]: what goes over three of them.
//! - [`exec`], [`attach`], [`forward`]: what is at the other end.
//!
//! Limits: 1000 waiting tokens, [`server::CONNECTIONS`] connections, [`spdy::STREAMS`] streams of each; what waits in
//! a channel is bounded (see [`channel`]). Unless told otherwise the server listens on loopback, without TLS.

pub mod activity;
pub mod attach;
pub mod channel;
pub mod exec;
pub mod forward;
pub mod negotiate;
pub mod remote;
pub mod resize;
pub mod server;
pub mod spdy;
pub mod status;
pub mod stdin;
pub mod tls;
pub mod tokens;
pub mod tunnel;
pub mod websocket;

use std::sync::OnceLock;

use shared_proto::{Code, Error, Result};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use tokens::Allowed;
use tokens::{MOST, Tokens};

/// What can't be streamed, and why not.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{MOST} streaming requests wait for their clients already; try again later")]
    TooMany,
    #[error("the streaming server does not run yet")]
    NotServing,
    #[error("listen for streams on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("TLS for streams: {0}")]
    Tls(String),
}

impl From<StreamError> for Error {
    fn from(e: StreamError) -> Self {
        let code = match &e {
            StreamError::TooMany => Code::ResourceExhausted,
            StreamError::NotServing => Code::Unavailable,
            StreamError::Listen { .. } | StreamError::Tls(_) => Code::FailedPrecondition,
        };
        Error::new(code, e.to_string())
    }
}

/// The streaming side of a [`Cri`](crate::Cri).
#[derive(Debug, Default)]
pub struct Streams {
    pub(crate) tokens: Tokens,
    /// `http://ADDRESS:PORT`, once it is served.
    base: OnceLock<String>,
    /// Every connection, and every command whose client is gone.
    pub(crate) work: TaskTracker,
    /// Ends them all.
    pub(crate) shutdown: CancellationToken,
}

impl Streams {
    /// The address that a client calls, once, within a minute.
    pub fn url(&self, allowed: Allowed) -> Result<String, StreamError> {
        let base = self.base.get().ok_or(StreamError::NotServing)?;
        let path = allowed.path();
        Ok(format!("{base}/{path}/{}", self.tokens.give(allowed)?))
    }
}

/// Whether exec or attach can have these streams.
pub fn check_streams(container: &str, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<()> {
    if container.is_empty() {
        return Err(Error::invalid("container_id: it is needed"));
    }
    if tty && stderr {
        return Err(Error::invalid("tty and stderr: a terminal has one output, which is stdout"));
    }
    if !(stdin || stdout || stderr) {
        return Err(Error::invalid("one of stdin, stdout and stderr must be asked for"));
    }
    Ok(())
}
