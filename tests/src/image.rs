//! Images made in memory: layers, config, manifest; as a registry, an OCI archive or a docker archive wants them.

use std::io::Write;

use serde_json::{Value, json};
use sha2::Digest as _;

/// The digest of bytes, as `sha256:HEX`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Media types of a manifest and what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Oci,
    DockerSchema2,
}

impl Format {
    pub fn manifest(self) -> &'static str {
        match self {
            Format::Oci => "application/vnd.oci.image.manifest.v1+json",
            Format::DockerSchema2 => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }
    pub fn index(self) -> &'static str {
        match self {
            Format::Oci => "application/vnd.oci.image.index.v1+json",
            Format::DockerSchema2 => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }
    fn config(self) -> &'static str {
        match self {
            Format::Oci => "application/vnd.oci.image.config.v1+json",
            Format::DockerSchema2 => "application/vnd.docker.container.image.v1+json",
        }
    }
    fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Format::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Format::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Format::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Format::DockerSchema2, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Format::DockerSchema2, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Format::DockerSchema2, Compression::Zstd) => panic!("docker has no zstd layers"),
        }
    }
}

/// Writes the tar of one layer.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(1_700_000_000);
        header
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.owned_dir(path, mode, 0, 0)
    }

    pub fn owned_dir(mut self, path: &str, mode: u32, uid: u64, gid: u64) -> Self {
        let mut header = Self::header(tar::EntryType::Directory, mode, 0);
        header.set_uid(uid);
        header.set_gid(gid);
        self.0.append_data(&mut header, path, std::io::empty()).expect("tar: dir");
        self
    }

    pub fn file(self, path: &str, mode: u32, data: &[u8]) -> Self {
        self.owned_file(path, mode, 0, 0, data)
    }

    pub fn owned_file(mut self, path: &str, mode: u32, uid: u64, gid: u64, data: &[u8]) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, mode, data.len() as u64);
        header.set_uid(uid);
        header.set_gid(gid);
        self.0.append_data(&mut header, path, data).expect("tar: file");
        self
    }

    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).expect("tar: symlink");
        self
    }

    pub fn hard_link(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Link, 0o644, 0);
        self.0.append_link(&mut header, path, target).expect("tar: hard link");
        self
    }

    /// A whiteout: `path` of the layers below is gone.
    pub fn removed(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let whiteout = if dir.is_empty() { format!(".wh.{name}") } else { format!("{dir}/.wh.{name}") };
        self.file(&whiteout, 0o644, b"")
    }

    /// An opaque folder: nothing of the layers below shows in it.
    pub fn opaque(self, dir: &str) -> Self {
        self.dir(dir, 0o755).file(&format!("{dir}/.wh..wh..opq"), 0o644, b"")
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("tar: finish")
    }
}

/// A finished image: every blob that a registry needs, with its digest.
#[derive(Debug, Clone)]
pub struct Image {
    pub format: Format,
    /// The manifest; also in `blobs`.
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
    diffs: Vec<Vec<u8>>,
}

/// Bytes and their digest.
#[derive(Debug, Clone)]
pub struct Blob {
    pub digest: String,
    pub data: Vec<u8>,
}

impl Blob {
    pub fn new(data: Vec<u8>) -> Self {
        Self { digest: digest(&data), data }
    }
}

impl Image {
    /// `config` is the `config` object of the image (`Cmd`, `Env`, `User`, …); layers are plain tars.
    pub fn new(format: Format, config: Value, layers: &[(Compression, Vec<u8>)]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(_, tar)| digest(tar)).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "seam e2e"})).collect::<Vec<_>>(),
        });
        Self::of(format, config.to_string().into_bytes(), layers)
    }

    /// The same with a whole configuration, which may be anything.
    pub fn of(format: Format, config: Vec<u8>, layers: &[(Compression, Vec<u8>)]) -> Self {
        let compressed = |(how, tar): &(Compression, Vec<u8>)| (*how, Blob::new(compress(*how, tar)));
        let diffs = layers.iter().map(|(_, tar)| tar.clone()).collect();
        Self::put_together(format, Blob::new(config), layers.iter().map(compressed).collect(), diffs)
    }

    /// The same with layers as they are sent, which may be anything.
    pub fn sent(format: Format, config: Vec<u8>, layers: &[(Compression, Vec<u8>)]) -> Self {
        let sent = layers.iter().map(|(how, bytes)| (*how, Blob::new(bytes.clone()))).collect();
        Self::put_together(format, Blob::new(config), sent, Vec::new())
    }

    fn put_together(format: Format, config: Blob, layers: Vec<(Compression, Blob)>, diffs: Vec<Vec<u8>>) -> Self {
        let described: Vec<Value> =
            layers.iter().map(|(how, b)| descriptor(format.layer(*how), &b.digest, b.data.len())).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format.manifest(),
            "config": descriptor(format.config(), &config.digest, config.data.len()),
            "layers": described,
        });
        let manifest = Blob::new(manifest.to_string().into_bytes());
        Self { format, manifest, config, layers: layers.into_iter().map(|(_, blob)| blob).collect(), diffs }
    }

    /// The image's id in CRI: the digest of its config.
    pub fn id(&self) -> &str {
        &self.config.digest
    }

    /// An index that names this image for our platform, behind one that does not exist for another platform.
    pub fn index(&self) -> Blob {
        let mut ours = descriptor(self.format.manifest(), &self.manifest.digest, self.manifest.data.len());
        ours["platform"] = json!({"os": "linux", "architecture": architecture()});
        let mut other = descriptor(self.format.manifest(), &digest(b"never fetched"), 13);
        other["platform"] = json!({"os": "linux", "architecture": "s390x"});
        let index = json!({"schemaVersion": 2, "mediaType": self.format.index(), "manifests": [other, ours]});
        Blob::new(index.to_string().into_bytes())
    }

    /// A tar as `docker save` writes it.
    pub fn docker_archive(&self, names: &[&str]) -> Vec<u8> {
        let mut tar = Layer::default();
        let mut files = Vec::new();
        for (i, diff) in self.diffs.iter().enumerate() {
            let name = format!("{i}/layer.tar");
            tar = tar.file(&name, 0o644, diff);
            files.push(name);
        }
        let config = format!("{}.json", &self.config.digest["sha256:".len()..]);
        tar = tar.file(&config, 0o644, &self.config.data);
        let manifest = json!([{"Config": config, "RepoTags": names, "Layers": files}]);
        tar.file("manifest.json", 0o644, manifest.to_string().as_bytes()).finish()
    }

    /// A tar of an OCI layout whose one image is called `name`.
    pub fn oci_archive(&self, name: &str) -> Vec<u8> {
        let mut entry = descriptor(self.format.manifest(), &self.manifest.digest, self.manifest.data.len());
        entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        let mut tar = Layer::default().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in self.layers.iter().chain([&self.config, &self.manifest]) {
            let path = format!("blobs/{}", blob.digest.replace(':', "/"));
            tar = tar.file(&path, 0o644, &blob.data);
        }
        tar.file("index.json", 0o644, index.to_string().as_bytes()).finish()
    }
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// The bytes of a layer as they are sent.
pub fn compress(how: Compression, data: &[u8]) -> Vec<u8> {
    match how {
        Compression::None => data.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).expect("gzip");
            encoder.finish().expect("gzip")
        }
        Compression::Zstd => zstd::encode_all(data, 1).expect("zstd"),
    }
}

/// The machine's architecture under its OCI name.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
