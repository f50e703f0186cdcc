//! Which hosts serve a registry, and how they are reached: `hosts.toml` as containerd reads it.
//!
//! The configured folders are searched in order; in each, for the registry `HOST:PORT`, the sub-folders
//! `HOST_PORT_`, `HOST:PORT` and `_default`. The first that exists decides: its `hosts.toml` ([`file`]), or without
//! one the certificates beside it as Docker lays them out ([`certs`]). Without any folder the registry itself is
//! asked: over https, or over http when it is on this machine (port 443 excepted). `docker.io` is served by
//! `registry-1.docker.io`.
//!
//! Files are read again for every pull, so that a change needs no restart. Unlike containerd, a malformed file is an
//! error that names file and line, and is not skipped.

mod certs;
mod file;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::ImageError;

/// What a host may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Blobs, and manifests by digest.
    pub pull: bool,
    /// Tags.
    pub resolve: bool,
    pub push: bool,
}

impl Capabilities {
    pub const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// A client certificate: one file, or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    pub cert: PathBuf,
    /// `None`: the key is in `cert` as well.
    pub key: Option<PathBuf>,
}

/// How TLS is done with a host, where it differs from the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Trusted besides the system's roots.
    pub ca: Vec<PathBuf>,
    pub client: Option<ClientCert>,
    pub skip_verify: bool,
}

/// One host that serves a registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Scheme, authority and root of the API, for example `https://mirror.local/v2`. No trailing slash.
    pub base: Url,
    pub capabilities: Capabilities,
    /// The registry that this host stands in for: sent as `?ns=`. `None` when the host is the registry itself.
    pub mirror_of: Option<String>,
    pub tls: Tls,
    /// Sent with every request to this host.
    pub headers: HeaderMap,
    /// How long to wait for a connection.
    pub dial_timeout: Option<Duration>,
    /// What named this host: `FILE:LINE`, or `default`.
    pub source: String,
}

impl Host {
    /// `HOST` or `HOST:PORT`, as credentials are asked for.
    pub fn authority(&self) -> String {
        authority(&self.base)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.base.scheme(), self.authority())
    }
}

/// Host and port of a URL; the port only when it is not the scheme's own.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether this names the machine we run on.
pub fn is_loopback(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The hosts of `registry`, in the order in which they are tried. Reads files: blocking.
pub fn lookup(dirs: &[PathBuf], registry: &str) -> Result<Vec<Host>, ImageError> {
    let Some(dir) = folder(dirs, registry)? else {
        return Ok(vec![default_host(registry, Tls::default())?]);
    };
    let path = dir.join("hosts.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => file::parse(&text, &path, registry),
        Ok(_) => Ok(vec![default_host(registry, certs::read(&dir)?)?]),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(vec![default_host(registry, certs::read(&dir)?)?]),
        Err(source) => Err(ImageError::HostsRead { path, source }),
    }
}

/// The folder that decides about `registry`.
fn folder(dirs: &[PathBuf], registry: &str) -> Result<Option<PathBuf>, ImageError> {
    let mut names = vec![registry.to_owned(), "_default".to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
        names.insert(0, format!("{host}_{port}_"));
    }
    for path in dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name))) {
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Ok(Some(path)),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(source) => return Err(ImageError::HostsRead { path, source }),
        }
    }
    Ok(None)
}

/// The registry itself, as it is reached when nothing is configured.
fn default_host(registry: &str, tls: Tls) -> Result<Host, ImageError> {
    let named = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let bad = |reason: String| ImageError::Reference { reference: registry.to_owned(), reason };
    let https: Url = format!("https://{named}/v2").parse().map_err(|e| bad(format!("{e}")))?;
    let local = is_loopback(https.host_str().unwrap_or_default());
    let configured = tls != Tls::default();
    let base = match https.port() {
        Some(_) if local && !configured => format!("http://{named}/v2").parse().map_err(|e| bad(format!("{e}")))?,
        // Port 443 is the default port of https, and left out.
        None if local && !configured && !registry.ends_with(":443") => {
            format!("http://{named}/v2").parse().map_err(|e| bad(format!("{e}")))?
        }
        _ => https,
    };
    Ok(Host {
        base,
        capabilities: Capabilities::ALL,
        mirror_of: None,
        tls,
        headers: HeaderMap::new(),
        dial_timeout: None,
        source: "default".to_owned(),
    })
}

/// `path`, seen from the folder of the file that names it.
fn beside(dir: &Path, path: &str) -> PathBuf {
    dir.join(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bases(hosts: &[Host]) -> Vec<&str> {
        hosts.iter().map(|h| h.base.as_str()).collect()
    }

    #[test]
    fn without_configuration_the_registry_itself_is_asked() {
        for (registry, base) in [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("registry.k8s.io", "https://registry.k8s.io/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.1", "http://127.0.0.1/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("localhost:443", "https://localhost/v2"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
        ] {
            assert_eq!(bases(&lookup(&[], registry).unwrap()), [base]);
        }
    }

    #[test]
    fn the_first_folder_that_exists_decides() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        let server = |dir: &Path, name: &str, server: &str| {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("hosts.toml"), format!("server = \"{server}\"\n")).unwrap();
        };
        let dirs = [one.clone(), two.clone()];
        server(&two, "a.b:5000", "https://colon");
        assert_eq!(bases(&lookup(&dirs, "a.b:5000").unwrap()), ["https://colon/v2"]);
        server(&two, "a.b_5000_", "https://underscore");
        assert_eq!(bases(&lookup(&dirs, "a.b:5000").unwrap()), ["https://underscore/v2"]);
        server(&one, "_default", "https://fallback");
        assert_eq!(bases(&lookup(&dirs, "a.b:5000").unwrap()), ["https://fallback/v2"]);
        assert_eq!(bases(&lookup(&[two], "other").unwrap()), ["https://other/v2"]);
    }

    #[test]
    fn certificates_as_docker_lays_them_out() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a.b");
        fs::create_dir(&dir).unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "notes.txt"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let hosts = lookup(&[root.path().to_owned()], "a.b").unwrap();
        assert_eq!(bases(&hosts), ["https://a.b/v2"]);
        assert_eq!(hosts[0].tls.ca, [dir.join("ca.crt")]);
        let client = hosts[0].tls.client.clone().unwrap();
        assert_eq!((client.cert, client.key), (dir.join("client.cert"), Some(dir.join("client.key"))));

        fs::write(dir.join("second.cert"), "").unwrap();
        let e = lookup(&[root.path().to_owned()], "a.b").unwrap_err().to_string();
        assert!(e.contains("client.cert") && e.contains("second.cert"), "{e}");
    }
}
