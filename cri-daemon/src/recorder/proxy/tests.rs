//! A service that the recorder knows nothing of goes through it, with its streams, its errors and its end.

use std::fs::OpenOptions;
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::super::format::{Call as Told, Cut, Header, Line};
use super::super::journal::Total;
use super::super::lines::Lines;
use super::*;

struct Between {
    dir: tempfile::TempDir,
    end: CancellationToken,
    target: Option<Runtime>,
    serving: JoinHandle<()>,
    thread: std::thread::JoinHandle<Total>,
}

/// A health service that can be killed: its tasks end with its runtime.
fn health(socket: &Path) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let socket = socket.to_owned();
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(async move {
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("known", tonic_health::ServingStatus::Serving).await;
        let incoming = authority::incoming(UnixListener::from_std(listener).unwrap());
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    runtime
}

/// A health service, and a recorder in front of it.
async fn between(unknown: bool) -> Between {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let end = CancellationToken::new();
    let target = health(&at("target"));
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(at("file")).unwrap();
    let (journal, thread) = Journal::begin(file, &at("file"), Header::default(), Lines::new(unknown)).unwrap();
    let listener = UnixListener::bind(at("listen")).unwrap();
    let serving = tokio::spawn(serve(listener, at("target"), journal, end.clone().cancelled_owned()));
    Between { dir, end, target: Some(target), serving, thread }
}

impl Between {
    fn client(&self) -> HealthClient<tonic::transport::Channel> {
        HealthClient::new(shared_proto::transport::unix(self.dir.path().join("listen")))
    }

    /// Ends the recording; its calls.
    async fn calls(mut self) -> Vec<Told> {
        self.end.cancel();
        self.serving.await.unwrap();
        self.target.take().unwrap().shutdown_background();
        tokio::task::spawn_blocking(|| self.thread.join().unwrap()).await.unwrap();
        let text = std::fs::read_to_string(self.dir.path().join("file")).unwrap();
        let line = |line| serde_json::from_str(line).unwrap();
        let calls =
            text.lines().map(line).filter_map(|line| if let Line::Call(call) = line { Some(call) } else { None });
        calls.collect()
    }
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn calls_streams_and_errors_go_through() {
    let between = between(false).await;
    let mut client = between.client();
    let answer = client.check(of("known")).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    let refused = client.check(of("other")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "service not registered"));
    let mut watch = client.watch(of("known")).await.unwrap().into_inner();
    watch.next().await.unwrap().unwrap();
    drop(watch);
    // The cancellation has to come here first.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let calls = between.calls().await;
    let told: Vec<_> = calls.iter().map(|call| (call.code.as_deref(), call.cut, call.responses)).collect();
    assert_eq!(told, [(Some("OK"), None, 1), (Some("NOT_FOUND"), None, 0), (None, Some(Cut::Client), 1)]);
    assert_eq!(
        (calls[0].request_bytes, calls[0].response_bytes, calls[1].message.as_str()),
        (7, 2, "service not registered")
    );
    assert!(calls[0].took_ns > 0 && calls[0].start_ns < calls[1].start_ns);
    assert!(calls.iter().all(|call| call.request.base64.is_none()), "what can't be redacted is not kept");
    assert!(calls[0].request.withheld.is_some());
}

#[tokio::test]
async fn a_target_that_goes_away_takes_its_clients_along_and_comes_back_for_them() {
    let mut between = between(true).await;
    let mut client = between.client();
    let mut watch = client.watch(of("known")).await.unwrap().into_inner();
    watch.next().await.unwrap().unwrap();
    between.target.take().unwrap().shutdown_background();
    let broken = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("it is told at once");
    assert!(broken.is_none_or(|message| message.is_err()));
    let gone = client.check(of("known")).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::Unavailable, "{gone:?}");

    std::fs::remove_file(between.dir.path().join("target")).unwrap();
    between.target = Some(health(&between.dir.path().join("target")));
    client.check(of("")).await.expect("the next target serves the same client");
    let open = client.watch(of("")).await.unwrap();

    let calls = between.calls().await;
    drop(open);
    let first = &calls[0];
    assert_eq!((first.code.as_deref(), first.cut), (None, Some(Cut::Target)), "{calls:?}");
    assert_eq!(first.request.base64.as_deref(), Some("CgVrbm93bg=="), "the operator asked for it");
    assert_eq!(calls.last().unwrap().cut, Some(Cut::Recorder), "{calls:?}");
}
