//! One pass over the tar: documents are kept in memory (each at most [`MAX_DOCUMENT`]), all else goes into the store.
//!
//! A file that is named by its digest must have it. Links between files of the archive are kept as names; anything
//! else that is no file (devices, …) is ignored. Limits: [`MAX_ENTRIES`] entries; names of at most [`MAX_NAME`] bytes.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path};

use bytes::BytesMut;
use serde::Deserialize;
use tokio::runtime::Handle;

use super::reader::ChannelReader;
use crate::content::{ContentError, Store};
use crate::diff;
use crate::domain::{Digest, Labels, Scope};
use crate::images::manifest::{DOCKER_LAYER, MAX_DOCUMENT};
use crate::images::{ImageError, inner};

const MAX_ENTRIES: usize = 20_000;
const MAX_NAME: usize = 1024;
/// How much is handed to the store at a time.
const CHUNK: usize = 1 << 20;

/// A file of the archive, in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub digest: Digest,
    pub size: u64,
}

/// What the archive held.
#[derive(Default)]
pub(super) struct Archive {
    /// The version in `oci-layout`.
    pub layout: Option<String>,
    /// `index.json`.
    pub index: Option<Vec<u8>>,
    /// `manifest.json`, of `docker save`.
    pub manifest: Option<Vec<u8>>,
    pub files: BTreeMap<String, File>,
    /// Links to other files of the archive.
    pub links: BTreeMap<String, String>,
}

impl Archive {
    /// The file with this name, links followed.
    pub fn find(&self, name: &str) -> Option<&File> {
        let mut name = normal(Path::new(name))?;
        for _ in 0..8 {
            match (self.files.get(&name), self.links.get(&name)) {
                (Some(file), _) => return Some(file),
                (None, Some(to)) => name = to.clone(),
                (None, None) => return None,
            }
        }
        None
    }
}

pub(super) struct Walk {
    content: Store,
    scope: Scope,
    runtime: Handle,
    /// Makes the references of ingests unique.
    id: String,
}

