//! Files without records, and records without files: what a crash between the two steps of a change leaves.

use std::io;

use shared_sys::files::Durability;

use super::{ContentError, Store, io_error};
use crate::domain::Digest;
use crate::metadata::DbError;
use crate::metadata::content as rows;

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Files of blobs that are gone.
    pub blobs: usize,
    /// Folders of ingests that are gone.
    pub ingests: usize,
    /// What could not be removed; the next sweep tries again.
    pub errors: Vec<ContentError>,
}

impl Store {
    /// Drops the records of blobs without a file, then [sweeps](Self::sweep). Before the first request.
    pub async fn recover(&self) -> Result<Sweep, ContentError> {
        let store = self.clone();
        let lost: Vec<String> = self
            .0
            .db
            .read(move |c| {
                let known = rows::all_digests(c)?;
                Ok::<_, DbError>(known.into_iter().filter(|digest| !store.has_file(digest)).collect())
            })
            .await?;
        if !lost.is_empty() {
            for digest in &lost {
                tracing::warn!(digest, "a blob's file is missing: its record is dropped");
            }
            let work = move |c: &rusqlite::Connection| {
                lost.iter().try_for_each(|digest| rows::delete_everywhere(c, digest).map(drop))
            };
            self.0.db.write(Durability::Durable, work).await?;
        }
        self.sweep().await
    }

    /// Drops the records of a blob of which the file is missing, so that it can be fetched again.
    pub(super) async fn forget_lost(&self, digest: &Digest) -> Result<(), ContentError> {
        // Pinned: somebody is just bringing it.
        let Some(_claim) = self.0.locks.claim(digest) else { return Ok(()) };
        let (store, name) = (self.clone(), digest.to_string());
        let work = move |c: &rusqlite::Connection| {
            if store.has_file(&name) || rows::delete_everywhere(c, &name)? == 0 {
                return Ok(());
            }
            tracing::warn!(digest = name, "a blob's file is missing: its record is dropped");
            Ok::<_, DbError>(())
        };
        Ok(self.0.db.write(Durability::Durable, work).await?)
    }

    fn has_file(&self, digest: &str) -> bool {
        // What can't be looked at is not known to be missing.
        let missing = |path| matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
        Digest::parse(digest).is_ok_and(|digest| !missing(self.blob_path(&digest)))
    }

    /// Removes files that no record names. What can't be removed delays nothing else.
    pub async fn sweep(&self) -> Result<Sweep, ContentError> {
        let mut sweep = Sweep::default();
        // The folders are listed before the records are read: what is made in between has a record in time.
        let (blobs, ingests) = (self.0.root.join("blobs/sha256"), self.0.root.join("ingest"));
        let listed = shared_sys::blocking(move || Ok::<_, io::Error>((names(&blobs)?, names(&ingests)?))).await;
        let (files, dirs) = listed.map_err(io_error(|| "list blobs and ingests".into()))?;
        let known = self.0.db.read(|c| Ok::<_, DbError>((rows::all_digests(c)?, rows::all_ingest_dirs(c)?)));
        let (digests, known_dirs) = known.await?;

        for name in files {
            // What has no digest for a name is not ours to judge.
            let Ok(digest) = Digest::parse(&format!("sha256:{name}")) else { continue };
            if !digests.contains(digest.as_str()) {
                match self.remove_file(&digest).await {
                    Ok(true) => sweep.blobs += 1,
                    Ok(false) => {}
                    Err(e) => sweep.errors.push(e),
                }
            }
        }
        for dir in dirs.into_iter().filter(|dir| !known_dirs.contains(dir)) {
            match self.remove_ingest_dir(dir).await {
                Ok(()) => sweep.ingests += 1,
                Err(e) => sweep.errors.push(e),
            }
        }
        Ok(sweep)
    }

    /// Removes the blob's file, unless a namespace sees it or somebody is about to record it. Says whether it was
    /// removed.
    pub(super) async fn remove_file(&self, digest: &Digest) -> Result<bool, ContentError> {
        let Some(claim) = self.0.locks.claim(digest) else { return Ok(false) };
        let wanted = digest.clone();
        if self.0.db.read(move |c| rows::size_anywhere(c, &wanted)).await?.is_some() {
            return Ok(false);
        }
        let path = self.blob_path(digest);
        // The claim goes with the removal: it outlives a dropped caller.
        let removed = shared_sys::blocking(move || {
            let _claim = claim;
            std::fs::remove_file(path)
        });
        match removed.await {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ContentError::Io { what: format!("remove blob {digest}"), source }),
        }
    }

    /// Removes the folder of an ingest, if it is there.
    pub(super) async fn remove_ingest_dir(&self, dir: String) -> Result<(), ContentError> {
        let path = self.ingest_path(&dir);
        match shared_sys::blocking(move || std::fs::remove_dir_all(path)).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ContentError::Io { what: format!("remove ingest {dir}"), source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn names(dir: &std::path::Path) -> io::Result<Vec<String>> {
    std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
