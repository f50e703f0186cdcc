//! One host in one pull: sends a request, follows redirects, answers challenges, and turns every answer that is no
//! success into an [`ImageError`] that names the host.
//!
//! What is secret stays with the host: configured headers and credentials are not sent on to where it redirects to.
//!
//! Limits: [`MAX_REDIRECTS`] redirects; an answer must begin within [`RESPONSE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, Url};
use tokio::sync::OnceCell;

use super::ImageError;
use super::answer::{detail, status_error, transport};
use super::auth::{Authorizer, Credentials, Refused};
use super::hosts::{Host, authority, is_loopback};
use super::http::Clients;

const MAX_REDIRECTS: usize = 10;
/// How long the head of an answer may take.
const RESPONSE: Duration = Duration::from_secs(30);
/// Requests with which one challenge after the other is answered.
const MAX_CHALLENGES: u32 = 4;

/// A host, with what this pull knows about it.
pub struct Endpoint {
    pub host: Host,
    clients: Arc<Clients>,
    client: OnceCell<Client>,
    authorizer: Authorizer,
    credentials: Arc<dyn Credentials>,
    /// Sent with every request, besides the host's own.
    headers: HeaderMap,
    /// Could not be reached: tried last from now on.
    down: AtomicBool,
}

/// What to ask for.
pub struct Request<'a> {
    pub method: Method,
    /// For example `library/busybox`.
    pub repository: &'a str,
    /// Below the repository, for example `manifests/latest`.
    pub path: &'a str,
    pub accept: &'a str,
    /// The first byte wanted; 0 = all.
    pub from: u64,
    /// What this is, for messages: `manifest "latest" of a/b`.
    pub what: &'a str,
}

impl Endpoint {
    pub fn new(host: Host, clients: Arc<Clients>, credentials: Arc<dyn Credentials>, headers: HeaderMap) -> Self {
        Self {
            host,
            clients,
            client: OnceCell::new(),
            authorizer: Authorizer::default(),
            credentials,
            headers,
            down: AtomicBool::new(false),
        }
    }

    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// A successful answer (2xx), or why there is none.
    pub async fn send(&self, request: &Request<'_>) -> Result<Response, ImageError> {
        let client = self.client().await?;
        let mut url = self.host.base.clone();
        url.set_path(&format!("{}/{}/{}", url.path().trim_end_matches('/'), request.repository, request.path));
        if let Some(registry) = &self.host.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        let scope = format!("repository:{}:pull", request.repository);
        let mut authorization = self.authorizer.header().await;
        for before in 0..MAX_CHALLENGES {
            let (response, at_home) = self.follow(&client, url.clone(), request, authorization.clone()).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status.as_u16() != 401 || !at_home {
                return Err(status_error(response, &self.host.to_string(), request.what).await);
            }
            let texts = |h: &HeaderValue| h.to_str().ok().map(str::to_owned);
            let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(texts).collect();
            let refused = Refused {
                host: &self.host.authority(),
                secure: self.host.base.scheme() == "https",
                sent: authorization.take(),
                challenges,
                scope: &scope,
                detail: detail(response).await,
                before,
            };
            authorization = Some(self.authorizer.answer(&client, &*self.credentials, refused).await?);
        }
        Err(ImageError::Protocol { host: self.host.to_string(), reason: "asks for credentials again and again".into() })
    }

    async fn client(&self) -> Result<Client, ImageError> {
        let make = || async {
            let (clients, host) = (self.clients.clone(), self.host.clone());
            shared_sys::blocking(move || clients.of(&host)).await
        };
        self.client.get_or_try_init(make).await.cloned()
    }

    /// Sends the request, and again to wherever it is redirected. Says whether the answer is the host's own.
    async fn follow(
        &self,
        client: &Client,
        mut url: Url,
        request: &Request<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<(Response, bool), ImageError> {
        let protocol = |reason: &str| ImageError::Protocol { host: self.host.to_string(), reason: reason.to_owned() };
        let mut at_home = true;
        for _ in 0..=MAX_REDIRECTS {
            let response =
                self.once(client, &url, request, authorization.as_ref().filter(|_| at_home), at_home).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, at_home));
            }
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let location = location.ok_or_else(|| protocol("redirects without saying where to"))?;
            // The location may hold a signature: it is not told.
            url = url.join(location).map_err(|e| protocol(&format!("redirects to what is no URL: {e}")))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(protocol(&format!("redirects to {}, which is not HTTP", url.scheme())));
            }
            at_home = url.scheme() == self.host.base.scheme() && authority(&url) == self.host.authority();
        }
        Err(protocol("redirects in circles"))
    }

    async fn once(
        &self,
        client: &Client,
        url: &Url,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
        at_home: bool,
    ) -> Result<Response, ImageError> {
        let elsewhere;
        let mut client = client;
        let local = url.host_str().is_some_and(is_loopback);
        if !at_home && local != self.host.base.host_str().is_some_and(is_loopback) {
            // A client for this machine knows no proxy and no roots; one for the world uses both.
            let unusable = |reason| ImageError::Client { host: authority(url), reason };
            elsewhere = self.clients.shared(local).map_err(unusable)?;
            client = &elsewhere;
        }
        let mut headers = HeaderMap::new();
        if at_home {
            headers.extend(self.headers.clone());
            headers.extend(self.host.headers.clone());
            headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        }
        let mut builder = client.request(request.method.clone(), url.clone()).header(ACCEPT, request.accept);
        if request.from > 0 {
            builder = builder.header(RANGE, format!("bytes={}-", request.from));
        }
        // Replaces what was set before.
        let builder = builder.headers(headers);
        let server = if at_home { self.host.to_string() } else { format!("{} (for {})", authority(url), self.host) };
        match tokio::time::timeout(RESPONSE, builder.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                let error = transport(&server, request.what, e);
                if at_home && matches!(error, ImageError::Unreachable { .. }) {
                    self.down.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
            Err(_) => Err(ImageError::Transport {
                host: server,
                what: request.what.to_owned(),
                reason: format!("no answer within {} s", RESPONSE.as_secs()),
            }),
        }
    }
}
