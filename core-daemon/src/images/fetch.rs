//! Blobs from a registry into the content store, each once.
//!
//! A blob that is there already is not fetched. One that another pull fetches is waited for. One that was begun and
//! cut, in whatever pull, goes on where it stopped; bytes that turn out wrong are thrown away, and fetched from the
//! next host. Everything is added to the transfer's lease.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::download::Piece;
use super::flights::Flights;
use super::manifest::{self, Descriptor, Document, MAX_DOCUMENT};
use super::progress::{Reporter, key};
use super::registry::Registry;
use super::tail::Tail;
use super::{ImageError, inner};
use crate::content::{ContentError, Store};
use crate::domain::{Digest, Labels, Namespace, Scope};

/// How long somebody else may hold the ingest of a blob: a client that fetches by itself.
const LOCKED: Duration = Duration::from_secs(300);

/// How long the last block of a cancelled download may take to reach the disk.
const LETTING_GO: Duration = Duration::from_secs(2);

/// Where the blobs of one transfer come from, and where they go.
pub(super) struct Fetcher<'a> {
    pub content: &'a Store,
    pub scope: &'a Scope,
    /// `None`: everything must be in the store already.
    pub registry: Option<&'a Registry>,
    pub flights: &'a Flights<(Namespace, Digest)>,
    pub reporter: &'a Reporter,
}

