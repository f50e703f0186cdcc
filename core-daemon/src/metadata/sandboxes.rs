//! Table `sandboxes`: records of containerd's sandbox store, carried for whoever made them.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Kind, MetadataError, labels_at, namespaces, readable};
use crate::domain::filter::{self, Fields};
use crate::domain::{Id, Invalid, Labels, Namespace, labels};

/// The largest encoded record, bytes.
pub const MAX_RECORD: usize = (16 << 20) - (64 << 10);

/// A sandbox record. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub labels: Labels,
    /// The rest, encoded.
    pub record: Vec<u8>,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Sandbox {
    fn check(&mut self) -> Result<(), Invalid> {
        Id::parse(&self.id)?;
        labels::check(&self.labels)?;
        labels::drop_empty(&mut self.labels);
        let size = self.record.len();
        if size > MAX_RECORD {
            return Err(Invalid(format!("sandbox {:?}: its record has {size} bytes, more than {MAX_RECORD}", self.id)));
        }
        Ok(())
    }
}

impl Fields for Sandbox {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => Some(self.id.as_str().into()),
            ["labels", key @ ..] => filter::label(&self.labels, key),
            _ => None,
        }
    }
}

fn sandbox(row: &Row<'_>) -> rusqlite::Result<Sandbox> {
    Ok(Sandbox {
        id: row.get(0)?,
        labels: labels_at(row, 1)?,
        record: row.get(2)?,
        created_at: row.get(3)?,
        updated_at: row.get(4)?,
    })
}

const COLUMNS: &str = "id, labels, record, created_at, updated_at";

/// The sandbox of this id. `NotFound`.
pub fn get(c: &Connection, ns: &Namespace, id: &str) -> Result<Sandbox, MetadataError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM sandboxes WHERE ns = ?1 AND id = ?2"))?;
    let found = statement.query_row(params![ns.as_str(), id], sandbox).optional()?;
    found.ok_or_else(|| MetadataError::NotFound(Kind::Sandbox, id.to_owned()))
}

/// All sandboxes of a namespace, by id.
pub fn list(c: &Connection, ns: &Namespace) -> Result<Vec<Sandbox>, MetadataError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM sandboxes WHERE ns = ?1 ORDER BY id"))?;
    Ok(readable("sandbox", ns, statement.query_map([ns.as_str()], sandbox)?)?)
}

/// Makes a sandbox; its times become now. `Exists`, `Invalid`.
pub fn create(c: &Connection, ns: &Namespace, mut new: Sandbox) -> Result<Sandbox, MetadataError> {
    new.check()?;
    namespaces::ensure(c, ns)?;
    new.created_at = super::now();
    new.updated_at = new.created_at;
    let made = c
        .prepare_cached(&format!("INSERT OR IGNORE INTO sandboxes (ns, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"))?
        .execute(params![
            ns.as_str(),
            new.id,
            labels::to_json(&new.labels),
            new.record,
            new.created_at,
            new.updated_at
        ])?;
    if made == 0 { Err(MetadataError::Exists(Kind::Sandbox, new.id)) } else { Ok(new) }
}

/// Replaces labels and record; `updated_at` becomes now. `NotFound`, `Invalid`.
pub fn replace(c: &Connection, ns: &Namespace, mut new: Sandbox) -> Result<Sandbox, MetadataError> {
    new.check()?;
    new.updated_at = super::now();
    let changed = c
        .prepare_cached("UPDATE sandboxes SET labels = ?3, record = ?4, updated_at = ?5 WHERE ns = ?1 AND id = ?2")?
        .execute(params![ns.as_str(), new.id, labels::to_json(&new.labels), new.record, new.updated_at])?;
    if changed == 0 { Err(MetadataError::NotFound(Kind::Sandbox, new.id)) } else { Ok(new) }
}

/// Deletes a sandbox. `NotFound`.
pub fn delete(c: &Connection, ns: &Namespace, id: &str) -> Result<(), MetadataError> {
    let gone =
        c.prepare_cached("DELETE FROM sandboxes WHERE ns = ?1 AND id = ?2")?.execute(params![ns.as_str(), id])?;
    if gone == 0 { Err(MetadataError::NotFound(Kind::Sandbox, id.to_owned())) } else { Ok(()) }
}
