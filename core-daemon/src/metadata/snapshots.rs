//! Rows of `snapshots` (what clients see, by namespace) and of `layers` (what a snapshotter keeps for itself).
//!
//! Functions here read and write rows and judge nothing: the rules are in [`crate::snapshots`].

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{DbError, leases, namespaces, readable};
use crate::domain::filter::{self, Fields};
use crate::domain::{Labels, Namespace, labels};

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Read-only, with a life of its own.
    View,
    /// Being written.
    Active,
    /// Final: may be a parent.
    Committed,
}

/// A snapshot as its namespace sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub name: String,
    /// Empty = none.
    pub parent: String,
    pub kind: Kind,
    pub labels: Labels,
    /// Its key at the snapshotter.
    pub backend: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub updated_at: i64,
}

/// A snapshot as its snapshotter keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Names the folder. Children have larger ids than their parents.
    pub id: u64,
    pub key: String,
    /// Empty = none.
    pub parent: String,
    pub kind: Kind,
    pub labels: Labels,
    /// Of a committed layer; else 0.
    pub usage: Usage,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub updated_at: i64,
}

/// What a snapshot takes, without its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk.
    pub size: u64,
    pub inodes: u64,
}

impl Fields for Snapshot {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["name"] => Some(self.name.as_str().into()),
            ["parent"] => Some(self.parent.as_str().into()),
            // As containerd's clients write it.
            ["kind"] => Some(
                match self.kind {
                    Kind::View => "view",
                    Kind::Active => "active",
                    Kind::Committed => "committed",
                }
                .into(),
            ),
            ["labels", key @ ..] => filter::label(&self.labels, key),
            _ => None,
        }
    }
}

impl Kind {
    fn number(self) -> i64 {
        match self {
            Kind::View => 1,
            Kind::Active => 2,
            Kind::Committed => 3,
        }
    }

    fn from_number(number: i64) -> rusqlite::Result<Self> {
        match number {
            1 => Ok(Kind::View),
            2 => Ok(Kind::Active),
            3 => Ok(Kind::Committed),
            other => Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
        }
    }
}

