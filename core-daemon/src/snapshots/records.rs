//! What the namespaces' records must satisfy, and how they change together with those of the snapshotters.

use super::{Record, Snapshot, SnapshotError};
use crate::domain::{Invalid, Labels, Scope, labels};
use crate::metadata::{leases, snapshots as rows};

/// The longest name, bytes.
const MAX_NAME: usize = 1024;

/// Adds the row of a new snapshot, on a parent that still exists, and its lease.
pub(super) fn add(scope: Scope, snapshotter: String, row: Snapshot) -> Record {
    Box::new(move |c| {
        if rows::get(c, &scope.ns, &snapshotter, &row.name)?.is_some() {
            return Err(SnapshotError::Exists(row.name));
        }
        if !row.parent.is_empty() && rows::get(c, &scope.ns, &snapshotter, &row.parent)?.is_none() {
            return Err(SnapshotError::NoParent(row.parent));
        }
        rows::insert(c, &scope.ns, &snapshotter, &row)?;
        Ok(leases::protect(c, &scope, &rows::resource(&snapshotter), &row.name)?)
    })
}

pub(super) fn drop_row(scope: Scope, snapshotter: String, name: String) -> Record {
    Box::new(move |c| Ok(rows::delete(c, &scope.ns, &snapshotter, &name)?))
}

pub(super) fn drop_childless(scope: Scope, snapshotter: String, name: String) -> Record {
    Box::new(move |c| {
        if rows::has_children(c, &scope.ns, &snapshotter, &name)? {
            return Err(SnapshotError::HasChildren(name));
        }
        Ok(rows::delete(c, &scope.ns, &snapshotter, &name)?)
    })
}

pub(super) fn check_name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid("a snapshot must have a name".into()));
    }
    if name.len() > MAX_NAME {
        return Err(Invalid(format!("the name of a snapshot is longer than {MAX_NAME} bytes")));
    }
    Ok(())
}

pub(super) fn change_labels(labels: &mut Labels, new: Labels, fields: &[String]) -> Result<(), SnapshotError> {
    if fields.is_empty() {
        *labels = new.clone();
    }
    for field in fields {
        if field == "labels" {
            *labels = new.clone();
        } else if let Some(key) = field.strip_prefix("labels.") {
            labels.insert(key.to_owned(), new.get(key).cloned().unwrap_or_default());
        } else {
            return Err(SnapshotError::Field(field.clone()));
        }
    }
    labels::drop_empty(labels);
    Ok(())
}

pub(super) fn checked(mut labels: Labels) -> Result<Labels, Invalid> {
    labels::check(&labels)?;
    labels::drop_empty(&mut labels);
    Ok(labels)
}
