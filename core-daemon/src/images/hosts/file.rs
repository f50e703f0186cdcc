//! `hosts.toml`: the hosts of a registry, in the order of the file, and last the `server`.
//!
//! ```toml
//! server = "https://registry.k8s.io"        # default: the registry itself
//!
//! [host."https://mirror.local:5000"]
//!   capabilities = ["pull", "resolve"]      # default: also "push"
//!   ca = "ca.crt"                           # or a list; relative to this file
//!   client = [["client.cert", "client.key"]]  # or "both.pem", or ["both.pem"]
//!   skip_verify = false
//!   override_path = false                   # true: the URL's path is the API's root, "/v2" is not added
//!   dial_timeout = "3s"
//!   [host."https://mirror.local:5000".header]
//!     x-mirror = ["a", "b"]                 # or one string
//! ```
//!
//! The keys of a host may also stand at the top; there they belong to the server. An unknown key is a warning, a wrong
//! value an error; both name file and line. Limit: one client certificate a host.

use std::path::Path;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use toml::de::DeTable;

use super::values::{Reader, Value};
use super::{Capabilities, Host, Tls, authority, default_host};
use crate::images::ImageError;

/// Reads `text`; `path` is its file, and what relative paths start from.
pub(super) fn parse(text: &str, path: &Path, registry: &str) -> Result<Vec<Host>, ImageError> {
    let reader = Reader { text, path, registry };
    let table = DeTable::parse(text).map_err(|e| reader.error(e.span().map_or(0, |s| s.start), e.message()))?;
    let table = table.into_inner();

    let mut server = None;
    let mut mirrors: Vec<(usize, String, &DeTable<'_>)> = Vec::new();
    for (key, value) in &table {
        match key.get_ref().as_ref() {
            "server" => server = Some(reader.string(value)?),
            "host" => {
                for (url, settings) in reader.table(value)? {
                    mirrors.push((url.span().start, url.get_ref().to_string(), reader.table(settings)?));
                }
            }
            _ => {}
        }
    }
    // The table is sorted by key; the file's order is what counts.
    mirrors.sort_by_key(|(at, ..)| *at);

    let mut hosts = Vec::new();
    for (at, url, settings) in &mirrors {
        let host = reader.host(*at, url, reader.settings(settings, false)?)?;
        hosts.push(host);
    }
    let settings = reader.settings(&table, true)?;
    hosts.push(match server {
        Some(url) if !url.is_empty() => {
            let at = table.iter().find(|(key, _)| key.get_ref() == "server").map_or(0, |(key, _)| key.span().start);
            reader.host(at, &url, settings)?
        }
        // Without a server the registry is asked itself, with what stands at the top.
        _ => Host {
            headers: settings.headers,
            dial_timeout: settings.dial_timeout,
            ..default_host(registry, settings.tls)?
        },
    });
    Ok(hosts)
}

/// The keys of one host, apart from its URL.
struct Settings {
    capabilities: Capabilities,
    tls: Tls,
    headers: HeaderMap,
    override_path: bool,
    dial_timeout: Option<Duration>,
}

impl Reader<'_> {
    fn settings(&self, table: &DeTable<'_>, top: bool) -> Result<Settings, ImageError> {
        let mut settings = Settings {
            capabilities: Capabilities::ALL,
            tls: Tls::default(),
            headers: HeaderMap::new(),
            override_path: false,
            dial_timeout: None,
        };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "server" | "host" if top => {}
                "capabilities" => settings.capabilities = self.capabilities(value)?,
                "ca" => settings.tls.ca = self.paths(value)?,
                "client" => settings.tls.client = self.client(value)?,
                "skip_verify" => settings.tls.skip_verify = self.boolean(value)?,
                "override_path" => settings.override_path = self.boolean(value)?,
                "dial_timeout" => settings.dial_timeout = Some(self.duration(value)?),
                "header" => settings.headers = self.headers(value)?,
                unknown => {
                    let line = self.line(key.span().start);
                    tracing::warn!("{}:{line}: unknown key {unknown:?} is ignored", self.path.display());
                }
            }
        }
        Ok(settings)
    }

    fn capabilities(&self, value: &Value<'_>) -> Result<Capabilities, ImageError> {
        let Some(names) = value.get_ref().as_array() else { return self.wrong(value, "a list of strings") };
        if names.iter().next().is_none() {
            return Ok(Capabilities::ALL);
        }
        let mut found = Capabilities { pull: false, resolve: false, push: false };
        for name in names {
            match self.string(name)?.to_ascii_lowercase().as_str() {
                "pull" => found.pull = true,
                "resolve" => found.resolve = true,
                "push" => found.push = true,
                other => {
                    let reason = format!("unknown capability {other:?}: write \"pull\", \"resolve\" or \"push\"");
                    return Err(self.error(name.span().start, reason));
                }
            }
        }
        Ok(found)
    }

    fn host(&self, at: usize, url: &str, settings: Settings) -> Result<Host, ImageError> {
        let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let mut base: Url = full.parse().map_err(|e| self.error(at, format!("{url:?} is no URL: {e}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(self.error(at, format!("{url:?}: only http and https are supported")));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(self.error(at, "credentials don't belong into the URL of a host"));
        }
        let root = base.path().trim_end_matches('/').to_owned();
        let root = if settings.override_path || root.ends_with("/v2") { root } else { format!("{root}/v2") };
        base.set_path(&root);
        base.set_query(None);
        base.set_fragment(None);
        let name = authority(&base);
        let itself = name == self.registry || (self.registry == "docker.io" && name == "registry-1.docker.io");
        Ok(Host {
            mirror_of: (!itself).then(|| self.registry.to_owned()),
            base,
            capabilities: settings.capabilities,
            tls: settings.tls,
            headers: settings.headers,
            dial_timeout: settings.dial_timeout,
            source: format!("{}:{}", self.path.display(), self.line(at)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClientCert;
    use super::*;

    fn read(text: &str) -> Result<Vec<Host>, ImageError> {
        parse(text, Path::new("/etc/certs.d/registry.k8s.io/hosts.toml"), "registry.k8s.io")
    }

    #[test]
    fn hosts_keep_the_order_of_the_file_and_the_server_is_last() {
        let hosts = read(
            r#"
            server = "registry.k8s.io"
            [host."http://z.local:5000"]
              capabilities = ["pull", "Resolve"]
              [host."http://z.local:5000".header]
                x-one = "1"
                x-two = ["a", "b"]
            [host."https://a.local/prefix/"]
              skip_verify = true
              ca = ["ca.crt", "/abs.crt"]
              client = [["c.cert", "c.key"]]
              dial_timeout = "1m30s"
            [host."https://b.local/odd"]
              override_path = true
              client = "both.pem"
            "#,
        )
        .unwrap();
        let bases: Vec<_> = hosts.iter().map(|h| h.base.as_str()).collect();
        let want = [
            "http://z.local:5000/v2",
            "https://a.local/prefix/v2",
            "https://b.local/odd",
            "https://registry.k8s.io/v2",
        ];
        assert_eq!(bases, want);
        assert_eq!(hosts[0].capabilities, Capabilities { pull: true, resolve: true, push: false });
        assert_eq!(hosts[0].headers.get_all("x-two").iter().count(), 2);
        assert_eq!(hosts[0].mirror_of.as_deref(), Some("registry.k8s.io"));
        assert_eq!(hosts[0].source, "/etc/certs.d/registry.k8s.io/hosts.toml:3");
        let dir = Path::new("/etc/certs.d/registry.k8s.io");
        assert!(hosts[1].tls.skip_verify);
        assert_eq!(hosts[1].tls.ca, [dir.join("ca.crt"), "/abs.crt".into()]);
        assert_eq!(hosts[1].tls.client, Some(ClientCert { cert: dir.join("c.cert"), key: Some(dir.join("c.key")) }));
        assert_eq!(hosts[1].dial_timeout, Some(Duration::from_secs(90)));
        assert_eq!(hosts[2].tls.client, Some(ClientCert { cert: dir.join("both.pem"), key: None }));
        assert_eq!(hosts[3].mirror_of, None);
    }

    #[test]
    fn without_a_server_the_registry_itself_is_last() {
        let hosts = read("ca = \"x.crt\"\n[host.\"http://m\"]\n").unwrap();
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[1].base.as_str(), "https://registry.k8s.io/v2");
        assert_eq!(hosts[1].tls.ca.len(), 1);
    }

    #[test]
    fn says_in_which_line_what_is_wrong() {
        for (text, line, what) in [
            ("\nserver = 5\n", 2, "wanted a string"),
            ("[host.\"http://x\"]\n\ncapabilities = [\"pul\"]\n", 3, "unknown capability \"pul\""),
            ("[host.\"http://x\"]\nca = 1\n", 2, "wanted a string or a list"),
            ("[host.\"http://x\"]\nclient = [[\"a\"]]\n", 2, "[certificate, key]"),
            ("[host.\"http://x\"]\nclient = [\"a\", \"b\"]\n", 2, "only one client certificate"),
            ("[host.\"ftp://x\"]\n", 1, "only http and https"),
            ("[host.\"http://u:p@x\"]\n", 1, "credentials"),
            ("[host.\"http://x\"]\ndial_timeout = \"soon\"\n", 2, "no duration"),
            ("[host.\"http://x\"\n", 1, ""),
            ("[host.\"http://x\".header]\na = \"1\"\n\"b c\" = \"2\"\n", 3, "no name of a header"),
        ] {
            let e = read(text).unwrap_err().to_string();
            assert!(e.contains(&format!("hosts.toml:{line}: ")) && e.contains(what), "{text:?}: {e}");
        }
    }
}
