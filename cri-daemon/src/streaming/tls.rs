//! TLS for the streaming server, where it is configured: with a certificate from files, or with one that is made at
//! each start and signed with its own key. A kubelet does not check it; it is what keeps others from listening.
//!
//! Files are read once, at the start. TLS 1.2 and 1.3 are spoken; clients show no certificates: what lets them in is
//! the token.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use shared_config::CriRuntime;
use tokio_rustls::TlsAcceptor;

use super::StreamError;

/// A certificate with those that lead to its root, and its key.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What connections begin with; `None`: TLS is not configured.
pub async fn acceptor(config: &CriRuntime) -> Result<Option<TlsAcceptor>, StreamError> {
    if !config.enable_tls_streaming {
        return Ok(None);
    }
    let files = config.x509_key_pair_streaming.clone();
    let (chain, key) = match files.tls_cert_file.as_os_str().is_empty() {
        true => own(&[&config.stream_server_address])?,
        false => shared_sys::blocking(move || read(&files.tls_cert_file, &files.tls_key_file)).await?,
    };
    let wrong = |e: rustls::Error| StreamError::Tls(e.to_string());
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(wrong)?;
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

/// A certificate that nobody has signed but itself, for these names and the loopback.
fn own(names: &[&str]) -> Result<Pair, StreamError> {
    let names = names.iter().chain(&["localhost", "127.0.0.1", "::1"]).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(|name| name.trim_start_matches('[').trim_end_matches(']').to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names);
    let made = made.map_err(|e| StreamError::Tls(format!("make a certificate: {e}")))?;
    Ok((vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into())))
}

/// Blocks.
fn read(cert: &Path, key: &Path) -> Result<Pair, StreamError> {
    let wrong = |path: &Path, why: String| StreamError::Tls(format!("{}: {why}", path.display()));
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|e| wrong(cert, e.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(cert, "there is no certificate in it".into()));
    }
    Ok((chain, PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e.to_string()))?))
}

#[cfg(test)]
mod tests {
    use shared_config::KeyPair;

    use super::*;

    #[tokio::test]
    async fn files_that_are_none_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let pair = KeyPair { tls_cert_file: cert.clone(), tls_key_file: key.clone() };
        let config = CriRuntime { enable_tls_streaming: true, x509_key_pair_streaming: pair, ..CriRuntime::default() };
        let refused = |config: CriRuntime| async move { acceptor(&config).await.err().unwrap().to_string() };
        assert!(refused(config.clone()).await.contains("cert.pem"));
        std::fs::write(&cert, "no certificate").unwrap();
        assert!(refused(config.clone()).await.contains("there is no certificate in it"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        use base64::Engine as _;
        let pem = |kind: &str, der: &[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
        };
        std::fs::write(&cert, pem("CERTIFICATE", made.cert.der())).unwrap();
        assert!(refused(config.clone()).await.contains("key.pem"));
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&key, pem("PRIVATE KEY", &other.signing_key.serialize_der())).unwrap();
        assert!(refused(config.clone()).await.starts_with("TLS for streams: "), "the key of another");
        std::fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
        assert!(acceptor(&config).await.unwrap().is_some());
        assert!(acceptor(&CriRuntime::default()).await.unwrap().is_none());
    }
}
