//! The connection to one running shim.
//!
//! ```text
//! Up ──closed──▶ Checking ──it answers again──▶ Up
//!                   │ nobody listens
//!                   ▼
//!                  Dead   (also after a shutdown that we asked for)
//! ```
//!
//! A connection that ends is not yet a shim that has ended: containers must not die of a broken connection. Only when
//! a second one can't be made, or isn't answered, the shim is dead; then `bury` takes over.
//!
//! The service name is that of the version which the shim announced; a shim that doesn't know it is asked by the
//! other one, once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Name;
use prost_types::Timestamp;
use shared_proto::Code;
use shared_proto::meter::Way;
use shared_proto::seam::v1::Message;
use shared_proto::ttrpc::task::{ConnectRequest, ConnectResponse};
use shared_proto::ttrpc::{TASK_V2, TASK_V3};
use shared_ttrpc::{CallError, Client, Options};
use tokio::sync::watch;

use super::bootstrap::Bootstrap;
use super::error::RuntimeError;
use super::process::Exit;
use super::shim_log::ShimLog;
use crate::stages;

/// How long each kind of call may take.
pub(super) mod deadline {
    use std::time::Duration;

    /// Calls that run the OCI runtime: create, start, exec, delete. Generous, as a loaded machine is no error.
    pub const RUN: Duration = Duration::from_secs(120);
    /// Calls that answer from memory or do one system call.
    pub const QUICK: Duration = Duration::from_secs(20);
    /// `State`, on behalf of somebody who only looks.
    pub const STATE: Duration = Duration::from_secs(2);
    /// `Stats`: reads a few files; asked for all tasks at a time.
    pub const STATS: Duration = Duration::from_secs(5);
    /// `Shutdown` of a shim without tasks.
    pub const SHUTDOWN: Duration = Duration::from_secs(3);
    /// Connecting to the shim of an earlier run, and its first answer.
    pub const LOAD: Duration = Duration::from_secs(5);
}

#[derive(Clone)]
enum Link {
    Up(Client),
    Checking,
    Dead,
}

/// A shim, shared by all tasks that it serves.
pub(super) struct Shim {
    pub address: String,
    pub socket: PathBuf,
    link: watch::Sender<Link>,
    /// Whether the service is asked by the name of version 3.
    v3: AtomicBool,
    /// Whether the version has proved right.
    settled: AtomicBool,
    log: Mutex<Option<ShimLog>>,
}

impl Shim {
    pub async fn connect(bootstrap: &Bootstrap) -> Result<Self, RuntimeError> {
        let failed = |source| RuntimeError::Connect { address: bootstrap.address.clone(), source };
        let socket = bootstrap.socket().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let client = Client::connect(&socket).await.map_err(failed)?;
        Ok(Self {
            address: bootstrap.address.clone(),
            socket,
            link: watch::Sender::new(Link::Up(client)),
            v3: AtomicBool::new(bootstrap.version >= 3),
            settled: AtomicBool::new(false),
            log: Mutex::new(None),
        })
    }

    /// One that is gone, of a task that is still to be deleted.
    pub fn dead(bootstrap: Option<&Bootstrap>) -> Self {
        Self {
            address: bootstrap.map(|bootstrap| bootstrap.address.clone()).unwrap_or_default(),
            socket: bootstrap.and_then(Bootstrap::socket).unwrap_or_default(),
            link: watch::Sender::new(Link::Dead),
            v3: AtomicBool::new(bootstrap.is_some_and(|bootstrap| bootstrap.version >= 3)),
            settled: AtomicBool::new(true),
            log: Mutex::new(None),
        }
    }

    /// What to record of the shim for a task that shares it.
    pub fn bootstrap(&self) -> Bootstrap {
        let version = if self.v3.load(Ordering::Relaxed) { 3 } else { 2 };
        Bootstrap { version, address: self.address.clone(), protocol: "ttrpc".into(), shared: true }
    }

    /// Keeps reading the shim's log as long as the shim is in use.
    pub fn keep_log(&self, log: ShimLog) {
        *self.log.lock().expect("log lock") = Some(log);
    }

