//! Certificates beside a missing `hosts.toml`, as Docker lays them out: `*.crt` are trusted roots, `NAME.cert` with
//! `NAME.key` is our own certificate.

use std::path::Path;

use super::{ClientCert, Tls};
use crate::images::ImageError;

/// Reads the names in `dir`; the files themselves are read when a connection is made.
pub(super) fn read(dir: &Path) -> Result<Tls, ImageError> {
    let failed = |source| ImageError::HostsRead { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut tls = Tls::default();
    for path in paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => tls.ca.push(path),
            Some("cert") => {
                if let Some(first) = &tls.client {
                    let reason = format!("a second client certificate beside {}", first.cert.display());
                    return Err(ImageError::Certificate { path, reason });
                }
                let key = path.with_extension("key");
                tls.client = Some(ClientCert { key: key.exists().then_some(key), cert: path });
            }
            _ => {}
        }
    }
    Ok(tls)
}
