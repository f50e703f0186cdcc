//! The schema, as a list of steps. `PRAGMA user_version` counts the steps done; a step is never changed once released.

use std::path::Path;

use rusqlite::Connection;

use super::db::DbError;

/// Each step takes the schema from version N (its index) to N + 1.
const STEPS: &[&str] = &[include_str!("schema/001.sql")];

/// Brings the schema up to date, each step in a transaction of its own. A newer schema than ours is refused.
pub(super) fn run(connection: &mut Connection, path: &Path) -> Result<(), DbError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = STEPS.len() as u32;
    if found > known {
        return Err(DbError::TooNew { path: path.to_owned(), found, known });
    }
    for (version, step) in STEPS.iter().enumerate().skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version as u32 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