    /// Calls a method of the Task service. `limit` is `None` only for `Wait`. `doing` goes in front of an error.
    pub async fn call<A: Name + Default>(
        &self,
        ns: &str,
        method: &str,
        request: &impl Name,
        limit: Option<Duration>,
        doing: impl FnOnce() -> String,
    ) -> Result<A, RuntimeError> {
        let Link::Up(client) = self.link.borrow().clone() else {
            let source = CallError::Closed { call: method.to_owned() };
            return Err(RuntimeError::Shim { doing: doing(), source });
        };
        let options = Options { deadline: limit, namespace: Some(ns) };
        stages::keep(Way::There, || Message::of(request));
        let v3 = self.v3.load(Ordering::Relaxed);
        let mut answer = client.call(service(v3), method, request, options).await;
        if !self.settled.load(Ordering::Relaxed) {
            if is_unimplemented(&answer) {
                tracing::debug!(address = %self.address, asked = service(v3), "shim: trying the other version");
                answer = client.call(service(!v3), method, request, options).await;
                if matches!(&answer, Ok(_) | Err(CallError::Status(_))) && !is_unimplemented(&answer) {
                    self.v3.store(!v3, Ordering::Relaxed);
                    self.settled.store(true, Ordering::Relaxed);
                }
            } else if matches!(answer, Ok(_) | Err(CallError::Status(_))) {
                self.settled.store(true, Ordering::Relaxed);
            }
        }
        if let Ok(message) = &answer {
            stages::keep(Way::Back, || Message::of(message));
        }
        answer.map_err(|source| RuntimeError::Shim { doing: doing(), source })
    }

    /// Whether the shim is known to be dead.
    pub fn is_dead(&self) -> bool {
        matches!(*self.link.borrow(), Link::Dead)
    }

    /// After a call that found the connection closed: waits for the verdict, `true` if the shim lives.
    pub async fn settle(&self) -> bool {
        let mut link = self.link.subscribe();
        let settled = link.wait_for(|link| match link {
            Link::Up(client) => !client.is_closed(),
            Link::Checking => false,
            Link::Dead => true,
        });
        settled.await.is_ok_and(|link| matches!(*link, Link::Up(_)))
    }

    /// The shim was told to end: its closing connection is no news.
    pub fn retire(&self) {
        self.link.send_replace(Link::Dead);
    }

    /// One step of watching: returns when the connection has ended and the verdict is known; `false` = dead.
    async fn check(&self) -> bool {
        if self.is_dead() {
            return false;
        }
        self.link.send_if_modified(|link| {
            let up = matches!(link, Link::Up(_));
            if up {
                *link = Link::Checking;
            }
            up
        });
        let again = reconnect(&self.socket, service(self.v3.load(Ordering::Relaxed))).await;
        let alive = again.is_some();
        self.link.send_if_modified(|link| {
            // Retired meanwhile? Then it stays so.
            let open = !matches!(link, Link::Dead);
            if open {
                *link = again.map_or(Link::Dead, Link::Up);
            }
            open
        });
        alive && !self.is_dead()
    }
}

/// Follows a shim until it is dead or no longer used. `true` = it died.
pub(super) async fn watch(shim: &std::sync::Weak<Shim>) -> Option<Arc<Shim>> {
    loop {
        let closed = {
            let shim = shim.upgrade()?;
            match &*shim.link.borrow() {
                Link::Up(client) => Some(client.closed()),
                Link::Checking | Link::Dead => None,
            }
        };
        if let Some(closed) = closed {
            closed.await;
        }
        let shim = shim.upgrade()?;
        if !shim.check().await {
            return Some(shim);
        }
        tracing::warn!(address = %shim.address, "the connection to a shim broke and was made again");
    }
}

/// A second connection, if the shim takes it and answers.
async fn reconnect(socket: &Path, service: &str) -> Option<Client> {
    let attempt = async {
        let client = Client::connect(socket).await.ok()?;
        let options = Options { deadline: Some(deadline::STATE), namespace: Some("default") };
        let answer = client.call::<ConnectResponse>(service, "Connect", &ConnectRequest::default(), options).await;
        // Any answer of its own will do.
        matches!(answer, Ok(_) | Err(CallError::Status(_))).then_some(client)
    };
    tokio::time::timeout(deadline::LOAD, attempt).await.ok().flatten()
}

fn service(v3: bool) -> &'static str {
    if v3 { TASK_V3 } else { TASK_V2 }
}

fn is_unimplemented<A>(answer: &Result<A, CallError>) -> bool {
    matches!(answer, Err(CallError::Status(e)) if e.code == Code::Unimplemented)
}

/// Removes the socket of a dead shim, if nobody listens on it any more. Blocks.
pub(super) fn remove_dead_socket(socket: &Path) {
    if let Err(e) = std::os::unix::net::UnixStream::connect(socket)
        && e.kind() == io::ErrorKind::ConnectionRefused
        && let Err(e) = std::fs::remove_file(socket)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(socket = %socket.display(), error = %e, "can't remove a dead shim's socket");
    }
}

/// An exit in the words of a shim.
pub(super) fn exit_of(pid: u32, status: u32, at: Option<Timestamp>) -> Exit {
    let at = at.map_or(0, |t| t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos)));
    Exit { pid, status, at }
}
