//! What the core knows, in SQLite: one file a table group, all behind [`db::Db`].

pub mod db;
mod migrations;
pub mod snapshots;

pub use db::{Db, DbError};
