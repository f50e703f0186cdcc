//! What the core knows, in SQLite: one file a table group, all behind [`db::Db`].
//!
//! The functions of the table groups take a connection, so that several of them can share one transaction; the
//! services wrap them into [`Db::read`] and [`Db::write`]. Every function takes the namespace: nothing is visible
//! outside its own. Writes make the namespace when it is missing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub mod containers;
pub mod content;
pub mod db;
mod error;
pub mod images;
pub mod leases;
mod migrations;
pub mod namespaces;
pub mod sandboxes;
pub mod snapshots;

pub use db::{Db, DbError};
pub use error::{Kind, MetadataError};

/// A time as the database keeps it: nanoseconds since the epoch.
pub fn nanos(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as i64
}

/// Now, as the database keeps times.
pub fn now() -> i64 {
    nanos(SystemTime::now())
}

/// Reads a column of labels.
fn labels_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<crate::domain::Labels> {
    let text = row.get_ref(column)?.as_str()?;
    crate::domain::labels::from_json(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

/// Reads a column with a digest.
fn digest_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<crate::domain::Digest> {
    crate::domain::Digest::parse(row.get_ref(column)?.as_str()?)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

/// Collects the rows that can be read; a damaged one is named in the log and delays no other.
fn readable<T>(
    what: &str,
    ns: &crate::domain::Namespace,
    rows: impl Iterator<Item = rusqlite::Result<T>>,
) -> Result<Vec<T>, DbError> {
    let mut all = Vec::new();
    for row in rows {
        match row {
            Ok(value) => all.push(value),
            Err(error @ (rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..))) => {
                tracing::warn!(%ns, %error, "a damaged {what} record is left out");
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(all)
}
