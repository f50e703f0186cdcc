//! Debian's docker-registry on loopback, filled by writing its storage folder.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::image::{Blob, Image};

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    storage: PathBuf,
    _process: Daemon,
}

impl Registry {
    /// Starts it with its data under `dir`.
    pub fn start(dir: &Path) -> Self {
        let storage = dir.join("storage");
        std::fs::create_dir_all(&storage).expect("make the registry's storage");
        for _ in 0..5 {
            let address = free_port();
            let config = dir.join("config.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  cache: {{}}\n\
                 http: {{addr: \"{address}\"}}\n",
                storage.display()
            );
            std::fs::write(&config, text).expect("write the registry's configuration");
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&config);
            let mut process = Daemon::spawn("docker-registry", &mut command, &dir.join("registry.log"));
            let started = Instant::now();
            while process.ended().is_none() && started.elapsed() < Duration::from_secs(10) {
                if TcpStream::connect(address).is_ok() {
                    return Self { address, storage, _process: process };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            // Somebody else took the port in between: try another.
        }
        panic!("docker-registry does not start\n{}", crate::daemon::tail(&dir.join("registry.log"), 20));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder with all that it serves.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Makes `image` available as `repository:tag`.
    pub fn add(&self, repository: &str, tag: &str, image: &Image) {
        self.add_image(repository, image);
        self.tag(repository, tag, &image.manifest);
    }

    /// Makes `image` available as `repository:tag` behind an index of several platforms.
    pub fn add_indexed(&self, repository: &str, tag: &str, image: &Image) {
        self.add_image(repository, image);
        self.tag(repository, tag, &image.index());
    }

    fn add_image(&self, repository: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.blob(blob);
            self.link(repository, &format!("_layers/{}", blob.digest.replace(':', "/")), &blob.digest);
        }
        self.manifest(repository, &image.manifest);
    }

    fn tag(&self, repository: &str, tag: &str, manifest: &Blob) {
        self.manifest(repository, manifest);
        self.link(repository, &format!("_manifests/tags/{tag}/current"), &manifest.digest);
        let index = format!("_manifests/tags/{tag}/index/{}", manifest.digest.replace(':', "/"));
        self.link(repository, &index, &manifest.digest);
    }

    fn manifest(&self, repository: &str, manifest: &Blob) {
        self.blob(manifest);
        let revision = format!("_manifests/revisions/{}", manifest.digest.replace(':', "/"));
        self.link(repository, &revision, &manifest.digest);
    }

    fn blob(&self, blob: &Blob) {
        let hex = &blob.digest["sha256:".len()..];
        let dir = self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex);
        std::fs::create_dir_all(&dir).expect("make a blob's folder");
        std::fs::write(dir.join("data"), &blob.data).expect("write a blob");
    }

    fn link(&self, repository: &str, path: &str, digest: &str) {
        let dir = self.storage.join("docker/registry/v2/repositories").join(repository).join(path);
        std::fs::create_dir_all(&dir).expect("make a link's folder");
        std::fs::write(dir.join("link"), digest).expect("write a link");
    }
}

/// An address on loopback that was free a moment ago.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port on loopback");
    listener.local_addr().expect("read the port")
}