impl Fetcher<'_> {
    /// A manifest or an index: its bytes, and what it says. `known` are the bytes if somebody has them.
    pub async fn document(
        &self,
        descriptor: &Descriptor,
        parent: Option<&Descriptor>,
        known: Option<Vec<u8>>,
    ) -> Result<Document, ImageError> {
        let what = format!("manifest {}", descriptor.digest);
        if manifest::is_schema1(&descriptor.media_type) {
            return Err(ImageError::Schema1 { reference: what });
        }
        let _flight = self.board(descriptor).await;
        let bytes = match (self.stored(descriptor).await?, known, self.registry) {
            (true, ..) => {
                self.reporter.about("already exists", descriptor, parent, descriptor.size);
                self.read(descriptor).await?
            }
            (false, Some(bytes), _) => bytes,
            (false, None, Some(registry)) => {
                self.reporter.about("waiting", descriptor, parent, 0);
                registry.manifest(&descriptor.media_type, &descriptor.digest, descriptor.size).await?
            }
            (false, None, None) => return Err(self.missing(descriptor)),
        };
        let document = Document::parse(&descriptor.media_type, &bytes, &what)?;
        self.keep(descriptor, Bytes::from(bytes), children(&document)).await?;
        self.reporter.about("complete", descriptor, parent, descriptor.size);
        Ok(document)
    }

    /// Puts the blob into the store, or finds it there. `tail` follows it.
    pub async fn blob(
        &self,
        descriptor: &Descriptor,
        parent: Option<&Descriptor>,
        tail: &Tail,
    ) -> Result<(), ImageError> {
        let _flight = self.board(descriptor).await;
        if self.stored(descriptor).await? {
            self.label(descriptor, Labels::new()).await?;
            let blob = self.content.open_blob(self.scope, &descriptor.digest).await.map_err(inner)?;
            tail.complete(&Arc::new(blob.file), blob.size);
            self.reporter.about("already exists", descriptor, parent, descriptor.size);
            return Ok(());
        }
        let registry = self.registry.ok_or_else(|| self.missing(descriptor))?;
        let Some(mut writer) = self.writer(descriptor).await? else {
            let blob = self.content.open_blob(self.scope, &descriptor.digest).await.map_err(inner)?;
            tail.complete(&Arc::new(blob.file), blob.size);
            self.reporter.about("already exists", descriptor, parent, descriptor.size);
            return Ok(());
        };
        if writer.offset() > descriptor.size {
            writer.truncate().await.map_err(inner)?;
        }
        let file = Arc::new(writer.reader().map_err(inner)?);
        tail.grow(&file, writer.offset());
        let mut download = registry.download(&descriptor.digest, descriptor.size, writer.offset())?;
        loop {
            match download.next().await? {
                Piece::Bytes(bytes) => {
                    writer.write(bytes).await.map_err(inner)?;
                    tail.grow(&file, writer.offset());
                    self.reporter.downloading(descriptor, parent, writer.offset());
                }
                Piece::End if writer.digest() == descriptor.digest => break,
                wrong @ (Piece::Restart | Piece::End) => {
                    let found = writer.digest();
                    writer.truncate().await.map_err(inner)?;
                    tail.restart();
                    if wrong == Piece::End {
                        download.reject(found)?;
                    }
                }
            }
        }
        drop(download);
        let labels = self.source(Labels::new());
        writer.commit(Some(descriptor.size), Some(&descriptor.digest), labels).await.map_err(inner)?;
        tail.complete(&file, descriptor.size);
        self.reporter.about("complete", descriptor, parent, descriptor.size);
        Ok(())
    }

    /// All of a small blob that is in the store.
    pub async fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let what = key(descriptor);
        let blob = self.content.open_blob(self.scope, &descriptor.digest).await.map_err(inner)?;
        if blob.size > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { what, size: blob.size, limit: MAX_DOCUMENT });
        }
        let read = shared_sys::blocking(move || {
            let mut bytes = Vec::with_capacity(blob.size as usize);
            (&blob.file).take(MAX_DOCUMENT).read_to_end(&mut bytes).map(|_| bytes)
        });
        read.await.map_err(|source| ImageError::Io { what: format!("read {}", descriptor.digest), source })
    }

    async fn board(&self, descriptor: &Descriptor) -> tokio::sync::OwnedMutexGuard<()> {
        self.flights.board((self.scope.ns.clone(), descriptor.digest.clone())).await
    }

    /// Whether the blob is in the store; then the lease holds it.
    async fn stored(&self, descriptor: &Descriptor) -> Result<bool, ImageError> {
        let info = match self.content.hold(self.scope, &descriptor.digest).await {
            Ok(info) => info,
            Err(ContentError::NotFound(_)) => return Ok(false),
            Err(e) => return Err(inner(e)),
        };
        if info.size != descriptor.size {
            let (host, what) = ("the content store".to_owned(), key(descriptor));
            return Err(ImageError::WrongSize { host, what, expected: descriptor.size, found: info.size });
        }
        Ok(true)
    }

    /// A writer that goes on where the last one stopped; `None` when the blob has come in the meantime.
    async fn writer(&self, descriptor: &Descriptor) -> Result<Option<crate::content::Writer>, ImageError> {
        let deadline = Instant::now() + LOCKED;
        loop {
            let opened =
                self.content.writer(self.scope, &key(descriptor), Some(&descriptor.digest), descriptor.size).await;
            match opened {
                Ok(writer) => return Ok(Some(writer)),
                Err(ContentError::Exists(_)) => return Ok(None),
                Err(ContentError::Locked(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(e) => return Err(inner(e)),
            }
        }
    }

    /// Throws away what has come of these blobs, unless another pull or another client is fetching them.
    ///
    /// A download that was cancelled in the middle of a block lets go of its ingest only when that block is on the
    /// disk, so a lock may still be our own: it is given a moment.
    pub async fn discard(&self, blobs: impl Iterator<Item = &Descriptor>) {
        for blob in blobs {
            let reference = key(blob);
            let Some(_flight) = self.flights.try_board((self.scope.ns.clone(), blob.digest.clone())) else { continue };
            if !self.released(&reference).await {
                continue;
            }
            match self.content.abort(self.scope, &reference).await {
                Ok(()) | Err(ContentError::NoIngest(_)) => {}
                Err(error) => tracing::warn!(reference, %error, "an unfinished download stays"),
            }
        }
    }

    /// Waits until nobody writes the ingest, at most [`LETTING_GO`]; says whether that is so.
    async fn released(&self, reference: &str) -> bool {
        let deadline = Instant::now() + LETTING_GO;
        while self.content.is_locked(self.scope.ns.as_str(), reference) {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Stores a document with these labels, or adds them to the one that is there.
    async fn keep(&self, descriptor: &Descriptor, bytes: Bytes, labels: Labels) -> Result<(), ImageError> {
        let Some(mut writer) = self.writer(descriptor).await? else {
            return self.label(descriptor, labels).await;
        };
        if writer.offset() > 0 {
            writer.truncate().await.map_err(inner)?;
        }
        writer.write(bytes).await.map_err(inner)?;
        let labels = self.source(labels);
        writer.commit(Some(descriptor.size), Some(&descriptor.digest), labels).await.map_err(inner)?;
        Ok(())
    }

    /// Adds labels to a blob, and from where it can be had again.
    pub async fn label(&self, descriptor: &Descriptor, mut labels: Labels) -> Result<(), ImageError> {
        if let Some(registry) = self.registry {
            let name = source_label(registry);
            let info = self.content.info(self.scope, &descriptor.digest).await.map_err(inner)?;
            let known = info.labels.get(&name).map_or("", String::as_str);
            if !known.split(',').any(|repository| repository == registry.reference.repository) {
                let all = [known, &registry.reference.repository].join(",");
                let all = all.trim_start_matches(',').to_owned();
                // Where else it may be had is only a hint: beyond the limit of labels it is left out.
                if name.len() + all.len() <= crate::domain::labels::MAX_LABEL {
                    labels.insert(name, all);
                }
            }
        }
        if !labels.is_empty() {
            self.content.set_labels(self.scope, &descriptor.digest, labels).await.map_err(inner)?;
        }
        Ok(())
    }

    fn source(&self, mut labels: Labels) -> Labels {
        if let Some(registry) = self.registry {
            labels.insert(source_label(registry), registry.reference.repository.clone());
        }
        labels
    }

    fn missing(&self, descriptor: &Descriptor) -> ImageError {
        ImageError::Malformed { what: "the archive".into(), reason: format!("it has no blob {}", descriptor.digest) }
    }
}

/// Names where blobs came from: the registry's host, without its port, as containerd does.
fn source_label(registry: &Registry) -> String {
    format!("containerd.io/distribution.source.{}", registry.reference.host())
}

/// The labels that keep what a document names.
pub(super) fn children(document: &Document) -> Labels {
    let numbered = |kind: &'static str, all: &[Descriptor]| -> Labels {
        let label =
            |(n, d): (usize, &Descriptor)| (format!("containerd.io/gc.ref.content.{kind}.{n}"), d.digest.to_string());
        all.iter().enumerate().map(label).collect()
    };
    match document {
        Document::Index { manifests } => numbered("m", manifests),
        Document::Manifest { config, layers } => {
            let mut labels = numbered("l", layers);
            labels.insert("containerd.io/gc.ref.content.config".into(), config.digest.to_string());
            labels
        }
    }
}
