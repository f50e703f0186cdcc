//! Debian's docker-registry on a port of its own, and images made on the spot.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};

use crate::domain::Digest;
use crate::images::manifest::{Descriptor, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Platform};

pub const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// User `ann`, password `pw`.
const HTPASSWD: &str = "ann:$2b$04$n1MvKEoVD4.fibwP4PtfIeC4szEKFrt6jSZYq4Wt3NfRye33LJ/22\n";

/// A registry process. Ends with the value.
pub struct DockerRegistry {
    child: Child,
    pub port: u16,
    guarded: bool,
    /// Configuration and storage.
    dir: Arc<tempfile::TempDir>,
}

impl DockerRegistry {
    /// A registry with storage of its own; `guarded` ones want to know who asks.
    pub async fn start(guarded: bool) -> Self {
        let auth = if guarded { "auth: {htpasswd: {realm: seam, path: DIR/htpasswd}}\n" } else { "" };
        Self::run(Arc::new(tempfile::tempdir().unwrap()), guarded, auth, "").await
    }

    /// A second process that serves the same over TLS, to clients with a certificate of `dir/ca.crt` if `mutual`.
    pub async fn over_tls(&self, dir: &Path, mutual: bool) -> Self {
        let clients = if mutual { format!(", clientcas: [{}/ca.crt]", dir.display()) } else { String::new() };
        let tls = format!(", tls: {{certificate: {0}/server.crt, key: {0}/server.key{clients}}}", dir.display());
        Self::run(self.dir.clone(), false, "", &tls).await
    }

    async fn run(dir: Arc<tempfile::TempDir>, guarded: bool, auth: &str, tls: &str) -> Self {
        // Somebody else may take the port between the look and the start: then try another.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = spawn(dir.path(), port, auth, tls);
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return Self { child, port, guarded, dir };
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    /// `127.0.0.1:PORT`.
    pub fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts a blob into a repository.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let start = self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(start.status(), 202, "{repository}");
        let to = start.headers()["location"].to_str().unwrap().to_owned();
        let to = if to.starts_with('/') { format!("http://{}{to}", self.name()) } else { to };
        let join = if to.contains('?') { '&' } else { '?' };
        let put = client().put(format!("{to}{join}digest={}", Digest::of(bytes)));
        let put = if self.guarded { put.basic_auth("ann", Some("pw")) } else { put };
        let done = put.body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(done.status(), 201, "{repository}");
    }

    /// Puts a manifest or an index under a tag or digest.
    pub async fn push_manifest(&self, repository: &str, object: &str, media_type: &str, bytes: &[u8]) {
        let put = self.request(Method::PUT, &format!("/v2/{repository}/manifests/{object}"));
        let done = put.header("Content-Type", media_type).body(bytes.to_vec()).send().await.unwrap();
        let status = done.status();
        assert_eq!(status, 201, "{}", done.text().await.unwrap());
    }

    pub async fn push(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, tag, OCI_MANIFEST, &image.manifest).await;
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = client().request(method, format!("http://{}{path}", self.name()));
        if self.guarded { request.basic_auth("ann", Some("pw")) } else { request }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> Client {
    crate::images::http::Clients::default().shared(true).unwrap()
}

fn spawn(dir: &Path, port: u16, auth: &str, tls: &str) -> Child {
    let shown = dir.display().to_string();
    std::fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    let config = format!(
        "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\n\
         storage: {{filesystem: {{rootdirectory: {shown}/data}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"{tls}}}\n{}",
        auth.replace("DIR", &shown)
    );
    let path = dir.join(format!("{port}.yml"));
    std::fs::write(&path, config).unwrap();
    Command::new("docker-registry")
        .arg("serve")
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry is installed")
}

/// An image with all its blobs.
pub struct Image {
    /// Compressed, lowest first.
    pub layers: Vec<Vec<u8>>,
    pub diff_ids: Vec<Digest>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// An image of these layers, each a list of files and their content.
    pub fn of(layers: &[&[(&str, &[u8])]]) -> Self {
        let tars: Vec<Vec<u8>> = layers.iter().map(|files| tar(files)).collect();
        Self::of_tars(&tars, std::env::consts::ARCH)
    }

    pub fn of_tars(tars: &[Vec<u8>], architecture: &str) -> Self {
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let platform = Platform::new("linux", architecture, "");
        let ids: Vec<_> = diff_ids.iter().map(Digest::as_str).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": platform.architecture, "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = config.to_string().into_bytes();
        let manifest = manifest(&config, &layers);
        Self { layers, diff_ids, config, manifest }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// A manifest of these blobs.
pub fn manifest(config: &[u8], layers: &[Vec<u8>]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(GZIP_LAYER, layer)).collect();
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config), "layers": layers,
    });
    json.to_string().into_bytes()
}

/// An index of these manifests, each with its architecture.
pub fn index(manifests: &[(&str, &[u8])]) -> Vec<u8> {
    let entry = |(architecture, manifest): &(&str, &[u8])| Descriptor {
        platform: Some(Platform::new("linux", architecture, "")),
        ..descriptor(OCI_MANIFEST, manifest)
    };
    let entries: Vec<_> = manifests.iter().map(entry).collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        annotations: Default::default(),
        platform: None,
    }
}

/// A tar with these files; names that end with `/` are folders.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        let kind = if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that no compression makes smaller, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}
