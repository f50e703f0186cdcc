//! Changes of container records: only the payloads that change are written.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Container, EXTENSION, OPTIONS, SPEC, get, put};
use crate::domain::{Invalid, Labels, Namespace, Payload, labels};
use crate::metadata::{self, Kind, MetadataError};

/// One step of an update.
#[derive(Debug, Clone)]
pub enum Change {
    Labels(Labels),
    /// Sets one label; an empty value deletes it.
    Label(String, String),
    Spec(Option<Payload>),
    Extensions(BTreeMap<String, Payload>),
    /// Sets one extension; `None` deletes it.
    Extension(String, Option<Payload>),
    Image(String),
    SnapshotKey(String),
    Runtime(String, Option<Payload>),
}

/// Changes a container, step by step; only the payloads that change are written. `NotFound`, `Invalid`.
pub fn update(c: &Connection, ns: &Namespace, id: &str, changes: Vec<Change>) -> Result<Container, MetadataError> {
    let mut container = get(c, ns, id)?;
    for change in changes {
        match change {
            Change::Labels(new) => container.labels = new,
            Change::Label(key, value) => drop(container.labels.insert(key, value)),
            Change::Image(new) => container.image = new,
            Change::SnapshotKey(new) => container.snapshot_key = new,
            Change::Spec(new) => {
                put(c, ns, id, SPEC, "", new.as_ref())?;
                container.spec = new;
            }
            Change::Runtime(name, options) => {
                put(c, ns, id, OPTIONS, "", options.as_ref())?;
                (container.runtime_name, container.runtime_options) = (name, options);
            }
            Change::Extensions(new) => {
                for gone in container.extensions.keys().filter(|name| !new.contains_key(*name)) {
                    put(c, ns, id, EXTENSION, gone, None)?;
                }
                for (name, payload) in &new {
                    put(c, ns, id, EXTENSION, name, Some(payload))?;
                }
                container.extensions = new;
            }
            Change::Extension(name, payload) => {
                put(c, ns, id, EXTENSION, &name, payload.as_ref())?;
                match payload {
                    Some(payload) => drop(container.extensions.insert(name, payload)),
                    None => drop(container.extensions.remove(&name)),
                }
            }
        }
    }
    container.check()?;
    labels::drop_empty(&mut container.labels);
    container.updated_at = metadata::now();
    c.prepare_cached(
        "UPDATE containers SET labels = ?3, image = ?4, runtime_name = ?5, snapshot_key = ?6, updated_at = ?7
         WHERE ns = ?1 AND id = ?2",
    )?
    .execute(params![
        ns.as_str(),
        id,
        labels::to_json(&container.labels),
        container.image,
        container.runtime_name,
        container.snapshot_key,
        container.updated_at,
    ])?;
    Ok(container)
}

/// Refuses to go on if the container has another runtime or snapshotter: a whole new record can't change them.
pub fn same_backends(
    c: &Connection,
    ns: &Namespace,
    id: &str,
    runtime: &str,
    snapshotter: &str,
) -> Result<(), MetadataError> {
    let mut statement =
        c.prepare_cached("SELECT runtime_name, snapshotter FROM containers WHERE ns = ?1 AND id = ?2")?;
    let found: Option<(String, String)> =
        statement.query_row(params![ns.as_str(), id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (old_runtime, old_snapshotter) =
        found.ok_or_else(|| MetadataError::NotFound(Kind::Container, id.to_owned()))?;
    if runtime != old_runtime {
        return Err(Invalid(format!("container {id:?}: the runtime {old_runtime:?} can't be changed")).into());
    }
    if snapshotter != old_snapshotter {
        return Err(Invalid(format!("container {id:?}: the snapshotter {old_snapshotter:?} can't be changed")).into());
    }
    Ok(())
}
