//! One blob, as a stream of pieces: resumed where it was cut, continued at the next host where one fails.
//!
//! The stream does not verify the digest; whoever writes the pieces does, and calls [`Download::reject`] when it is
//! wrong: then everything starts again at another host.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response};

use super::ImageError;
use super::answer::transport;
use super::endpoint::{Endpoint, Request};
use super::registry::Registry;
use crate::domain::Digest;

/// A silent connection is taken for dead after this long, and the download resumed with a new one.
const SILENCE: Duration = Duration::from_secs(60);
/// How long an answer may take to end after its last byte.
const END: Duration = Duration::from_secs(5);
/// So much progress makes good for earlier failures.
const FORGIVEN: u64 = 64 << 10;

/// What [`Download::next`] brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// The bytes that follow those before.
    Bytes(Bytes),
    /// What came so far is wrong: throw it away, the next piece is the first.
    Restart,
    /// All bytes have come.
    End,
}

/// A blob on its way.
pub struct Download<'a> {
    registry: &'a Registry,
    digest: Digest,
    size: u64,
    what: String,
    /// The hosts that are left, the current one first.
    hosts: std::collections::VecDeque<&'a Endpoint>,
    open: Option<Open>,
    /// The next byte to deliver.
    offset: u64,
    failures: u32,
    /// `offset` at the last failure.
    failed_at: u64,
    tried: Vec<ImageError>,
}

struct Open {
    response: Response,
    /// Bytes to drop first: the host sent the blob from its start.
    skip: u64,
}

impl Registry {
    /// The blob's bytes from `offset` on.
    pub fn download(&self, digest: &Digest, size: u64, offset: u64) -> Result<Download<'_>, ImageError> {
        Ok(Download {
            hosts: self.candidates("pull", |c| c.pull)?.into(),
            registry: self,
            what: format!("blob {digest} of {}", self.reference.repository),
            digest: digest.clone(),
            size,
            open: None,
            offset,
            failures: 0,
            failed_at: offset,
            tried: Vec::new(),
        })
    }
}

impl Download<'_> {
    /// The next piece. An error is final, and names every host that was tried.
    pub async fn next(&mut self) -> Result<Piece, ImageError> {
        let stall = self.registry.stall;
        if stall.is_zero() {
            return self.advance().await;
        }
        match tokio::time::timeout(stall, self.advance()).await {
            Ok(piece) => piece,
            Err(_) => {
                let mut tried = std::mem::take(&mut self.tried);
                tried.push(ImageError::Stalled { what: self.what.clone(), after: stall });
                Err(self.registry.failed("fetch", tried))
            }
        }
    }

    /// The host whose bytes came last.
    pub fn host(&self) -> String {
        self.hosts.front().map_or_else(String::new, |e| e.host.to_string())
    }

    /// All bytes came, and their digest is wrong. Starts again at the next host, or gives the final error.
    pub fn reject(&mut self, found: Digest) -> Result<(), ImageError> {
        let (host, what, expected) = (self.host(), self.what.clone(), self.digest.clone());
        self.next_host(ImageError::WrongDigest { host, what, expected, found })?;
        self.offset = 0;
        Ok(())
    }

    async fn advance(&mut self) -> Result<Piece, ImageError> {
        loop {
            if self.offset == self.size {
                return self.finish().await;
            }
            let error = match self.step().await {
                Ok(Some(bytes)) if bytes.len() as u64 > self.size - self.offset => {
                    let found = self.offset + bytes.len() as u64;
                    return self.too_long(found);
                }
                Ok(Some(bytes)) => {
                    self.offset += bytes.len() as u64;
                    return Ok(Piece::Bytes(bytes));
                }
                Ok(None) => ImageError::Transport {
                    host: self.host(),
                    what: self.what.clone(),
                    reason: format!("the connection ended after {} of {} bytes", self.offset, self.size),
                },
                Err(e) => e,
            };
            self.open = None;
            self.failures = if self.offset >= self.failed_at + FORGIVEN { 1 } else { self.failures + 1 };
            self.failed_at = self.offset;
            match self.registry.retry.pause(self.failures, &error) {
                Some(pause) => {
                    tracing::debug!(what = %self.what, %error, offset = self.offset, ?pause, "download goes on");
                    tokio::time::sleep(pause).await;
                }
                None => self.next_host(error)?,
            }
        }
    }

    /// The next bytes of the open answer; opens one first if there is none.
    async fn step(&mut self) -> Result<Option<Bytes>, ImageError> {
        let Some(endpoint) = self.hosts.front() else {
            return Err(self.registry.failed("fetch", std::mem::take(&mut self.tried)));
        };
        if self.open.is_none() {
            self.open = Some(self.start(endpoint).await?);
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        loop {
            let chunk = tokio::time::timeout(SILENCE, open.response.chunk()).await;
            let chunk = chunk.map_err(|_| ImageError::Transport {
                host: endpoint.host.to_string(),
                what: self.what.clone(),
                reason: format!("no byte within {} s", SILENCE.as_secs()),
            })?;
            let chunk = chunk.map_err(|e| transport(&endpoint.host.to_string(), &self.what, e))?;
            let Some(mut bytes) = chunk else { return Ok(None) };
            let dropped = open.skip.min(bytes.len() as u64);
            open.skip -= dropped;
            let bytes = bytes.split_off(dropped as usize);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    async fn start(&self, endpoint: &Endpoint) -> Result<Open, ImageError> {
        let path = format!("blobs/{}", self.digest);
        let request = Request {
            method: Method::GET,
            repository: &self.registry.reference.repository,
            path: &path,
            accept: "*/*",
            from: self.offset,
            what: &self.what,
        };
        let response = endpoint.send(&request).await?;
        let skip = match (self.offset, response.status().as_u16()) {
            (0, _) => 0,
            (offset, 206) => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|r| r.to_str().ok()).unwrap_or_default();
                let start = range.strip_prefix("bytes ").and_then(|r| r.split('-').next()?.trim().parse::<u64>().ok());
                if start != Some(offset) {
                    let reason = format!("answered a request from byte {offset} with the range {range:?}");
                    return Err(ImageError::Protocol { host: endpoint.host.to_string(), reason });
                }
                0
            }
            (offset, _) => offset,
        };
        Ok(Open { response, skip })
    }

    /// All bytes are there; more would be wrong.
    async fn finish(&mut self) -> Result<Piece, ImageError> {
        if let Some(mut open) = self.open.take() {
            let more = tokio::time::timeout(END, open.response.chunk()).await;
            if let Ok(Ok(Some(bytes))) = more
                && !bytes.is_empty()
            {
                return self.too_long(self.size + bytes.len() as u64);
            }
        }
        Ok(Piece::End)
    }

    fn too_long(&mut self, found: u64) -> Result<Piece, ImageError> {
        let (host, what) = (self.host(), self.what.clone());
        self.next_host(ImageError::WrongSize { host, what, expected: self.size, found })?;
        self.offset = 0;
        Ok(Piece::Restart)
    }

    /// Leaves the current host behind. Fails when none is left.
    fn next_host(&mut self, error: ImageError) -> Result<(), ImageError> {
        self.open = None;
        self.failures = 0;
        self.tried.push(error);
        self.hosts.pop_front();
        if self.hosts.is_empty() {
            return Err(self.registry.failed("fetch", std::mem::take(&mut self.tried)));
        }
        Ok(())
    }
}
