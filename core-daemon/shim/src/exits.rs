//! Exits, and the file that tells the core of one when the shim is gone.
//!
//! `exit.json` in the bundle is written before anybody hears of the exit of a container's first process, and goes with
//! the bundle. So a shim that is killed afterwards takes no exit status with it: its `delete` reads the file.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};
use shared_sys::files::{Durability, write_atomic};

const FILE: &str = "exit.json";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub pid: u32,
    /// As a shell counts: 128 more than the signal that killed it.
    pub status: u32,
    pub at: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Record {
    pid: u32,
    status: u32,
    /// Nanoseconds since 1970.
    at: u64,
}

impl Exit {
    pub fn timestamp(&self) -> Timestamp {
        timestamp(self.at)
    }

    /// The bundle is on a file system that a reboot empties, as it ends the containers: no fsync.
    pub fn save(&self, bundle: &Path) -> std::io::Result<()> {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let record = Record { pid: self.pid, status: self.status, at };
        let text = serde_json::to_vec(&record).expect("plain data is valid JSON");
        write_atomic(&bundle.join(FILE), &text, Durability::Rebuildable)
    }

    /// The exit that an earlier shim has seen.
    pub fn load(bundle: &Path) -> Option<Self> {
        let record: Record = serde_json::from_slice(&std::fs::read(bundle.join(FILE)).ok()?).ok()?;
        Some(Self { pid: record.pid, status: record.status, at: UNIX_EPOCH + Duration::from_nanos(record.at) })
    }
}

pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_outlives_the_shim() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Exit::load(bundle.path()), None);
        let exit = Exit { pid: 7, status: 137, at: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789) };
        exit.save(bundle.path()).unwrap();
        assert_eq!(Exit::load(bundle.path()), Some(exit));
        assert_eq!(exit.timestamp(), Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 });
    }
}
