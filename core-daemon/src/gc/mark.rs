//! What is still needed, namespace by namespace.
//!
//! | root | keeps |
//! |---|---|
//! | lease that has not expired | its resources; with the label `gc.flat` only them and what they can't be without |
//! | image that has not expired | its target |
//! | container | its snapshot, even one that is not there yet |
//! | sandbox record | what its labels name |
//! | ingest that has not expired, or is written | itself and the blob that it is to become |
//! | content or snapshot with a label `gc.root…` | itself |
//!
//! From there it goes on: an image keeps its target, a snapshot its parent, and every object what its labels name:
//! `gc.ref.content[.x]`, `gc.ref.snapshot.<snapshotter>[/x]`, `gc.ref.image[.x]`. With `gc.bref.…` an object attaches
//! itself to another one, and stays as long as that. Labels begin with `containerd.io/`; `gc.expire` holds RFC 3339.

use rusqlite::{Connection, params};

use super::graph::{Graph, Node, named, resource};
use crate::content::Store;
use crate::domain::{Labels, labels};
use crate::metadata::{self, DbError};

/// What all labels that matter here begin with.
pub(super) const PREFIX: &str = "containerd.io/gc.";

/// Records of one namespace that nothing holds.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    pub leases: Vec<String>,
    pub images: Vec<String>,
    /// Digests.
    pub blobs: Vec<String>,
    /// Snapshotters and names.
    pub snapshots: Vec<(String, String)>,
    /// Refs.
    pub ingests: Vec<String>,
}

/// The garbage of every namespace that has some.
pub(super) fn all(c: &Connection, content: &Store) -> Result<Vec<(String, Garbage)>, DbError> {
    let mut statement = c.prepare_cached(
        "SELECT name FROM namespaces UNION SELECT ns FROM images UNION SELECT ns FROM blobs
         UNION SELECT ns FROM snapshots UNION SELECT ns FROM ingests UNION SELECT ns FROM leases",
    )?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let now = metadata::now();
    let mut found = Vec::new();
    for ns in names {
        let garbage = one(c, &ns, now, |reference| content.is_locked(&ns, reference))?;
        if !garbage.is_empty() {
            found.push((ns, garbage));
        }
    }
    Ok(found)
}

fn one(c: &Connection, ns: &str, now: i64, is_locked: impl Fn(&str) -> bool) -> Result<Garbage, DbError> {
    let mut graph = Graph::default();
    let mut garbage = Garbage::default();
    let mut candidates = Vec::new();

    each(c, "SELECT id, labels FROM leases WHERE ns = ?1", ns, |row| {
        let (id, labels) = (row.get::<_, String>(0)?, gc_labels(row, 1)?);
        if expired(&labels, now) {
            garbage.leases.push(id);
            return Ok(());
        }
        let flat = labels.contains_key(&format!("{PREFIX}flat"));
        let mut held = c.prepare_cached("SELECT type, id FROM lease_resources WHERE ns = ?1 AND lease = ?2")?;
        let mut rows = held.query(params![ns, id])?;
        while let Some(row) = rows.next()? {
            let (kind, id): (String, String) = (row.get(0)?, row.get(1)?);
            if let Some(node) = resource(&kind, id) {
                graph.roots.push((node, flat));
            }
        }
        graph.roots.extend(named(&labels).map(|node| (node, false)));
        Ok(())
    })?;
    each(c, "SELECT name, labels, digest FROM images WHERE ns = ?1", ns, |row| {
        let (node, labels) = (Node::Image(row.get(0)?), gc_labels(row, 1)?);
        graph.parts.entry(node.clone()).or_default().push(Node::Content(row.get(2)?));
        graph.add_labels(&node, &labels);
        if expired(&labels, now) {
            candidates.push(node);
        } else {
            graph.roots.push((node, false));
        }
        Ok(())
    })?;
    each(c, "SELECT id, labels, snapshotter, snapshot_key FROM containers WHERE ns = ?1", ns, |row| {
        let (node, labels) = (Node::Container(row.get(0)?), gc_labels(row, 1)?);
        graph.parts.entry(node.clone()).or_default().push(Node::Snapshot(row.get(2)?, row.get(3)?));
        graph.add_labels(&node, &labels);
        graph.roots.push((node, false));
        Ok(())
    })?;
    each(c, "SELECT labels FROM sandboxes WHERE ns = ?1", ns, |row| {
        let labels = gc_labels(row, 0)?;
        graph.roots.extend(named(&labels).map(|node| (node, false)));
        Ok(())
    })?;
    each(c, "SELECT digest, labels FROM blobs WHERE ns = ?1", ns, |row| {
        let (node, labels) = (Node::Content(row.get(0)?), gc_labels(row, 1)?);
        graph.add_labels(&node, &labels);
        candidates.push(node);
        Ok(())
    })?;
    each(c, "SELECT snapshotter, name, parent, labels FROM snapshots WHERE ns = ?1", ns, |row| {
        let (snapshotter, name, parent): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (node, labels) = (Node::Snapshot(snapshotter.clone(), name), gc_labels(row, 3)?);
        if !parent.is_empty() {
            graph.parts.entry(node.clone()).or_default().push(Node::Snapshot(snapshotter, parent));
        }
        graph.add_labels(&node, &labels);
        candidates.push(node);
        Ok(())
    })?;
    each(c, "SELECT ref, expected, expires_at FROM ingests WHERE ns = ?1", ns, |row| {
        let (reference, expected): (String, String) = (row.get(0)?, row.get(1)?);
        let kept = row.get::<_, i64>(2)? > now || is_locked(&reference);
        let node = Node::Ingest(reference);
        if !expected.is_empty() {
            graph.parts.entry(node.clone()).or_default().push(Node::Content(expected));
        }
        if kept {
            graph.roots.push((node.clone(), false));
        }
        candidates.push(node);
        Ok(())
    })?;

    let needed = graph.needed();
    for node in candidates.into_iter().filter(|node| !needed.contains(node)) {
        match node {
            Node::Content(digest) => garbage.blobs.push(digest),
            Node::Snapshot(snapshotter, name) => garbage.snapshots.push((snapshotter, name)),
            Node::Image(name) => garbage.images.push(name),
            Node::Ingest(reference) => garbage.ingests.push(reference),
            // Always a root, never a candidate.
            Node::Container(_) => {}
        }
    }
    Ok(garbage)
}

