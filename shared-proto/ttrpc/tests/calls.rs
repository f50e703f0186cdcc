//! Client and server against each other, on a runtime of one thread, as a shim uses them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use shared_proto::ttrpc::task::{ConnectRequest, ConnectResponse};
use shared_proto::{Code, Error};
use shared_ttrpc::{Answer, CallError, Client, Context, Options, Server, Service, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

#[derive(Default)]
struct Echo {
    finished: AtomicUsize,
}

impl Service for Echo {
    fn call(&self, cx: Context, method: &str, payload: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let method = method.to_owned();
        Box::pin(async move {
            let request: ConnectRequest = decode(payload)?;
            match method.as_str() {
                "Echo" => {}
                // Later requests are answered first.
                "Slow" => tokio::time::sleep(Duration::from_millis(300)).await,
                "Never" => std::future::pending().await,
                "Panic" => panic!("on purpose"),
                "Large" => return Ok(vec![0; shared_ttrpc::frame::MAX_MESSAGE + 1]),
                "Refuse" => return Err(Error::not_found(format!("no {}", request.id))),
                _ => return Err(Error::unimplemented(method)),
            }
            self.finished.fetch_add(1, Ordering::SeqCst);
            encode(&ConnectResponse {
                version: format!("{}/{}", cx.namespace().unwrap_or("-"), request.id),
                ..Default::default()
            })
        })
    }
}

struct Fixture {
    client: Client,
    echo: Arc<Echo>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let echo = Arc::new(Echo::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new().service("t.Echo", echo.clone());
    let served = tokio::spawn(server.serve(listener, async {
        let _ = stopped.await;
    }));
    Fixture { client: Client::connect(&path).await.unwrap(), echo, stop, served, path, _dir: dir }
}

async fn call(client: &Client, method: &str, id: &str, limit: Duration) -> Result<String, CallError> {
    let request = ConnectRequest { id: id.into() };
    let answer: ConnectResponse = client.call("t.Echo", method, &request, Options::new("ns", limit)).await?;
    Ok(answer.version)
}

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn calls_share_a_connection() {
    let f = fixture().await;
    let slow = call(&f.client, "Slow", "s", LIMIT);
    let quick = futures::future::join_all((0..500).map(|n| {
        let client = f.client.clone();
        async move { call(&client, "Echo", &n.to_string(), LIMIT).await.unwrap() }
    }));
    let started = std::time::Instant::now();
    let quick = async {
        let answers = quick.await;
        assert!(started.elapsed() < Duration::from_millis(300), "a slow call delayed others");
        answers
    };
    let (slow, quick) = tokio::join!(slow, quick);
    assert_eq!(slow.unwrap(), "ns/s");
    assert!(quick.iter().enumerate().all(|(n, answer)| *answer == format!("ns/{n}")));
}

#[tokio::test]
async fn errors_keep_their_kind() {
    let f = fixture().await;
    let refused = call(&f.client, "Refuse", "x", LIMIT).await.unwrap_err();
    assert_eq!(refused, CallError::Status(Error::not_found("no x")));
    let late = call(&f.client, "Never", "x", Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(late, CallError::Deadline { .. }), "{late}");
    let code = |e: CallError| Error::from(e).code;
    assert_eq!(code(call(&f.client, "Nope", "x", LIMIT).await.unwrap_err()), Code::Unimplemented);
    assert_eq!(code(call(&f.client, "Panic", "x", LIMIT).await.unwrap_err()), Code::Internal);
    assert_eq!(code(call(&f.client, "Large", "x", LIMIT).await.unwrap_err()), Code::ResourceExhausted);
    let big = "x".repeat(shared_ttrpc::frame::MAX_MESSAGE);
    assert!(matches!(call(&f.client, "Echo", &big, LIMIT).await.unwrap_err(), CallError::TooLarge { .. }));
    let nobody: Result<ConnectResponse, _> =
        f.client.call("t.Nobody", "Echo", &ConnectRequest::default(), Options::new("ns", LIMIT)).await;
    assert_eq!(code(nobody.unwrap_err()), Code::Unimplemented);
    // After all that the connection is as good as new.
    assert_eq!(call(&f.client, "Echo", "x", LIMIT).await.unwrap(), "ns/x");
}

#[tokio::test]
async fn shutdown_answers_what_has_begun() {
    let f = fixture().await;
    let client = f.client.clone();
    let slow = tokio::spawn(async move { call(&client, "Slow", "s", LIMIT).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    f.stop.send(()).unwrap();
    f.served.await.unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), "ns/s");
    tokio::time::timeout(LIMIT, f.client.closed()).await.unwrap();
    assert!(matches!(call(&f.client, "Echo", "x", LIMIT).await.unwrap_err(), CallError::Closed { .. }));
    assert!(f.client.is_closed());
}

#[tokio::test]
async fn a_disconnect_cancels_no_handler_and_wakes_every_caller() {
    let f = fixture().await;
    let dropped = Client::connect(&f.path).await.unwrap();
    let call_slow = call(&dropped, "Slow", "s", LIMIT);
    assert!(tokio::time::timeout(Duration::from_millis(50), call_slow).await.is_err());
    drop(dropped);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(f.echo.finished.load(Ordering::SeqCst), 1);

    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = Client::new(ours);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "Never", "x", LIMIT).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(theirs);
    assert!(matches!(waiting.await.unwrap().unwrap_err(), CallError::Closed { .. }));
    client.closed().await;
}

#[tokio::test]
async fn the_bytes_are_those_of_the_protocol() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::new(ours);
    let calling = tokio::spawn(async move {
        let options = Options { deadline: None, namespace: Some("n") };
        client.call::<ConnectResponse>("s", "m", &ConnectRequest { id: "i".into() }, options).await
    });
    let mut header = [0; 10];
    theirs.read_exact(&mut header).await.unwrap();
    let mut data = vec![0; header[3] as usize];
    theirs.read_exact(&mut data).await.unwrap();
    assert_eq!(header, [0, 0, 0, data.len() as u8, 0, 0, 0, 1, 1, 0]);
    let mut expected =
        b"\x0a\x01s\x12\x01m\x1a\x03\x0a\x01i\x2a\x1f\x0a\x1acontainerd-namespace-ttrpc\x12\x01n".to_vec();
    assert_eq!(data, expected);
    // A stream is refused; an answer with a status of 0 is a success.
    expected.clear();
    expected.extend_from_slice(b"\x00\x00\x00\x06\x00\x00\x00\x01\x02\x00\x0a\x00\x12\x02\x08\x05");
    theirs.write_all(&expected).await.unwrap();
    assert_eq!(calling.await.unwrap().unwrap().shim_pid, 5);
}

#[tokio::test]
async fn a_request_for_a_stream_is_refused() {
    let f = fixture().await;
    let mut raw = UnixStream::connect(&f.path).await.unwrap();
    raw.write_all(b"\x00\x00\x00\x0e\x00\x00\x00\x01\x01\x02\x0a\x06t.Echo\x12\x04Echo").await.unwrap();
    let mut header = [0; 10];
    raw.read_exact(&mut header).await.unwrap();
    assert_eq!(header[4..], [0, 0, 0, 1, 2, 0]);
    let mut data = vec![0; header[3] as usize];
    raw.read_exact(&mut data).await.unwrap();
    assert_eq!(data[2..4], [0x08, 12], "Unimplemented");
}
