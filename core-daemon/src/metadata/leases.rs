//! Tables `leases` and `lease_resources`: what must not be collected, on whose behalf.
//!
//! A lease may name things that don't exist (yet); that is how a client protects what it is about to make.

use std::borrow::Cow;

use rusqlite::{Connection, params};

use super::{DbError, Kind, MetadataError, labels_at, namespaces, readable};
use crate::domain::filter::{self, Fields};
use crate::domain::{Digest, Invalid, Labels, LeaseId, Namespace, Scope, labels};

/// Types of resources, but for `snapshots/<snapshotter>`.
pub const CONTENT: &str = "content";
pub const INGESTS: &str = "ingests";
pub const IMAGES: &str = "images";
/// Snapshots are `snapshots/<snapshotter>`.
pub const SNAPSHOTS: &str = "snapshots/";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub id: String,
    pub labels: Labels,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
}

/// Something that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `content`, `ingests`, `images` or `snapshots/<snapshotter>`.
    pub kind: String,
    /// A digest, a ref, an image's name or a snapshot's key.
    pub id: String,
}

impl Fields for Lease {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => Some(self.id.as_str().into()),
            ["labels", key @ ..] => filter::label(&self.labels, key),
            _ => None,
        }
    }
}

impl Resource {
    /// Refuses types that can't be leased and ids that their type can't have.
    fn check(&self) -> Result<(), MetadataError> {
        match self.kind.as_str() {
            CONTENT => drop(Digest::parse(&self.id)?),
            INGESTS | IMAGES => {}
            other => match other.strip_prefix(SNAPSHOTS) {
                Some(snapshotter) if !snapshotter.is_empty() && !snapshotter.contains('/') => {}
                Some(_) => return Err(Invalid(format!("resource type {other:?} names no snapshotter")).into()),
                None => return Err(MetadataError::ResourceType(other.to_owned())),
            },
        }
        if self.id.is_empty() {
            return Err(Invalid(format!("a resource of type {:?} needs an id", self.kind)).into());
        }
        Ok(())
    }
}

/// Makes a lease. `Exists` if there is one of that id.
pub fn create(c: &Connection, ns: &Namespace, id: &LeaseId, mut new: Labels) -> Result<Lease, MetadataError> {
    labels::check(&new)?;
    labels::drop_empty(&mut new);
    namespaces::ensure(c, ns)?;
    let lease = Lease { id: id.to_string(), labels: new, created_at: super::now() };
    let made = c
        .prepare_cached("INSERT OR IGNORE INTO leases (ns, id, labels, created_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![ns.as_str(), lease.id, labels::to_json(&lease.labels), lease.created_at])?;
    if made == 0 {
        return Err(MetadataError::Exists(Kind::Lease, lease.id));
    }
    Ok(lease)
}

/// Deletes a lease and gives up what it held. `NotFound`.
pub fn delete(c: &Connection, ns: &Namespace, id: &str) -> Result<(), MetadataError> {
    let gone = c.prepare_cached("DELETE FROM leases WHERE ns = ?1 AND id = ?2")?.execute(params![ns.as_str(), id])?;
    if gone == 0 { Err(MetadataError::NotFound(Kind::Lease, id.to_owned())) } else { Ok(()) }
}

/// All leases of a namespace, by id.
pub fn list(c: &Connection, ns: &Namespace) -> Result<Vec<Lease>, MetadataError> {
    let mut statement = c.prepare_cached("SELECT id, labels, created_at FROM leases WHERE ns = ?1 ORDER BY id")?;
    let rows = statement.query_map([ns.as_str()], |row| {
        Ok(Lease { id: row.get(0)?, labels: labels_at(row, 1)?, created_at: row.get(2)? })
    })?;
    Ok(readable("lease", ns, rows)?)
}

/// Lets the lease hold something. Adding it twice is no error. `NotFound` for an unknown lease.
pub fn add_resource(c: &Connection, ns: &Namespace, lease: &str, new: &Resource) -> Result<(), MetadataError> {
    new.check()?;
    known(c, ns, lease)?;
    Ok(insert(c, ns, lease, &new.kind, &new.id)?)
}

/// The lease no longer holds this. Giving up what it didn't hold is no error. `NotFound` for an unknown lease.
pub fn delete_resource(c: &Connection, ns: &Namespace, lease: &str, old: &Resource) -> Result<(), MetadataError> {
    old.check()?;
    known(c, ns, lease)?;
    c.prepare_cached("DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2 AND type = ?3 AND id = ?4")?
        .execute(params![ns.as_str(), lease, old.kind, old.id])?;
    Ok(())
}

/// What the lease holds, by type and id. `NotFound` for an unknown lease.
pub fn list_resources(c: &Connection, ns: &Namespace, lease: &str) -> Result<Vec<Resource>, MetadataError> {
    known(c, ns, lease)?;
    let mut statement =
        c.prepare_cached("SELECT type, id FROM lease_resources WHERE ns = ?1 AND lease = ?2 ORDER BY type, id")?;
    let rows =
        statement.query_map(params![ns.as_str(), lease], |row| Ok(Resource { kind: row.get(0)?, id: row.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Adds what was made or found to the scope's lease, if it has one. `NotFound` for an unknown lease.
pub fn protect(c: &Connection, scope: &Scope, kind: &str, id: &str) -> Result<(), MetadataError> {
    let Some(lease) = &scope.lease else { return Ok(()) };
    known(c, &scope.ns, lease.as_str())?;
    Ok(insert(c, &scope.ns, lease.as_str(), kind, id)?)
}

/// No lease holds this any longer: it is gone.
pub fn unprotect(c: &Connection, ns: &Namespace, kind: &str, id: &str) -> Result<(), DbError> {
    c.prepare_cached("DELETE FROM lease_resources WHERE ns = ?1 AND type = ?2 AND id = ?3")?.execute(params![
        ns.as_str(),
        kind,
        id
    ])?;
    Ok(())
}

fn known(c: &Connection, ns: &Namespace, lease: &str) -> Result<(), MetadataError> {
    let mut statement = c.prepare_cached("SELECT 1 FROM leases WHERE ns = ?1 AND id = ?2")?;
    if statement.exists(params![ns.as_str(), lease])? {
        Ok(())
    } else {
        Err(MetadataError::NotFound(Kind::Lease, lease.to_owned()))
    }
}

fn insert(c: &Connection, ns: &Namespace, lease: &str, kind: &str, id: &str) -> Result<(), DbError> {
    c.prepare_cached("INSERT OR IGNORE INTO lease_resources (ns, lease, type, id) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![ns.as_str(), lease, kind, id])?;
    Ok(())
}
