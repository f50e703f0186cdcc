//! Tables `containers` and `container_payloads`.
//!
//! Limits: a record is at most [`MAX_RECORD`] bytes, so that it fits into one message; [`MAX_EXTENSIONS`] extensions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{DbError, Kind, MetadataError, labels_at, namespaces, readable};
use crate::domain::filter::{self, Fields};
use crate::domain::{Id, Invalid, Labels, Namespace, Payload, labels};

mod update;

pub use update::{Change, same_backends, update};

/// The largest record, bytes: a message (16 MiB) less what surrounds the record in it.
pub const MAX_RECORD: usize = (16 << 20) - (64 << 10);
/// The most extensions of one container.
pub const MAX_EXTENSIONS: usize = 256;
/// The longest name of an image, a runtime, a snapshotter, a key or an extension, bytes.
const MAX_TEXT: usize = 4096;

const EXTENSION: &str = "extension";
const OPTIONS: &str = "options";
const SPEC: &str = "spec";

/// A container record. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    pub id: String,
    pub labels: Labels,
    pub image: String,
    pub runtime_name: String,
    pub runtime_options: Option<Payload>,
    pub spec: Option<Payload>,
    pub snapshotter: String,
    pub snapshot_key: String,
    pub sandbox: String,
    pub extensions: BTreeMap<String, Payload>,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Container {
    fn check(&self) -> Result<(), Invalid> {
        Id::parse(&self.id)?;
        labels::check(&self.labels)?;
        let name = &self.id;
        if self.runtime_name.is_empty() {
            return Err(Invalid(format!("container {name:?}: the runtime's name must be set")));
        }
        if !self.snapshot_key.is_empty() && self.snapshotter.is_empty() {
            return Err(Invalid(format!("container {name:?}: a snapshot key needs a snapshotter")));
        }
        if self.extensions.len() > MAX_EXTENSIONS {
            return Err(Invalid(format!("container {name:?}: more than {MAX_EXTENSIONS} extensions")));
        }
        let texts = [&self.image, &self.runtime_name, &self.snapshotter, &self.snapshot_key, &self.sandbox];
        if texts.into_iter().chain(self.extensions.keys()).any(|text| text.len() > MAX_TEXT) {
            return Err(Invalid(format!("container {name:?}: a name in the record is longer than {MAX_TEXT} bytes")));
        }
        if self.extensions.contains_key("") {
            return Err(Invalid(format!("container {name:?}: an extension has no name")));
        }
        let size = self.size();
        if size > MAX_RECORD {
            return Err(Invalid(format!("container {name:?}: its record has {size} bytes, more than {MAX_RECORD}")));
        }
        Ok(())
    }

    /// About how many bytes the record takes in a message.
    pub fn size(&self) -> usize {
        let payload = |p: &Payload| p.type_url.len() + p.value.len() + 16;
        let texts = self.image.len() + self.runtime_name.len() + self.snapshot_key.len() + self.snapshotter.len();
        let labels: usize = self.labels.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        let extensions: usize = self.extensions.iter().map(|(k, p)| k.len() + payload(p) + 16).sum();
        let carried = self.spec.iter().chain(&self.runtime_options).map(payload).sum::<usize>();
        128 + texts + labels + extensions + carried
    }
}

impl Fields for Container {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => Some(self.id.as_str().into()),
            ["runtime", "name"] => Some(self.runtime_name.as_str().into()),
            ["image"] => Some(self.image.as_str().into()),
            ["labels", key @ ..] => filter::label(&self.labels, key),
            _ => None,
        }
    }
}

const COLUMNS: &str = "id, labels, image, runtime_name, snapshotter, snapshot_key, sandbox, created_at, updated_at";

/// The record without its payloads.
fn head(row: &Row<'_>) -> rusqlite::Result<Container> {
    Ok(Container {
        id: row.get(0)?,
        labels: labels_at(row, 1)?,
        image: row.get(2)?,
        runtime_name: row.get(3)?,
        snapshotter: row.get(4)?,
        snapshot_key: row.get(5)?,
        sandbox: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
        ..Container::default()
    })
}

/// Reads the payloads of a record.
fn fill(c: &Connection, ns: &Namespace, container: &mut Container) -> Result<(), MetadataError> {
    let mut statement = c.prepare_cached(
        "SELECT kind, name, type_url, value FROM container_payloads WHERE ns = ?1 AND container = ?2",
    )?;
    let mut rows = statement.query(params![ns.as_str(), container.id])?;
    while let Some(row) = rows.next()? {
        let payload = Payload { type_url: row.get(2)?, value: row.get(3)? };
        match row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)? {
            EXTENSION => drop(container.extensions.insert(row.get(1)?, payload)),
            OPTIONS => container.runtime_options = Some(payload),
            SPEC => container.spec = Some(payload),
            other => {
                let reason = format!("unknown payload {other:?}");
                return Err(MetadataError::Damaged(Kind::Container, container.id.clone(), reason));
            }
        }
    }
    Ok(())
}

