//! Table `namespaces`. A row appears by itself when something is written into a namespace.

use rusqlite::{Connection, OptionalExtension, params};

use super::{DbError, Kind, MetadataError, labels_at};
use crate::domain::{Labels, Namespace, labels};

/// The tables whose rows keep a namespace from being deleted, and so do snapshots. Leases and ingests don't.
const KEEPERS: [&str; 4] = ["containers", "sandboxes", "images", "blobs"];

/// Makes the namespace if it is missing.
pub fn ensure(c: &Connection, ns: &Namespace) -> Result<(), DbError> {
    c.prepare_cached("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)")?.execute([ns.as_str()])?;
    Ok(())
}

/// The labels of a namespace, or `None` if it does not exist.
pub fn get(c: &Connection, ns: &Namespace) -> Result<Option<Labels>, DbError> {
    let mut statement = c.prepare_cached("SELECT labels FROM namespaces WHERE name = ?1")?;
    Ok(statement.query_row([ns.as_str()], |row| labels_at(row, 0)).optional()?)
}

/// All namespaces with their labels, by name.
pub fn list(c: &Connection) -> Result<Vec<(Namespace, Labels)>, DbError> {
    let mut statement = c.prepare_cached("SELECT name, labels FROM namespaces ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, labels_at(row, 1)?)))?;
    let mut all = Vec::new();
    for row in rows {
        let (name, labels) = row?;
        match Namespace::parse(&name) {
            Ok(ns) => all.push((ns, labels)),
            Err(error) => tracing::warn!(%error, "a damaged namespace record is left out"),
        }
    }
    Ok(all)
}

/// Makes a namespace. `Exists` if there is one.
pub fn create(c: &Connection, ns: &Namespace, mut new: Labels) -> Result<Labels, MetadataError> {
    labels::check(&new)?;
    labels::drop_empty(&mut new);
    let made = c
        .prepare_cached("INSERT OR IGNORE INTO namespaces (name, labels) VALUES (?1, ?2)")?
        .execute(params![ns.as_str(), labels::to_json(&new)])?;
    if made == 0 {
        return Err(MetadataError::Exists(Kind::Namespace, ns.to_string()));
    }
    Ok(new)
}

/// Replaces the labels, or with `merge` only those that are given. Makes the namespace if it is missing.
pub fn set_labels(c: &Connection, ns: &Namespace, new: Labels, merge: bool) -> Result<Labels, MetadataError> {
    labels::check(&new)?;
    let mut all = if merge { get(c, ns)?.unwrap_or_default() } else { Labels::new() };
    labels::merge(&mut all, new);
    c.prepare_cached(
        "INSERT INTO namespaces (name, labels) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET labels = excluded.labels",
    )?
    .execute(params![ns.as_str(), labels::to_json(&all)])?;
    Ok(all)
}

/// Deletes an empty namespace, with its leases and unfinished ingests. `NotFound`; `Precondition` if it is not empty.
pub fn delete(c: &Connection, ns: &Namespace) -> Result<(), MetadataError> {
    if get(c, ns)?.is_none() {
        return Err(MetadataError::NotFound(Kind::Namespace, ns.to_string()));
    }
    let mut left = Vec::new();
    for table in KEEPERS {
        let mut statement = c.prepare_cached(&format!("SELECT 1 FROM {table} WHERE ns = ?1 LIMIT 1"))?;
        if statement.exists([ns.as_str()])? {
            left.push(table.to_owned());
        }
    }
    let mut statement = c.prepare_cached("SELECT DISTINCT snapshotter FROM snapshots WHERE ns = ?1 ORDER BY 1")?;
    for snapshotter in statement.query_map([ns.as_str()], |row| row.get::<_, String>(0))? {
        left.push(format!("snapshots on {:?} snapshotter", snapshotter?));
    }
    if !left.is_empty() {
        let reason = format!("must be empty, but it still has {}", left.join(", "));
        return Err(MetadataError::Precondition(Kind::Namespace, ns.to_string(), reason));
    }
    c.prepare_cached("DELETE FROM leases WHERE ns = ?1")?.execute([ns.as_str()])?;
    c.prepare_cached("DELETE FROM ingests WHERE ns = ?1")?.execute([ns.as_str()])?;
    c.prepare_cached("DELETE FROM namespaces WHERE name = ?1")?.execute([ns.as_str()])?;
    Ok(())
}