fn labels_of(row: &Row<'_>, column: &str) -> rusqlite::Result<Labels> {
    let text: String = row.get(column)?;
    labels::from_json(&text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

fn snapshot(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        name: row.get("name")?,
        parent: row.get("parent")?,
        kind: Kind::from_number(row.get("kind")?)?,
        labels: labels_of(row, "labels")?,
        backend: row.get("backend")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn layer(row: &Row<'_>) -> rusqlite::Result<Layer> {
    Ok(Layer {
        id: row.get::<_, i64>("id")? as u64,
        key: row.get("key")?,
        parent: row.get("parent")?,
        kind: Kind::from_number(row.get("kind")?)?,
        labels: labels_of(row, "labels")?,
        usage: Usage { size: row.get::<_, i64>("size")? as u64, inodes: row.get::<_, i64>("inodes")? as u64 },
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

/// The snapshot `name`, if the namespace has it.
pub fn get(c: &Connection, ns: &Namespace, snapshotter: &str, name: &str) -> Result<Option<Snapshot>, DbError> {
    let mut statement = c.prepare_cached("SELECT * FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 AND name = ?3")?;
    Ok(statement.query_row(params![ns.as_str(), snapshotter, name], snapshot).optional()?)
}

/// All snapshots of a namespace at one snapshotter, by name.
pub fn list(c: &Connection, ns: &Namespace, snapshotter: &str) -> Result<Vec<Snapshot>, DbError> {
    let mut statement = c.prepare_cached("SELECT * FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 ORDER BY name")?;
    readable("snapshot", ns, statement.query_map(params![ns.as_str(), snapshotter], snapshot)?)
}

/// Whether other snapshots of the namespace stand on `name`.
pub fn has_children(c: &Connection, ns: &Namespace, snapshotter: &str, name: &str) -> Result<bool, DbError> {
    let mut statement =
        c.prepare_cached("SELECT 1 FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 AND parent = ?3 LIMIT 1")?;
    Ok(statement.exists(params![ns.as_str(), snapshotter, name])?)
}

/// Adds a row, and the namespace when it is missing. A taken name is an error of the database.
pub fn insert(c: &Connection, ns: &Namespace, snapshotter: &str, new: &Snapshot) -> Result<(), DbError> {
    namespaces::ensure(c, ns)?;
    c.prepare_cached(
        "INSERT INTO snapshots (ns, snapshotter, name, backend, parent, kind, labels, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        ns.as_str(),
        snapshotter,
        new.name,
        new.backend,
        new.parent,
        new.kind.number(),
        labels::to_json(&new.labels),
        new.created_at,
        new.updated_at,
    ])?;
    Ok(())
}

/// Removes a row and what leases say about it.
pub fn delete(c: &Connection, ns: &Namespace, snapshotter: &str, name: &str) -> Result<(), DbError> {
    c.prepare_cached("DELETE FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 AND name = ?3")?.execute(params![
        ns.as_str(),
        snapshotter,
        name
    ])?;
    leases::unprotect(c, ns, &resource(snapshotter), name)
}

/// Replaces the labels of a row.
pub fn set_labels(
    c: &Connection,
    ns: &Namespace,
    snapshotter: &str,
    name: &str,
    new: &Labels,
    at: i64,
) -> Result<(), DbError> {
    c.prepare_cached(
        "UPDATE snapshots SET labels = ?4, updated_at = ?5 WHERE ns = ?1 AND snapshotter = ?2 AND name = ?3",
    )?
    .execute(params![ns.as_str(), snapshotter, name, labels::to_json(new), at])?;
    Ok(())
}

/// The type of a snapshot among a lease's resources.
pub fn resource(snapshotter: &str) -> String {
    format!("{}{snapshotter}", leases::SNAPSHOTS)
}

/// Removes the row that stands for a layer, in whatever namespace.
pub fn delete_backend(c: &Connection, snapshotter: &str, backend: &str) -> Result<(), DbError> {
    c.prepare_cached("DELETE FROM snapshots WHERE snapshotter = ?1 AND backend = ?2")?
        .execute(params![snapshotter, backend])?;
    Ok(())
}

/// The keys of all layers that some namespace knows.
pub fn known_backends(c: &Connection, snapshotter: &str) -> Result<Vec<String>, DbError> {
    let mut statement = c.prepare_cached("SELECT backend FROM snapshots WHERE snapshotter = ?1")?;
    Ok(statement.query_map([snapshotter], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// The layer with this key.
pub fn get_layer(c: &Connection, snapshotter: &str, key: &str) -> Result<Option<Layer>, DbError> {
    let mut statement = c.prepare_cached("SELECT * FROM layers WHERE snapshotter = ?1 AND key = ?2")?;
    Ok(statement.query_row(params![snapshotter, key], layer).optional()?)
}

/// The layer and what it stands on, top first. Empty when there is no such layer.
pub fn chain(c: &Connection, snapshotter: &str, key: &str) -> Result<Vec<Layer>, DbError> {
    let mut statement = c.prepare_cached(
        "WITH RECURSIVE chain (depth, key) AS (
             VALUES (0, ?2)
             UNION ALL
             SELECT depth + 1, layers.parent FROM chain JOIN layers ON layers.snapshotter = ?1 AND layers.key = chain.key
             WHERE layers.parent <> ''
         )
         SELECT layers.* FROM chain JOIN layers ON layers.snapshotter = ?1 AND layers.key = chain.key ORDER BY depth",
    )?;
    Ok(statement.query_map(params![snapshotter, key], layer)?.collect::<rusqlite::Result<_>>()?)
}

/// All layers, children before parents.
pub fn list_layers(c: &Connection, snapshotter: &str) -> Result<Vec<Layer>, DbError> {
    let mut statement = c.prepare_cached("SELECT * FROM layers WHERE snapshotter = ?1 ORDER BY id DESC")?;
    Ok(statement.query_map([snapshotter], layer)?.collect::<rusqlite::Result<_>>()?)
}

/// Whether other layers stand on `key`.
pub fn layer_has_children(c: &Connection, snapshotter: &str, key: &str) -> Result<bool, DbError> {
    let mut statement = c.prepare_cached("SELECT 1 FROM layers WHERE snapshotter = ?1 AND parent = ?2 LIMIT 1")?;
    Ok(statement.exists(params![snapshotter, key])?)
}

/// Adds a layer. A taken key is an error of the database.
pub fn insert_layer(c: &Connection, snapshotter: &str, new: &Layer) -> Result<(), DbError> {
    c.prepare_cached(
        "INSERT INTO layers (snapshotter, id, key, parent, kind, labels, size, inodes, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        snapshotter,
        new.id as i64,
        new.key,
        new.parent,
        new.kind.number(),
        labels::to_json(&new.labels),
        new.usage.size as i64,
        new.usage.inodes as i64,
        new.created_at,
        new.updated_at,
    ])?;
    Ok(())
}

/// Removes a layer's row.
pub fn delete_layer(c: &Connection, snapshotter: &str, key: &str) -> Result<(), DbError> {
    c.prepare_cached("DELETE FROM layers WHERE snapshotter = ?1 AND key = ?2")?.execute(params![snapshotter, key])?;
    Ok(())
}