/// The container of this id. `NotFound`.
pub fn get(c: &Connection, ns: &Namespace, id: &str) -> Result<Container, MetadataError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE ns = ?1 AND id = ?2"))?;
    let found = statement.query_row(params![ns.as_str(), id], head).optional()?;
    let mut container = found.ok_or_else(|| MetadataError::NotFound(Kind::Container, id.to_owned()))?;
    fill(c, ns, &mut container)?;
    Ok(container)
}

/// All containers of a namespace that pass `keep`, by id. `keep` sees records without payloads.
pub fn list(
    c: &Connection,
    ns: &Namespace,
    keep: impl Fn(&Container) -> bool,
) -> Result<Vec<Container>, MetadataError> {
    page(c, ns, "", usize::MAX, keep)
}

/// The first containers behind the id `after` that pass `keep`, by id: at most `limit`, and not many more bytes than
/// one record may have.
pub fn page(
    c: &Connection,
    ns: &Namespace,
    after: &str,
    limit: usize,
    keep: impl Fn(&Container) -> bool,
) -> Result<Vec<Container>, MetadataError> {
    let mut statement =
        c.prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE ns = ?1 AND id > ?2 ORDER BY id"))?;
    let rows = statement.query_map(params![ns.as_str(), after], head)?;
    let wanted = rows.filter(|row| row.as_ref().map_or(true, &keep)).take(limit);
    let mut all = Vec::new();
    let mut size = 0;
    for mut container in readable("container", ns, wanted)? {
        match fill(c, ns, &mut container) {
            Ok(()) => {
                size += container.size();
                all.push(container);
            }
            Err(error @ MetadataError::Damaged(..)) => tracing::warn!(%ns, %error, "it is left out"),
            Err(e) => return Err(e),
        }
        if limit < usize::MAX && size > MAX_RECORD {
            break;
        }
    }
    Ok(all)
}

/// Makes a container; its times become now. `Exists`, `Invalid`.
pub fn create(c: &Connection, ns: &Namespace, mut new: Container) -> Result<Container, MetadataError> {
    new.check()?;
    labels::drop_empty(&mut new.labels);
    namespaces::ensure(c, ns)?;
    new.created_at = super::now();
    new.updated_at = new.created_at;
    let made = c
        .prepare_cached(&format!(
            "INSERT OR IGNORE INTO containers (ns, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
        ))?
        .execute(params![
            ns.as_str(),
            new.id,
            labels::to_json(&new.labels),
            new.image,
            new.runtime_name,
            new.snapshotter,
            new.snapshot_key,
            new.sandbox,
            new.created_at,
            new.updated_at,
        ])?;
    if made == 0 {
        return Err(MetadataError::Exists(Kind::Container, new.id));
    }
    put(c, ns, &new.id, SPEC, "", new.spec.as_ref())?;
    put(c, ns, &new.id, OPTIONS, "", new.runtime_options.as_ref())?;
    for (name, payload) in &new.extensions {
        put(c, ns, &new.id, EXTENSION, name, Some(payload))?;
    }
    Ok(new)
}

/// Sets or deletes one payload.
fn put(
    c: &Connection,
    ns: &Namespace,
    id: &str,
    kind: &str,
    name: &str,
    payload: Option<&Payload>,
) -> Result<(), DbError> {
    match payload {
        Some(payload) => c
            .prepare_cached(
                "INSERT INTO container_payloads (ns, container, kind, name, type_url, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (ns, container, kind, name)
                 DO UPDATE SET type_url = excluded.type_url, value = excluded.value",
            )?
            .execute(params![ns.as_str(), id, kind, name, payload.type_url, payload.value])?,
        None => c
            .prepare_cached(
                "DELETE FROM container_payloads WHERE ns = ?1 AND container = ?2 AND kind = ?3 AND name = ?4",
            )?
            .execute(params![ns.as_str(), id, kind, name])?,
    };
    Ok(())
}

/// Deletes a container. `NotFound`.
pub fn delete(c: &Connection, ns: &Namespace, id: &str) -> Result<(), MetadataError> {
    let gone =
        c.prepare_cached("DELETE FROM containers WHERE ns = ?1 AND id = ?2")?.execute(params![ns.as_str(), id])?;
    if gone == 0 { Err(MetadataError::NotFound(Kind::Container, id.to_owned())) } else { Ok(()) }
}
