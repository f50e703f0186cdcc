//! The way through: each connection of a client gets one of its own to the target, and every call is passed on as it
//! is, with its headers, frames and trailers.
//!
//! One connection each means that what happens on one side happens on the other: a slow client holds up itself, a
//! target that goes away closes the clients' connections (they come again, as they would without a recorder), and a
//! call that a client cancels is cancelled at the target. Nothing is decoded here; see [`super::tap`].

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use http::{Request, Response, Uri};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use shared_proto::authority::{self, AcceptAny};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::journal::Journal;
use super::tap::{Call, Tapped};

/// As many streams as a kubelet likes to open.
const MAX_STREAMS: u32 = u32::MAX >> 1;
/// The daemons' own windows.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Headers and trailers, in which the text of an error is.
const MAX_HEADERS: u32 = 1 << 20;
/// How long calls may go on after the end was asked for.
const LAST_CALLS: Duration = Duration::from_secs(2);

type Answer = Response<Either<Tapped<Incoming>, Empty<Bytes>>>;

/// Passes connections on to `target` until `shutdown`.
pub async fn serve(listener: UnixListener, target: PathBuf, journal: Journal, shutdown: impl Future<Output = ()>) {
    let (target, tasks, ending) = (Arc::<Path>::from(target), Tasks(TaskTracker::new()), CancellationToken::new());
    let mut connections = pin!(authority::incoming(listener));
    let mut shutdown = pin!(shutdown);
    loop {
        let client = tokio::select! {
            () = &mut shutdown => break,
            client = connections.next() => client,
        };
        if let Some(Ok(client)) = client {
            let (target, journal, ending, own) = (target.clone(), journal.clone(), ending.clone(), tasks.clone());
            tasks.0.spawn(async move {
                if let Err(error) = connection(client, &target, journal, ending, own).await {
                    eprintln!("cri-daemon: connect to {}: {error}", target.display());
                }
            });
        }
    }
    journal.ends();
    drop(journal);
    ending.cancel();
    tasks.0.close();
    // Each ends with its connection; nobody waits for one that doesn't.
    let _ = tokio::time::timeout(2 * LAST_CALLS, tasks.0.wait()).await;
}

/// The owner of what HTTP/2 needs tasks for.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// One client, until it goes, the target goes or the end has come.
async fn connection(
    client: AcceptAny<UnixStream>,
    target: &Path,
    journal: Journal,
    ending: CancellationToken,
    tasks: Tasks,
) -> io::Result<()> {
    match connect(target, tasks.clone()).await {
        Ok((target, upstream)) => {
            let service = move |request| pass(target.clone(), journal.clone(), request);
            let until = async {
                tokio::select! { _ = upstream => {}, () = ending.cancelled() => {} }
            };
            serve_client(client, service, until, tasks).await;
            Ok(())
        }
        Err(error) => {
            // Who asks is told, and asks for a new connection the next time.
            let (asked, text) = (CancellationToken::new(), format!("connect to {}: {error}", target.display()));
            let told = asked.clone();
            let service = move |request| {
                told.cancel();
                std::future::ready(Ok(refuse(&journal, request, &text)))
            };
            let until = async {
                tokio::select! { () = asked.cancelled() => {}, () = ending.cancelled() => {} }
            };
            serve_client(client, service, until, tasks).await;
            Err(error)
        }
    }
}

/// Serves one client until it goes, or `until` and as long as its last calls take.
async fn serve_client<F, R>(client: AcceptAny<UnixStream>, service: F, until: impl Future<Output = ()>, tasks: Tasks)
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Result<Answer, Infallible>> + Send + 'static,
{
    let server = hyper::server::conn::http2::Builder::new(tasks)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(client), hyper::service::service_fn(service));
    let mut server = pin!(server);
    tokio::select! {
        // However it ended: there is nobody left to tell.
        _ = &mut server => return,
        () = until => {}
    }
    server.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_CALLS, server).await;
}

/// A connection to the target, and the task that drives it, to its end.
async fn connect(target: &Path, tasks: Tasks) -> io::Result<(SendRequest<Tapped<Incoming>>, JoinHandle<()>)> {
    let stream = UnixStream::connect(target).await?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(tasks.clone())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Its error is that of the calls on it, each of which says it.
    Ok((sender, tasks.0.spawn(async { drop(connection.await) })))
}

/// One call.
async fn pass(
    mut target: SendRequest<Tapped<Incoming>>,
    journal: Journal,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (mut head, body) = request.into_parts();
    let (call, body) = Call::begin(&journal, head.uri.path(), &head.headers, body);
    drop(journal);
    if head.uri.authority().is_none() {
        head.uri = with_authority(&head.uri);
    }
    Ok(match target.send_request(Request::from_parts(head, body)).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            let body = call.answers(head.status, &head.headers, body);
            Response::from_parts(head, Either::Left(body))
        }
        Err(error) => {
            call.target_is_gone();
            unavailable(format!("the recorded endpoint broke the connection: {error}"))
        }
    })
}

/// A call for which there is no target.
fn refuse(journal: &Journal, request: Request<Incoming>, text: &str) -> Answer {
    let (head, body) = request.into_parts();
    let (call, _) = Call::begin(journal, head.uri.path(), &head.headers, body);
    call.target_is_gone();
    unavailable(text.to_owned())
}

/// HTTP/2 asks for a host, of which there is none on a Unix socket.
fn with_authority(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder().scheme("http").authority("localhost").path_and_query(path).build().unwrap_or_default()
}

/// What a gRPC client of its own would tell the caller.
fn unavailable(text: String) -> Answer {
    Status::unavailable(text).into_http::<Empty<Bytes>>().map(Either::Right)
}

#[cfg(test)]
mod tests;
