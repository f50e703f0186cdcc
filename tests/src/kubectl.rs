//! A real kubectl, and what stands in for an API server between it and whoever serves its streams.
//!
//! kubectl speaks SPDY/3.1 with Go's own library, newer ones WebSocket as well. It asks an API server for the pod and
//! then for `exec`, `attach` or `portforward` of it, which an API server hands on to the kubelet, and the kubelet to
//! the runtime: bytes of the upgraded connection go through untouched. The [`Front`] answers the questions for one pod
//! and hands on the streams to an address that its maker names for each request.
//!
//! Formats: <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.20/> (discovery, Pod, the connect
//! operations of a pod).

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

/// How long a kubectl may take for anything.
const LIMIT: Duration = Duration::from_secs(30);
/// Newer kubectls try WebSocket first, unless they are told not to; older ones do not look.
const CHOICES: [&str; 2] = ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"];

/// Where the streams of a request are: `exec`, `attach` or `portforward`, and its query, to an address.
pub type Route = Arc<dyn Fn(&str, Query) -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// The parameters of a request, each of which may come more than once.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    fn of(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.all(name).iter().any(|value| value == "true" || value == "1")
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).expect("text")
}

/// An API server that knows one pod, named `pod`, with one container, `main`.
pub struct Front {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    pub async fn start(route: Route) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let route = route.clone();
                let service = service_fn(move |request| {
                    let route = route.clone();
                    async move { Ok::<_, Infallible>(answer(request, route).await) }
                });
                tokio::spawn(async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        Self { address, task }
    }

    /// kubectl, ready to run; `home` is where it keeps what it has learnt. It is killed when nobody waits for it.
    pub fn kubectl(&self, home: &Path, args: &[&str]) -> Command {
        let program = std::env::var_os("SEAM_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = Command::new(program);
        command
            .arg(format!("--server={}", self.address))
            .arg(format!("--cache-dir={}", home.join("cache").display()))
            .args(args)
            .env("HOME", home)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

async fn answer(request: Request<Incoming>, route: Route) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let resource = |name: &str| json!({"name": name, "namespaced": true, "kind": "Pod", "verbs": ["get", "create"]});
    let resources = ["pods", "pods/exec", "pods/attach", "pods/portforward"].map(resource);
    let known = match path.as_str() {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/version" => json!({"major": "1", "minor": "20", "gitVersion": "v1.20.2"}),
        "/api/v1" => json!({
            "kind": "APIResourceList", "groupVersion": "v1",
            "resources": resources,
        }),
        "/api/v1/namespaces/default/pods/pod" => json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "pod", "namespace": "default"},
            "spec": {"containers": [{"name": "main", "image": "busybox", "stdin": true}]},
            "status": {"phase": "Running"},
        }),
        path => {
            let what = path.strip_prefix("/api/v1/namespaces/default/pods/pod/").map(str::to_owned);
            return match what {
                Some(what) => hand_on(request, &what, route).await,
                None => not_found(path),
            };
        }
    };
    reply(StatusCode::OK, &known)
}

fn not_found(path: &str) -> Response<Full<Bytes>> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{path} is not known here"),
    });
    reply(StatusCode::NOT_FOUND, &status)
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header("Content-Type", "application/json");
    answer.body(Full::new(body.to_string().into())).expect("an answer")
}

/// Asks whoever serves the streams for the same upgrade, and carries the bytes between the two.
async fn hand_on(mut request: Request<Incoming>, what: &str, route: Route) -> Response<Full<Bytes>> {
    let target = route(what, Query::of(request.uri().query().unwrap_or_default())).await;
    let method = request.method().clone();
    let mut asked = crate::kubelet::reqwest_client().request(method, target);
    for (name, value) in request.headers().iter().filter(|(name, _)| *name != HOST) {
        asked = asked.header(name, value);
    }
    let answer = asked.send().await.expect("an answer from whoever serves the streams");
    let mut ours = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        ours = ours.header(name, value);
    }
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS || !answer.headers().contains_key(UPGRADE) {
        let body = answer.bytes().await.unwrap_or_default();
        return ours.body(Full::new(body)).expect("an answer");
    }
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (Ok(client), Ok(mut server)) = (client.await, answer.upgrade().await) else { return };
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut server).await;
    });
    ours.body(Full::default()).expect("an answer")
}

/// Runs exec, attach and port-forward against the front's pod, whose container answers each line of its stdin with
/// `got LINE` and serves a page that ends with `page` on port 8080.
pub async fn exercise(front: &Front, home: &Path, websockets: bool) {
    let kubectl = |args: &[&str]| {
        let mut command = front.kubectl(home, args);
        for choice in CHOICES {
            command.env(choice, websockets.to_string());
        }
        command
    };
    // The output, and the exit code as its own.
    let ran = finish(kubectl(&["exec", "pod", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]), b"").await;
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert!(ran.stdout == b"out\n" && ran.stderr.starts_with(b"err\n"), "{ran:?}");
    // Input to its end, more than any window or buffer holds, and back.
    let input: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let ran = finish(kubectl(&["exec", "-i", "pod", "--", "cat"]), &input).await;
    assert!(ran.status.success() && ran.stdout == input, "{} bytes; {:?}", ran.stdout.len(), ran.stderr);

    // Attached: what is typed now is answered now.
    let mut attached = kubectl(&["attach", "-i", "pod"]).stdin(std::process::Stdio::piped()).spawn().expect("attach");
    let mut typed = attached.stdin.take().expect("its stdin");
    let mut output = BufReader::new(attached.stdout.take().expect("its stdout")).lines();
    typed.write_all(format!("{websockets}\n").as_bytes()).await.expect("type");
    let line = tokio::time::timeout(LIMIT, output.next_line()).await.expect("in time").expect("output");
    assert_eq!(line, Some(format!("got {websockets}")));
    drop(typed);
    let ended = tokio::time::timeout(LIMIT, attached.wait()).await.expect("it is detached").expect("it ends");
    assert!(ended.success(), "{ended}");

    // A port of the pod, twice over one connection.
    let mut forwarding = kubectl(&["port-forward", "pod/pod", ":8080"]).spawn().expect("port-forward");
    let mut lines = BufReader::new(forwarding.stdout.take().expect("its stdout")).lines();
    let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("in time").expect("output");
    let line = line.unwrap_or_else(|| panic!("kubectl port-forward has ended"));
    let local = line.split(" -> ").next().and_then(|front| front.rsplit("from ").next()).expect("an address");
    for _ in 0..2 {
        let mut client = tokio::net::TcpStream::connect(local).await.expect("connect to the forwarded port");
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("ask");
        let mut page = String::new();
        tokio::time::timeout(LIMIT, client.read_to_string(&mut page)).await.expect("in time").expect("a page");
        assert!(page.ends_with("page\n"), "{page}");
    }
    forwarding.kill().await.expect("end it");
}

/// Runs a command to its end, with this as its input.
async fn finish(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("run kubectl");
    let mut stdin = child.stdin.take().expect("its stdin");
    let input = input.to_owned();
    let typed = tokio::spawn(async move { stdin.write_all(&input).await });
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends in time").expect("output");
    let _ = typed.await;
    output
}