fn each(
    c: &Connection,
    sql: &str,
    ns: &str,
    mut f: impl FnMut(&rusqlite::Row<'_>) -> Result<(), DbError>,
) -> Result<(), DbError> {
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query([ns])?;
    while let Some(row) = rows.next()? {
        f(row)?;
    }
    Ok(())
}

/// The labels that matter here. Labels that can't be read keep nothing, but their object can still be kept.
fn gc_labels(row: &rusqlite::Row<'_>, column: usize) -> Result<Labels, DbError> {
    let text = row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?;
    // Most objects have none: those need not be parsed.
    if !text.contains(PREFIX) {
        return Ok(Labels::new());
    }
    let mut all = labels::from_json(text).unwrap_or_else(|error| {
        tracing::warn!(%error, "damaged labels are left out");
        Labels::new()
    });
    all.retain(|key, _| key.starts_with(PREFIX));
    Ok(all)
}

/// Whether the label says that it is over. A time that can't be read is none.
fn expired(labels: &Labels, now: i64) -> bool {
    let Some(text) = labels.get(&format!("{PREFIX}expire")) else { return false };
    match text.parse::<prost_types::Timestamp>() {
        Ok(at) => i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos) < i128::from(now),
        Err(_) => {
            tracing::info!(text, "an expiry label that is not RFC 3339 is ignored");
            false
        }
    }
}

impl Garbage {
    fn is_empty(&self) -> bool {
        let Self { leases, images, blobs, snapshots, ingests } = self;
        leases.is_empty() && images.is_empty() && blobs.is_empty() && snapshots.is_empty() && ingests.is_empty()
    }

    /// Deletes the records.
    pub fn delete(&self, c: &Connection, ns: &str) -> Result<(), DbError> {
        let delete = |sql: &str, values: &[&str]| -> Result<(), DbError> {
            c.prepare_cached(sql)?.execute(rusqlite::params_from_iter([&[ns], values].concat()))?;
            Ok(())
        };
        let give_up = "DELETE FROM lease_resources WHERE ns = ?1 AND type = ?2 AND id = ?3";
        for id in &self.leases {
            delete("DELETE FROM leases WHERE ns = ?1 AND id = ?2", &[id])?;
        }
        for name in &self.images {
            delete("DELETE FROM images WHERE ns = ?1 AND name = ?2", &[name])?;
            delete(give_up, &["images", name])?;
        }
        for digest in &self.blobs {
            delete("DELETE FROM blobs WHERE ns = ?1 AND digest = ?2", &[digest])?;
        }
        for (snapshotter, name) in &self.snapshots {
            delete("DELETE FROM snapshots WHERE ns = ?1 AND snapshotter = ?2 AND name = ?3", &[snapshotter, name])?;
        }
        for reference in &self.ingests {
            delete("DELETE FROM ingests WHERE ns = ?1 AND ref = ?2", &[reference])?;
        }
        Ok(())
    }
}
