//! A registry that serves images from memory and fails in the ways that registries fail, and remembers who asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::image::{Blob, Image};

/// What goes wrong from now on.
#[derive(Debug, Clone, Default)]
pub enum Fault {
    #[default]
    None,
    /// Layers have other bytes than their digest says, of the right length.
    WrongLayers,
    /// The manifest asked for by tag announces a digest that it does not have.
    WrongManifest,
    /// The connection breaks after so many bytes of a layer; the next `times` times.
    Cut { after: usize, times: usize },
    /// A layer's bytes stop coming, the connection stays.
    Stall,
    /// This status for everything below `/v2/NAME/`, the next `times` times.
    Status { code: u16, times: usize },
    /// Basic authentication.
    Basic { user: &'static str, password: &'static str },
    /// A token from `/token`, for those who authenticate there; everybody, if there is no user.
    Token { user: Option<(&'static str, &'static str)> },
    /// A token from `/token`, for those who post this refresh token there.
    Refresh { token: &'static str },
    /// No token is given, but one who has it gets in.
    Bearer,
    /// Each layer takes half a second.
    Slow,
}

#[derive(Default)]
struct State {
    fault: Fault,
    /// Manifests under `NAME:TAG` and `NAME@DIGEST`, with their media type.
    manifests: BTreeMap<String, (String, Blob)>,
    layers: BTreeMap<String, Bytes>,
    configs: BTreeMap<String, Bytes>,
    requests: Vec<String>,
    /// Layers under way, and the most that there were at a time.
    under_way: (usize, usize),
}

/// A running registry; see the [module](self).
pub struct Faulty {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

type Body = BoxBody<Bytes, std::io::Error>;

/// The token that opens what [`Fault::Token`] and its like close.
pub const TOKEN: &str = "a-token-of-trust";

impl Faulty {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind a port on loopback");
        let address = listener.local_addr().expect("read the port");
        let state = Arc::new(Mutex::new(State::default()));
        let served = state.clone();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let state = served.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(|request: Request<Incoming>| async {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        Ok::<_, Infallible>(answer(&state, address, &Request::from_parts(head, body)))
                    });
                    // Fails when the client, or a fault, breaks the connection.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, state, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn add(&self, repository: &str, tag: &str, image: &Image) {
        let mut state = self.state.lock().expect("lock");
        let manifest = (image.format.manifest().to_owned(), image.manifest.clone());
        state.manifests.insert(format!("{repository}:{tag}"), manifest.clone());
        state.manifests.insert(format!("{repository}@{}", image.manifest.digest), manifest);
        state.configs.insert(image.config.digest.clone(), image.config.data.clone().into());
        for layer in &image.layers {
            state.layers.insert(layer.digest.clone(), layer.data.clone().into());
        }
    }

    /// Answers this text, whatever it is, to who asks for a manifest.
    pub fn add_manifest(&self, repository: &str, tag: &str, media_type: &str, text: Vec<u8>) {
        let (mut state, blob) = (self.state.lock().expect("lock"), Blob::new(text));
        for key in [format!("{repository}:{tag}"), format!("{repository}@{}", blob.digest)] {
            state.manifests.insert(key, (media_type.to_owned(), blob.clone()));
        }
    }

    /// The most layers that were sent at a time since the last [`Faulty::fail`].
    pub fn most_at_a_time(&self) -> usize {
        self.state.lock().expect("lock").under_way.1
    }

    /// From now on this goes wrong. Forgets the requests so far.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.state.lock().expect("lock");
        state.fault = fault;
        state.requests.clear();
        state.under_way.1 = state.under_way.0;
    }

