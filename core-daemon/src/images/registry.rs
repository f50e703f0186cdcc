//! All hosts of a registry, for one repository: which of them answers first, retries, and downloads that go on where
//! they were cut.
//!
//! Hosts are tried in the configured order; one that could not be reached is tried last from then on. What may pass
//! (cut connections, 408, 429, 5xx) is tried again at the same host, with growing pauses; `Retry-After` is obeyed up
//! to [`Retry::longest`]. Everything else goes on to the next host at once. When nobody is left, the error names every
//! host with its answer.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};

use super::answer::read_all;
use super::auth::Credentials;
use super::endpoint::{Endpoint, Request};
use super::hosts::{Capabilities, Host};
use super::http::Clients;
use super::manifest::{self, ACCEPT, MAX_DOCUMENT};
use super::{ImageError, Reference};
use crate::domain::Digest;

/// How often and how long after a failure that may pass.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Requests in a row that may fail; progress starts the count again.
    pub attempts: u32,
    /// The first pause; each one doubles the last.
    pub pause: Duration,
    /// The longest pause that a host may ask for. One that asks for more is given up.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_millis(250), longest: Duration::from_secs(60) }
    }
}

impl Retry {
    /// How long to wait before the attempt after number `failed` (counted from 1), or `None`: give up.
    pub fn pause(&self, failed: u32, error: &ImageError) -> Option<Duration> {
        if failed >= self.attempts || !error.is_passing() {
            return None;
        }
        if let ImageError::TooManyRequests { retry_after: Some(asked), .. } = error {
            return (*asked <= self.longest).then_some(*asked);
        }
        // Up to half of the pause more, so that many that failed together don't come back together.
        let pause = self.pause * 2u32.saturating_pow(failed - 1).min(32);
        let dice = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        Some(pause + pause.mul_f64(f64::from(dice % 1000) / 2000.0))
    }
}

/// What a reference points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    /// The document itself, when it had to be read to know the rest.
    pub body: Option<Vec<u8>>,
}

/// A registry, as seen from one pull.
pub struct Registry {
    pub reference: Reference,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) retry: Retry,
    /// After how long without a byte a download is given up. Zero = never.
    pub(super) stall: Duration,
}

impl Registry {
    /// `headers` go to every host.
    pub fn new(
        reference: Reference,
        hosts: Vec<Host>,
        clients: &Arc<Clients>,
        credentials: &Arc<dyn Credentials>,
        headers: &HeaderMap,
    ) -> Self {
        let endpoint = |host| Endpoint::new(host, clients.clone(), credentials.clone(), headers.clone());
        let endpoints = hosts.into_iter().map(endpoint).collect();
        Self { reference, endpoints, retry: Retry::default(), stall: Duration::from_secs(300) }
    }

    /// The same with other limits.
    pub fn with_limits(self, retry: Retry, stall: Duration) -> Self {
        Self { retry, stall, ..self }
    }

    /// The hosts that may be asked, best first.
    pub(super) fn candidates(
        &self,
        what: &'static str,
        may: impl Fn(&Capabilities) -> bool,
    ) -> Result<Vec<&Endpoint>, ImageError> {
        let mut able: Vec<_> = self.endpoints.iter().filter(|e| may(&e.host.capabilities)).collect();
        able.sort_by_key(|e| e.is_down());
        if able.is_empty() {
            return Err(ImageError::NoHost { registry: self.reference.registry.clone(), what });
        }
        Ok(able)
    }

    /// Asks what the reference points at.
    pub async fn resolve(&self) -> Result<Resolved, ImageError> {
        let object = self.reference.object().to_owned();
        let what = format!("manifest {object:?} of {}", self.reference.repository);
        let by_digest = self.reference.digest.is_some();
        let able = self.candidates("resolve tags", |c| if by_digest { c.pull } else { c.resolve })?;
        let mut tried = Vec::new();
        for endpoint in able {
            match self.insist(&what, || self.resolve_at(endpoint, &object, &what)).await {
                Ok(found) => return Ok(found),
                Err(e) => tried.push(e),
            }
        }
        Err(self.failed("resolve", tried))
    }

