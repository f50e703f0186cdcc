//! Images from a tar file: an OCI layout, or what `docker save` writes; plain, gzip or zstd.
//!
//! The file is read once, as it comes, and never put on disk as a whole: each file in it goes straight into the
//! content store. Then the index says what the files are. Names of files are keys of a map and never paths, so nothing
//! in an archive can reach outside the store. An archive that is both (newer Docker) is read as an OCI layout.
//!
//! Several images in one archive are several image records. What can't run here is left out, unless it is all there is.

mod docker;
mod reader;
mod walk;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::reader::ChannelReader;
use self::walk::{Archive, Walk};
use super::ImageError;
use super::manifest::{Descriptor, Document, OCI_INDEX};
use super::progress::{Reporter, Sink};
use super::puller::{Puller, Transfer};
use super::target::{REF_NAME, Stored, Target};
use crate::domain::{Digest, Scope};

/// The version of OCI layouts that we know.
const LAYOUT: &str = "1.0.0";

/// What an archive holds.
struct Contents {
    /// Manifests and indexes, with the annotations that name them.
    entries: Vec<Descriptor>,
    /// The index of them all.
    index: Vec<u8>,
}

impl Puller {
    /// Imports an archive. `bytes` closes at its end; an error in it ends the import. Ends early, and cleans up, when
    /// `cancel` is cancelled.
    pub async fn import(
        &self,
        scope: &Scope,
        bytes: mpsc::Receiver<std::io::Result<Bytes>>,
        target: Target,
        sink: Sink,
        cancel: CancellationToken,
    ) -> Result<Vec<Stored>, ImageError> {
        let reporter = Arc::new(Reporter::new(sink, &target.label()));
        reporter.note("Importing", "", None);
        let transfer = self.begin(scope, reporter.clone(), cancel).await?;
        let work = async {
            let archive = transfer.read(bytes).await?;
            let contents = transfer.contents(archive).await?;
            transfer.adopt(contents, &target).await
        };
        let stored = transfer.run(work).await?;
        reporter.note("Completed import", "", None);
        Ok(stored)
    }
}

impl Transfer {
    /// Reads the archive to its end; every file in it goes into the store.
    async fn read(&self, bytes: mpsc::Receiver<std::io::Result<Bytes>>) -> Result<Archive, ImageError> {
        let patience = self.puller.settings().progress_timeout;
        let reader = ChannelReader::new(bytes, self.stop.clone(), patience);
        let walk = Walk::new(self.puller.content().clone(), self.scope.clone());
        // Ends when the reader does, which `stop` sees to.
        shared_sys::blocking(move || walk.run(reader)).await
    }

    /// What is in the archive, by what it says about itself.
    async fn contents(&self, archive: Archive) -> Result<Contents, ImageError> {
        let malformed = |reason: String| ImageError::Malformed { what: "the archive".into(), reason };
        let Some(version) = &archive.layout else { return docker::contents(self, &archive).await };
        if version != LAYOUT {
            return Err(malformed(format!("OCI layout of version {version:?}; only {LAYOUT} is known")));
        }
        let index = archive.index.ok_or_else(|| malformed("an OCI layout without index.json".into()))?;
        match Document::parse(OCI_INDEX, &index, "index.json")? {
            Document::Index { manifests } => Ok(Contents { entries: manifests, index }),
            Document::Manifest { .. } => Err(malformed("index.json is no index".into())),
        }
    }

    /// Unpacks what the archive holds, and makes image records.
    async fn adopt(&self, contents: Contents, target: &Target) -> Result<Vec<Stored>, ImageError> {
        let wanted = target.wanted();
        let fits = |entry: &&Descriptor| match &entry.platform {
            Some(platform) if !wanted.is_empty() => wanted.iter().any(|w| w.rank(platform).is_some()),
            Some(_) | None => true,
        };
        let mut entries: Vec<&Descriptor> = contents.entries.iter().filter(fits).collect();
        if entries.is_empty() {
            entries = contents.entries.iter().collect();
        }
        let (mut brought, mut foreign): (Vec<&Descriptor>, _) = (Vec::new(), None);
        for entry in &entries {
            // An image with several names has one entry a name.
            if brought.iter().any(|b| b.digest == entry.digest) {
                continue;
            }
            match self.bring(None, entry, None, target).await {
                Ok(_) => brought.push(entry),
                Err(e @ ImageError::NoPlatform { .. }) => foreign = Some(e),
                Err(e) => return Err(e),
            }
        }
        if let (true, Some(e)) = (brought.is_empty(), foreign) {
            return Err(e);
        }

        let mut stored = Vec::new();
        for entry in entries.iter().filter(|entry| brought.iter().any(|b| b.digest == entry.digest)) {
            stored.extend(self.store(target.names_inside(entry), entry, &target.labels).await?);
        }
        if target.names_whole() {
            let whole = match brought.as_slice() {
                [only] => (*only).clone(),
                _ => self.keep_index(&contents.index).await?,
            };
            stored.extend(self.store(target.names(&whole)?, &whole, &target.labels).await?);
        }
        if stored.is_empty() {
            let found: Vec<_> = entries.iter().filter_map(|e| e.annotations.get(REF_NAME)).collect();
            let reason = format!("it names no image (only {found:?}): give a name");
            return Err(ImageError::Malformed { what: "the archive".into(), reason });
        }
        Ok(stored)
    }

    /// Puts the index of all images into the store.
    async fn keep_index(&self, index: &[u8]) -> Result<Descriptor, ImageError> {
        let whole = Descriptor {
            media_type: OCI_INDEX.to_owned(),
            digest: Digest::of(index),
            size: index.len() as u64,
            annotations: Default::default(),
            platform: None,
        };
        self.fetcher(None).document(&whole, None, Some(index.to_vec())).await?;
        Ok(whole)
    }
}