    /// The requests since the last [`Faulty::fail`]: method, path, range.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().expect("lock").requests.clone()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into()).map_err(|never| match never {}).boxed()
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(text.to_owned()));
    *response.status_mut() = status;
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    plain(status, &serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Counts a fault down; whether it strikes this time.
fn strikes(times: &mut usize) -> bool {
    let strikes = *times > 0;
    *times = times.saturating_sub(1);
    strikes
}

fn answer(shared: &Arc<Mutex<State>>, address: SocketAddr, request: &Request<Bytes>) -> Response<Body> {
    let mut state = shared.lock().expect("lock");
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (range, authorization) = (text(header::RANGE), text(header::AUTHORIZATION));
    let path = request.uri().path().to_owned();
    state.requests.push(format!("{} {path} {range}", request.method()).trim_end().to_owned());

    if path == "/token" {
        let allowed = match state.fault {
            Fault::Token { user: Some((user, password)) } => authorization == basic(user, password),
            Fault::Refresh { token } => {
                let form = String::from_utf8_lossy(request.body());
                request.method() == hyper::Method::POST
                    && form.split('&').any(|f| f == format!("refresh_token={token}"))
            }
            Fault::Bearer => false,
            _ => true,
        };
        return match allowed {
            true => plain(StatusCode::OK, &serde_json::json!({"token": TOKEN, "expires_in": 300}).to_string()),
            false => error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "wrong password"),
        };
    }
    let challenge = match &state.fault {
        Fault::Basic { user, password } if authorization != basic(user, password) => {
            Some("Basic realm=\"e2e\"".to_owned())
        }
        Fault::Token { .. } | Fault::Refresh { .. } | Fault::Bearer if authorization != format!("Bearer {TOKEN}") => {
            Some(format!("Bearer realm=\"http://{address}/token\",service=\"e2e\",scope=\"repository:any:pull\""))
        }
        _ => None,
    };
    if let Fault::Status { code, times } = &mut state.fault
        && path != "/v2/"
        && strikes(times)
    {
        let status = StatusCode::from_u16(*code).expect("a status");
        let mut response = error(status, "FAULT", "asked for a failure");
        if *code == 429 {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        return response;
    }
    if let Some(challenge) = challenge {
        let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().expect("a header"));
        return response;
    }
    if path == "/v2/" {
        return plain(StatusCode::OK, "{}");
    }
    let name = path.trim_start_matches("/v2/");
    let head = request.method() == hyper::Method::HEAD;
    if let Some((repository, reference)) = name.split_once("/manifests/") {
        let by_digest = reference.contains(':');
        let key = format!("{repository}{}{reference}", if by_digest { '@' } else { ':' });
        let Some((media_type, blob)) = state.manifests.get(&key) else {
            return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let wrong = matches!(state.fault, Fault::WrongManifest);
        let digest = if wrong { crate::image::digest(b"something else") } else { blob.digest.clone() };
        let data = Bytes::from(blob.data.clone());
        let mut response = Response::new(if head { full("") } else { full(data.clone()) });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, media_type.parse().expect("a media type"));
        headers.insert("docker-content-digest", digest.parse().expect("a digest"));
        headers.insert(header::CONTENT_LENGTH, data.len().into());
        return response;
    }
    if let Some((_, digest)) = name.split_once("/blobs/") {
        if let Some(config) = state.configs.get(digest) {
            return Response::new(full(config.clone()));
        }
        if let Some(layer) = state.layers.get(digest).cloned() {
            if matches!(state.fault, Fault::Slow) {
                state.under_way.0 += 1;
                state.under_way.1 = state.under_way.1.max(state.under_way.0);
                return slow(shared.clone(), layer);
            }
            return blob(&mut state.fault, layer, &range);
        }
    }
    error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")
}

/// A whole layer, of which the end takes its time.
fn slow(state: Arc<Mutex<State>>, data: Bytes) -> Response<Body> {
    let length = data.len();
    let (first, last) = (data.slice(..length / 2), data.slice(length / 2..));
    let end = futures::stream::once(async move {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        state.lock().expect("lock").under_way.0 -= 1;
        Ok(Frame::data(last))
    });
    let body = futures::stream::iter([Ok(Frame::data(first))]).chain(end);
    let mut response = Response::new(BoxBody::new(StreamBody::new(body)));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

/// A layer, from where the range begins, with whatever is wrong with it.
fn blob(fault: &mut Fault, mut data: Bytes, range: &str) -> Response<Body> {
    let total = data.len();
    let start: usize = range.strip_prefix("bytes=").and_then(|r| r.split('-').next()?.parse().ok()).unwrap_or(0);
    if matches!(fault, Fault::WrongLayers) {
        data = data.iter().map(|b| b ^ 1).collect::<Vec<u8>>().into();
    }
    let data = data.slice(start.min(total)..);
    let left = data.len();
    let body = match fault {
        Fault::Cut { after, times } if left > *after && *times > 0 => {
            *times -= 1;
            // In pieces and slowly: an error right behind the bytes would overtake them.
            let pieces: Vec<Bytes> = data.slice(..*after).chunks(16 << 10).map(Bytes::copy_from_slice).collect();
            let bytes = futures::stream::iter(pieces).then(|piece| async {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                Ok(Frame::data(piece))
            });
            let cut = futures::stream::once(async {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                Err(std::io::Error::other("cut on purpose"))
            });
            BoxBody::new(StreamBody::new(bytes.chain(cut)))
        }
        Fault::Stall => {
            let some = futures::stream::iter([Ok(Frame::data(data.slice(..left / 2)))]);
            BoxBody::new(StreamBody::new(some.chain(futures::stream::pending())))
        }
        _ => full(data),
    };
    let mut response = Response::new(body);
    if start > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {start}-{}/{total}", total - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, value.parse().expect("a range"));
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, left.into());
    response
}
