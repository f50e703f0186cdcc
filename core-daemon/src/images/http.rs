//! HTTP clients: one for the world, one for this machine, and one for each host that is configured specially.
//!
//! Redirects are not followed here but by [`super::endpoint`], which knows what may be sent where. A client for this
//! machine uses no proxy and needs no trusted roots, so that a node without any can still use a local registry.

use std::error::Error as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity};

use super::ImageError;
use super::hosts::{Host, Tls, is_loopback};

/// How long to wait for a connection when the configuration says nothing.
const DIAL: Duration = Duration::from_secs(30);

const USER_AGENT: &str = concat!("core-daemon/", env!("CARGO_PKG_VERSION"));

/// The clients that pulls share.
#[derive(Default)]
pub struct Clients {
    world: OnceLock<Client>,
    local: OnceLock<Client>,
}

impl Clients {
    /// The client for `host`. Reads certificates: blocking.
    pub fn of(&self, host: &Host) -> Result<Client, ImageError> {
        let local = host.base.host_str().is_some_and(is_loopback);
        if host.tls == Tls::default() && host.dial_timeout.is_none() {
            return self.shared(local).map_err(|reason| ImageError::Client { host: host.to_string(), reason });
        }
        let mut builder = builder(local).connect_timeout(host.dial_timeout.unwrap_or(DIAL));
        builder = trust(builder, &host.tls, local && host.base.scheme() == "http")?;
        builder.build().map_err(|e| ImageError::Client { host: host.to_string(), reason: describe(e) })
    }

    /// A client without any configuration.
    pub fn shared(&self, local: bool) -> Result<Client, String> {
        let cell = if local { &self.local } else { &self.world };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let builder = builder(local);
        let builder = if local { builder.tls_certs_only([]) } else { builder };
        let client = builder.build().map_err(describe)?;
        Ok(cell.get_or_init(|| client).clone())
    }
}

fn builder(local: bool) -> ClientBuilder {
    // Fails when somebody else in this process was first: then theirs is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(DIAL)
        .http2_initial_stream_window_size(1 << 20)
        .http2_initial_connection_window_size(4 << 20);
    if local { builder.no_proxy() } else { builder }
}

fn trust(mut builder: ClientBuilder, tls: &Tls, only_these: bool) -> Result<ClientBuilder, ImageError> {
    let mut roots = Vec::new();
    for path in &tls.ca {
        let found = Certificate::from_pem_bundle(&read(path)?).map_err(|e| bad(path, describe(e)))?;
        if found.is_empty() {
            return Err(bad(path, "holds no certificate in PEM form".into()));
        }
        roots.extend(found);
    }
    if only_these {
        builder = builder.tls_certs_only(roots);
    } else if !roots.is_empty() {
        builder = builder.tls_certs_merge(roots);
    }
    if let Some(client) = &tls.client {
        let mut pem = read(&client.cert)?;
        if let Some(key) = &client.key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|e| bad(&client.cert, describe(e)))?;
        builder = builder.identity(identity);
    }
    if tls.skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    Ok(builder)
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|e| bad(path, e.to_string()))
}

fn bad(path: &Path, reason: String) -> ImageError {
    ImageError::Certificate { path: path.to_owned(), reason }
}

/// An error with its causes, without the URL: that may hold a signature.
pub(super) fn describe(e: reqwest::Error) -> String {
    let e = e.without_url();
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}