    async fn resolve_at(&self, endpoint: &Endpoint, object: &str, what: &str) -> Result<Resolved, ImageError> {
        let path = format!("manifests/{object}");
        let head = endpoint.send(&self.request(Method::HEAD, &path, ACCEPT, what)).await;
        let known = match head {
            Ok(response) => self.described(response.headers()),
            // Some don't know HEAD. What GET says is then the answer.
            Err(ImageError::Status { status: 400 | 405 | 501, .. }) => None,
            Err(e) => return Err(e),
        };
        let found = match known {
            Some(found) => found,
            None => {
                let response = endpoint.send(&self.request(Method::GET, &path, ACCEPT, what)).await?;
                let media_type = media_type(response.headers());
                let host = endpoint.host.to_string();
                let body = read_all(response, MAX_DOCUMENT as usize, what, &host).await?;
                let media_type = media_type
                    .filter(|m| manifest::is_index(m) || manifest::is_manifest(m) || manifest::is_schema1(m))
                    .or_else(|| manifest::sniff(&body).map(str::to_owned));
                let media_type = media_type.ok_or_else(|| ImageError::Malformed {
                    what: format!("{what} from {host}"),
                    reason: "neither a manifest nor an index".into(),
                })?;
                Resolved { media_type, digest: Digest::of(&body), size: body.len() as u64, body: Some(body) }
            }
        };
        if let Some(expected) = self.reference.digest.as_ref().filter(|wanted| **wanted != found.digest) {
            let (host, what) = (endpoint.host.to_string(), what.to_owned());
            return Err(ImageError::WrongDigest { host, what, expected: expected.clone(), found: found.digest });
        }
        if manifest::is_schema1(&found.media_type) {
            return Err(ImageError::Schema1 { reference: self.reference.to_string() });
        }
        if found.size > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { what: what.to_owned(), size: found.size, limit: MAX_DOCUMENT });
        }
        Ok(found)
    }

    /// What the head of an answer says, if it says all.
    fn described(&self, headers: &HeaderMap) -> Option<Resolved> {
        let media_type = media_type(headers)
            .filter(|m| manifest::is_index(m) || manifest::is_manifest(m) || manifest::is_schema1(m))?;
        let digest = Digest::parse(headers.get("docker-content-digest")?.to_str().ok()?).ok()?;
        let size = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok().filter(|size| *size > 0)?;
        Some(Resolved { media_type, digest, size, body: None })
    }

    /// A manifest or an index, verified.
    pub async fn manifest(&self, media_type: &str, digest: &Digest, size: u64) -> Result<Vec<u8>, ImageError> {
        let what = format!("manifest {digest} of {}", self.reference.repository);
        if size > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { what, size, limit: MAX_DOCUMENT });
        }
        let accept = format!("{media_type}, */*");
        let mut tried = Vec::new();
        for endpoint in self.candidates("pull", |c| c.pull)? {
            match self.insist(&what, || self.manifest_at(endpoint, &accept, digest, size, &what)).await {
                Ok(bytes) => return Ok(bytes),
                Err(e) => tried.push(e),
            }
        }
        Err(self.failed("fetch", tried))
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        accept: &str,
        digest: &Digest,
        size: u64,
        what: &str,
    ) -> Result<Vec<u8>, ImageError> {
        let path = format!("manifests/{digest}");
        let response = endpoint.send(&self.request(Method::GET, &path, accept, what)).await?;
        let host = endpoint.host.to_string();
        let bytes = read_all(response, MAX_DOCUMENT as usize, what, &host).await?;
        let (what, found) = (what.to_owned(), Digest::of(&bytes));
        if found != *digest {
            return Err(ImageError::WrongDigest { host, what, expected: digest.clone(), found });
        }
        if bytes.len() as u64 != size {
            return Err(ImageError::WrongSize { host, what, expected: size, found: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    fn request<'a>(&'a self, method: Method, path: &'a str, accept: &'a str, what: &'a str) -> Request<'a> {
        Request { method, repository: &self.reference.repository, path, accept, from: 0, what }
    }

    /// Tries until it succeeds, fails for good, has failed too often, or took too long.
    async fn insist<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, ImageError>>,
    {
        let tries = async {
            let mut failed = 0;
            loop {
                let error = match attempt().await {
                    Ok(value) => return Ok(value),
                    Err(e) => e,
                };
                failed += 1;
                let Some(pause) = self.retry.pause(failed, &error) else { return Err(error) };
                tracing::debug!(reference = %self.reference, %error, ?pause, "trying again");
                tokio::time::sleep(pause).await;
            }
        };
        if self.stall.is_zero() {
            return tries.await;
        }
        let stalled = |_| ImageError::Stalled { what: what.to_owned(), after: self.stall };
        tokio::time::timeout(self.stall, tries).await.map_err(stalled)?
    }

    pub(super) fn failed(&self, what: &str, mut tried: Vec<ImageError>) -> ImageError {
        match (tried.len(), tried.pop()) {
            (1, Some(ImageError::Schema1 { reference })) => ImageError::Schema1 { reference },
            (_, last) => {
                tried.extend(last);
                ImageError::Hosts { what: what.to_owned(), tried }
            }
        }
    }
}

/// The media type without parameters.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}
