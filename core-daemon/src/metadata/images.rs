//! Table `images`: names that point at descriptors.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::leases::{self, IMAGES};
use super::{Kind, MetadataError, digest_at, labels_at, namespaces, readable};
use crate::domain::filter::{self, Fields};
use crate::domain::{Invalid, Labels, Namespace, Scope, labels};

pub use crate::domain::Descriptor;

/// The longest name of an image, bytes.
pub const MAX_NAME: usize = 1024;

/// An image record. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub name: String,
    pub labels: Labels,
    pub target: Descriptor,
    /// Set by [`create`] and [`upsert`] when it is 0.
    pub created_at: i64,
    /// Set by every write when it is 0.
    pub updated_at: i64,
}

/// One step of an update.
#[derive(Debug, Clone)]
pub enum Change {
    Labels(Labels),
    /// Sets one label; an empty value deletes it.
    Label(String, String),
    /// The target is replaced as a whole.
    Target(Descriptor),
    Annotations(Labels),
    Annotation(String, String),
}

impl Image {
    fn check(&mut self) -> Result<(), Invalid> {
        if self.name.is_empty() {
            return Err(Invalid("image name must not be empty".into()));
        }
        if self.name.len() > MAX_NAME {
            let shown: String = self.name.chars().take(64).collect();
            return Err(Invalid(format!("image name {shown:?}… is longer than {MAX_NAME} bytes")));
        }
        labels::check(&self.labels)?;
        labels::check(&self.target.annotations)?;
        labels::drop_empty(&mut self.labels);
        if self.target.media_type.is_empty() {
            return Err(Invalid(format!("image {:?}: the target's media type must be set", self.name)));
        }
        if self.target.size <= 0 {
            return Err(Invalid(format!("image {:?}: the target's size must be greater than 0", self.name)));
        }
        Ok(())
    }
}

impl Fields for Image {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["name"] => Some(self.name.as_str().into()),
            ["target", "digest"] => Some(self.target.digest.as_str().into()),
            ["target", "mediatype"] => Some(self.target.media_type.as_str().into()),
            ["labels", key @ ..] => filter::label(&self.labels, key),
            ["annotations", key @ ..] => filter::label(&self.target.annotations, key),
            _ => None,
        }
    }
}

const COLUMNS: &str = "name, labels, media_type, digest, size, annotations, created_at, updated_at";

fn image(row: &Row<'_>) -> rusqlite::Result<Image> {
    Ok(Image {
        name: row.get(0)?,
        labels: labels_at(row, 1)?,
        target: Descriptor {
            media_type: row.get(2)?,
            digest: digest_at(row, 3)?,
            size: row.get(4)?,
            annotations: labels_at(row, 5)?,
        },
        created_at: row.get(6)?,
        updated_at: row.get(7)?,
    })
}

fn find(c: &Connection, ns: &Namespace, name: &str) -> Result<Option<Image>, MetadataError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM images WHERE ns = ?1 AND name = ?2"))?;
    Ok(statement.query_row(params![ns.as_str(), name], image).optional()?)
}

/// The image of this name. `NotFound`.
pub fn get(c: &Connection, ns: &Namespace, name: &str) -> Result<Image, MetadataError> {
    find(c, ns, name)?.ok_or_else(|| MetadataError::NotFound(Kind::Image, name.to_owned()))
}

/// All images of a namespace, by name.
pub fn list(c: &Connection, ns: &Namespace) -> Result<Vec<Image>, MetadataError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM images WHERE ns = ?1 ORDER BY name"))?;
    let rows = statement.query_map([ns.as_str()], image)?;
    Ok(readable("image", ns, rows)?)
}

/// Makes an image and adds it to the scope's lease. `Exists`, `Invalid`.
pub fn create(c: &Connection, scope: &Scope, mut new: Image) -> Result<Image, MetadataError> {
    new.check()?;
    namespaces::ensure(c, &scope.ns)?;
    let now = super::now();
    new.created_at = if new.created_at == 0 { now } else { new.created_at };
    new.updated_at = if new.updated_at == 0 { now } else { new.updated_at };
    let made = c
        .prepare_cached(&format!(
            "INSERT OR IGNORE INTO images (ns, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        ))?
        .execute(params![
            scope.ns.as_str(),
            new.name,
            labels::to_json(&new.labels),
            new.target.media_type,
            new.target.digest.as_str(),
            new.target.size,
            labels::to_json(&new.target.annotations),
            new.created_at,
            new.updated_at,
        ])?;
    if made == 0 {
        return Err(MetadataError::Exists(Kind::Image, new.name));
    }
    leases::protect(c, scope, IMAGES, &new.name)?;
    Ok(new)
}

/// Changes an image, step by step. `updated_at` is now unless one is given. `NotFound`, `Invalid`.
pub fn update(
    c: &Connection,
    ns: &Namespace,
    name: &str,
    changes: Vec<Change>,
    updated_at: Option<i64>,
) -> Result<Image, MetadataError> {
    let mut image = get(c, ns, name)?;
    for change in changes {
        match change {
            Change::Labels(new) => image.labels = new,
            Change::Label(key, value) => drop(image.labels.insert(key, value)),
            Change::Target(new) => image.target = new,
            Change::Annotations(new) => image.target.annotations = new,
            Change::Annotation(key, value) => drop(image.target.annotations.insert(key, value)),
        }
    }
    labels::drop_empty(&mut image.target.annotations);
    image.check()?;
    image.updated_at = updated_at.unwrap_or_else(super::now);
    c.prepare_cached(
        "UPDATE images SET labels = ?3, media_type = ?4, digest = ?5, size = ?6, annotations = ?7, updated_at = ?8
         WHERE ns = ?1 AND name = ?2",
    )?
    .execute(params![
        ns.as_str(),
        name,
        labels::to_json(&image.labels),
        image.target.media_type,
        image.target.digest.as_str(),
        image.target.size,
        labels::to_json(&image.target.annotations),
        image.updated_at,
    ])?;
    Ok(image)
}

/// Makes the image, or points the one of that name at the new target and gives it the new labels (labels that are not
/// named stay). The second value says whether it was made.
pub fn upsert(c: &Connection, scope: &Scope, new: Image) -> Result<(Image, bool), MetadataError> {
    let Some(old) = find(c, &scope.ns, &new.name)? else {
        return Ok((create(c, scope, new)?, true));
    };
    leases::protect(c, scope, IMAGES, &new.name)?;
    let mut merged = old.labels;
    merged.extend(new.labels);
    let changes = vec![Change::Labels(merged), Change::Target(new.target)];
    Ok((update(c, &scope.ns, &new.name, changes, None)?, false))
}

/// Deletes an image; with `target`, only if it still points there. `NotFound`.
pub fn delete(c: &Connection, ns: &Namespace, name: &str, target: Option<&str>) -> Result<(), MetadataError> {
    let gone = c
        .prepare_cached("DELETE FROM images WHERE ns = ?1 AND name = ?2 AND (?3 IS NULL OR digest = ?3)")?
        .execute(params![ns.as_str(), name, target])?;
    if gone == 0 {
        let wanted = target.map_or_else(|| name.to_owned(), |target| format!("{name}@{target}"));
        return Err(MetadataError::NotFound(Kind::Image, wanted));
    }
    leases::unprotect(c, ns, IMAGES, name)?;
    Ok(())
}
