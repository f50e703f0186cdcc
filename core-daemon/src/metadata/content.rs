//! Tables `blobs` (which namespace sees which blob) and `ingests` (blobs that are being written).
//!
//! Functions here read and write rows and judge nothing: the rules are in [`crate::content`].

use std::borrow::Cow;
use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{DbError, digest_at, labels_at, readable};
use crate::domain::filter::{self, Fields};
use crate::domain::{Digest, Labels, Namespace, labels};

/// A blob as its namespace sees it. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub labels: Labels,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Fields for Info {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["digest"] => Some(self.digest.as_str().into()),
            ["size"] => Some(self.size.to_string().into()),
            ["labels", key @ ..] => filter::label(&self.labels, key),
            _ => None,
        }
    }
}

/// A blob that is being written. How far it got is state of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// What the client calls it.
    pub reference: String,
    /// The name of its folder, never used twice.
    pub dir: String,
    /// The digest it should get, if the client said.
    pub expected: Option<Digest>,
    /// The size it should get; 0 = unknown.
    pub total: u64,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// When it may be collected, if nobody writes and no lease holds it.
    pub expires_at: i64,
}

const COLUMNS: &str = "digest, size, labels, created_at, updated_at";
const INGEST: &str = "ref, dir, expected, total, started_at, expires_at";

fn info(row: &Row<'_>) -> rusqlite::Result<Info> {
    Ok(Info {
        digest: digest_at(row, 0)?,
        size: row.get::<_, i64>(1)? as u64,
        labels: labels_at(row, 2)?,
        created_at: row.get(3)?,
        updated_at: row.get(4)?,
    })
}

fn ingest(row: &Row<'_>) -> rusqlite::Result<Ingest> {
    Ok(Ingest {
        reference: row.get(0)?,
        dir: row.get(1)?,
        expected: Digest::parse(row.get_ref(2)?.as_str()?).ok(),
        total: row.get::<_, i64>(3)? as u64,
        started_at: row.get(4)?,
        expires_at: row.get(5)?,
    })
}

/// The blob, if the namespace sees it.
pub fn get(c: &Connection, ns: &Namespace, digest: &Digest) -> Result<Option<Info>, DbError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM blobs WHERE ns = ?1 AND digest = ?2"))?;
    Ok(statement.query_row(params![ns.as_str(), digest.as_str()], info).optional()?)
}

/// The size of the blob, if any namespace sees it.
pub fn size_anywhere(c: &Connection, digest: &Digest) -> Result<Option<u64>, DbError> {
    let mut statement = c.prepare_cached("SELECT size FROM blobs WHERE digest = ?1 LIMIT 1")?;
    Ok(statement.query_row([digest.as_str()], |row| row.get::<_, i64>(0).map(|size| size as u64)).optional()?)
}

/// The digests of all blobs that some namespace sees.
pub fn all_digests(c: &Connection) -> Result<HashSet<String>, DbError> {
    let mut statement = c.prepare_cached("SELECT DISTINCT digest FROM blobs")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// The first blobs behind the digest `after` that pass `keep`, by digest.
pub fn page(
    c: &Connection,
    ns: &Namespace,
    after: &str,
    limit: usize,
    keep: impl Fn(&Info) -> bool,
) -> Result<Vec<Info>, DbError> {
    let mut statement =
        c.prepare_cached(&format!("SELECT {COLUMNS} FROM blobs WHERE ns = ?1 AND digest > ?2 ORDER BY digest"))?;
    let rows = statement.query_map(params![ns.as_str(), after], info)?;
    readable("content", ns, rows.filter(|row| row.as_ref().map_or(true, &keep)).take(limit))
}

/// Adds a blob. `false` if the namespace sees it already.
pub fn insert(c: &Connection, ns: &Namespace, new: &Info) -> Result<bool, DbError> {
    let made = c
        .prepare_cached(&format!("INSERT OR IGNORE INTO blobs (ns, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"))?
        .execute(params![
            ns.as_str(),
            new.digest.as_str(),
            new.size as i64,
            labels::to_json(&new.labels),
            new.created_at,
            new.updated_at,
        ])?;
    Ok(made > 0)
}

/// Replaces the labels of a blob.
pub fn set_labels(c: &Connection, ns: &Namespace, digest: &Digest, new: &Labels, at: i64) -> Result<(), DbError> {
    c.prepare_cached("UPDATE blobs SET labels = ?3, updated_at = ?4 WHERE ns = ?1 AND digest = ?2")?
        .execute(params![ns.as_str(), digest.as_str(), labels::to_json(new), at])?;
    Ok(())
}

/// The namespace no longer sees the blob. `false` if it didn't.
pub fn delete(c: &Connection, ns: &str, digest: &str) -> Result<bool, DbError> {
    Ok(c.prepare_cached("DELETE FROM blobs WHERE ns = ?1 AND digest = ?2")?.execute(params![ns, digest])? > 0)
}

/// The blob is gone for every namespace. Says how many saw it.
pub fn delete_everywhere(c: &Connection, digest: &str) -> Result<usize, DbError> {
    Ok(c.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?.execute([digest])?)
}

/// The ingest of this name.
pub fn get_ingest(c: &Connection, ns: &Namespace, reference: &str) -> Result<Option<Ingest>, DbError> {
    let mut statement = c.prepare_cached(&format!("SELECT {INGEST} FROM ingests WHERE ns = ?1 AND ref = ?2"))?;
    Ok(statement.query_row(params![ns.as_str(), reference], ingest).optional()?)
}

/// All ingests of a namespace, by name.
pub fn list_ingests(c: &Connection, ns: &Namespace) -> Result<Vec<Ingest>, DbError> {
    let mut statement = c.prepare_cached(&format!("SELECT {INGEST} FROM ingests WHERE ns = ?1 ORDER BY ref"))?;
    readable("ingest", ns, statement.query_map([ns.as_str()], ingest)?)
}

/// The folders of all ingests.
pub fn all_ingest_dirs(c: &Connection) -> Result<HashSet<String>, DbError> {
    let mut statement = c.prepare_cached("SELECT dir FROM ingests")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Adds or replaces an ingest.
pub fn put_ingest(c: &Connection, ns: &Namespace, new: &Ingest) -> Result<(), DbError> {
    c.prepare_cached(&format!("INSERT OR REPLACE INTO ingests (ns, {INGEST}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"))?
        .execute(params![
            ns.as_str(),
            new.reference,
            new.dir,
            new.expected.as_ref().map_or("", Digest::as_str),
            new.total as i64,
            new.started_at,
            new.expires_at,
        ])?;
    Ok(())
}

/// Removes the ingest with this folder. `false` if there is none.
pub fn delete_ingest(c: &Connection, dir: &str) -> Result<bool, DbError> {
    Ok(c.prepare_cached("DELETE FROM ingests WHERE dir = ?1")?.execute([dir])? > 0)
}