impl Walk {
    pub fn new(content: Store, scope: Scope) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { content, scope, runtime: Handle::current(), id }
    }

    /// Reads everything. Blocking.
    pub fn run(self, reader: ChannelReader) -> Result<Archive, ImageError> {
        // The first bytes tell how it is compressed, as with layers.
        let plain = diff::decompress(DOCKER_LAYER, Box::new(reader)).map_err(inner)?;
        let mut tar = tar::Archive::new(plain);
        let mut archive = Archive::default();
        let mut count = 0;
        for entry in tar.entries().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            count += 1;
            if count > MAX_ENTRIES {
                return Err(malformed(format!("more than {MAX_ENTRIES} entries")));
            }
            let raw = entry.path_bytes();
            if raw.len() > MAX_NAME {
                return Err(malformed(format!("an entry's name is longer than {MAX_NAME} bytes")));
            }
            let name = String::from_utf8_lossy(&raw).into_owned();
            let Some(name) = normal(Path::new(&name)) else {
                tracing::debug!(name, "ignored: it points outside of the archive");
                continue;
            };
            self.entry(entry, name, &mut archive)?;
        }
        // What is behind the tar's end belongs to the stream all the same.
        let mut rest = tar.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
        if count == 0 {
            return Err(malformed("it is empty, or no tar file".into()));
        }
        Ok(archive)
    }

    fn entry(&self, entry: tar::Entry<'_, impl Read>, name: String, archive: &mut Archive) -> Result<(), ImageError> {
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let to = entry.link_name().map_err(broken)?;
            let base = if kind.is_symlink() { Path::new(&name).parent() } else { None };
            let to = to.and_then(|to| normal(&base.unwrap_or(Path::new("")).join(to)));
            archive.links.extend(to.map(|to| (name, to)));
            return Ok(());
        }
        if !kind.is_file() && !kind.is_contiguous() {
            return Ok(());
        }
        match name.as_str() {
            "oci-layout" => {
                #[derive(Deserialize)]
                struct Layout {
                    #[serde(rename = "imageLayoutVersion")]
                    version: String,
                }
                let bytes = document(entry, &name)?;
                let layout: Layout = serde_json::from_slice(&bytes).map_err(|e| malformed(format!("{name}: {e}")))?;
                archive.layout = Some(layout.version);
            }
            "index.json" => archive.index = Some(document(entry, &name)?),
            "manifest.json" => archive.manifest = Some(document(entry, &name)?),
            _ => {
                let (number, size) = (archive.files.len(), entry.size());
                let file = self.store(entry, size, &name, number)?;
                archive.files.insert(name, file);
            }
        }
        Ok(())
    }

    /// Puts one file into the store.
    fn store(&self, mut entry: impl Read, size: u64, name: &str, number: usize) -> Result<File, ImageError> {
        let reference = format!("import-{}-{number}", self.id);
        let expected = name.strip_prefix("blobs/sha256/").and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
        let copied = self.copy(&mut entry, size, name, &reference, expected.as_ref());
        if copied.is_err() {
            // It can't be resumed: nobody has the name.
            let aborted = self.runtime.block_on(self.content.abort(&self.scope, &reference));
            if let Err(error) = aborted {
                tracing::debug!(reference, %error, "no ingest to abort");
            }
        }
        copied
    }

    fn copy(
        &self,
        entry: &mut impl Read,
        size: u64,
        name: &str,
        reference: &str,
        expected: Option<&Digest>,
    ) -> Result<File, ImageError> {
        let opened = self.runtime.block_on(self.content.writer(&self.scope, reference, expected, 0));
        let mut writer = match (opened, expected) {
            (Ok(writer), _) => writer,
            (Err(ContentError::Exists(_)), Some(digest)) => {
                io::copy(entry, &mut io::sink()).map_err(broken)?;
                return Ok(File { digest: digest.clone(), size });
            }
            (Err(e), _) => return Err(inner(e)),
        };
        loop {
            let mut chunk = BytesMut::zeroed(CHUNK);
            let read = fill(entry, &mut chunk).map_err(broken)?;
            if read == 0 {
                break;
            }
            chunk.truncate(read);
            self.runtime.block_on(writer.write(chunk.freeze())).map_err(inner)?;
        }
        if writer.offset() != size {
            let reason = format!("it ends in the middle of {name}");
            return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
        }
        let digest = writer.digest();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(malformed(format!("{name} has digest {digest}, not {expected}")));
        }
        match self.runtime.block_on(writer.commit(Some(size), Some(&digest), Labels::new())) {
            Ok(_) | Err(ContentError::Exists(_)) => Ok(File { digest, size }),
            Err(e) => Err(inner(e)),
        }
    }
}

/// Reads until the buffer is full or the reader ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn document(entry: impl Read, name: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    entry.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let what = format!("{name} in the archive");
        return Err(ImageError::TooLarge { what, size: bytes.len() as u64, limit: MAX_DOCUMENT });
    }
    Ok(bytes)
}

/// `a/./b` and `/a/b` are `a/b`; `None` for what leaves the archive, and for its root.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn malformed(reason: String) -> ImageError {
    ImageError::Malformed { what: "the archive".into(), reason }
}

fn broken(source: io::Error) -> ImageError {
    ImageError::Archive { source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (path, want) in [
            ("a/b", Some("a/b")),
            ("./a//b/.", Some("a/b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("a/../b", Some("b")),
            ("../a", None),
            ("a/../../b", None),
            ("/", None),
            (".", None),
        ] {
            assert_eq!(normal(Path::new(path)).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn links_are_followed_but_not_for_ever() {
        let mut archive = Archive::default();
        let file = File { digest: Digest::of(b""), size: 0 };
        archive.files.insert("a/layer.tar".into(), file.clone());
        archive.links.insert("b/layer.tar".into(), "a/layer.tar".into());
        archive.links.insert("x".into(), "y".into());
        archive.links.insert("y".into(), "x".into());
        assert_eq!(archive.find("b/./layer.tar"), Some(&file));
        assert_eq!(archive.find("x"), None);
        assert_eq!(archive.find("../a/layer.tar"), None);
    }
}
