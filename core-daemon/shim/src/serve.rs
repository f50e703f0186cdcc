//! The server: one thread, from `start` until the pod's last container is deleted and the core says so.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::AsFd;
use shared_proto::ttrpc::{TASK_V2, TASK_V3};
use shared_sys::program::{self, Program};
use shared_ttrpc::Server;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::args::Args;
use crate::error::Error;
use crate::events::Events;
use crate::log;
use crate::reaper::Reaper;
use crate::service::TaskService;
use crate::task::Tasks;

/// How long events may still need at the end.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// How long answers may still need at the end: all containers are gone by then.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves the socket that standard input is, and stays: children are always given another.
pub fn run(args: &Args) -> Result<(), Error> {
    let wrong = |what: &'static str| move |e: std::io::Error| Error::Server(format!("{what}: {e}"));
    let listener = std::io::stdin().as_fd().try_clone_to_owned().map_err(wrong("take the socket"))?;
    // A session of its own: what is sent to the core's is not for us. Fails for a leader, who has one.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| wrong("become a subreaper")(e.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .map_err(wrong("start a runtime"))?;
    runtime.block_on(serve(args, UnixListener::from(listener)))
}

/// The copy of the engine that `start` has given us.
fn program() -> Option<Arc<Program>> {
    let text = std::env::var(program::ENGINE).ok()?;
    Program::given(&text, std::io::stdout().as_fd()).ok().map(Arc::new)
}

async fn serve(args: &Args, listener: UnixListener) -> Result<(), Error> {
    let wrong = |what: &'static str| move |e: std::io::Error| Error::Server(format!("{what}: {e}"));
    // Taken, not ignored: what is ignored stays so in the containers' processes.
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::pipe()] {
        drop(signal(kind).map_err(wrong("take a signal"))?);
    }
    let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
    listener.set_nonblocking(true).map_err(wrong("set up the socket"))?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(wrong("watch the socket"))?;

    let reaper = Arc::new(Reaper::default());
    let reaping = tokio::spawn(reaper.clone().run());
    let events = Events::new(&args.namespace);
    match std::env::var_os("TTRPC_ADDRESS") {
        Some(address) => drop(tokio::spawn(events.clone().deliver(address.into()))),
        None => log::warn("TTRPC_ADDRESS is not set: nobody hears of events"),
    }
    let tasks = Arc::new(Tasks::new(&args.namespace, reaper, events.clone(), program()));
    let end = Arc::new(Notify::new());
    let service = Arc::new(TaskService { tasks: tasks.clone(), end: end.clone() });
    let server = Server::new().service(TASK_V2, service.clone()).service(TASK_V3, service);
    let (ending, overdue) = tokio::sync::oneshot::channel();
    let serving = server.serve(listener, async {
        end.notified().await;
        // Nobody shall find a server that is about to go.
        if let Some(path) = path {
            let _ = std::fs::remove_file(path);
        }
        let _ = ending.send(());
    });
    let overdue = async {
        let _ = overdue.await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        () = serving => {}
        () = overdue => log::warn("somebody still waits for an answer"),
    }
    if tokio::time::timeout(LAST_EVENTS, events.delivered()).await.is_err() {
        log::warn("the core was not told of the last events");
    }
    reaping.abort();
    Ok(())
}
