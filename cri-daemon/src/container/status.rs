//! The status file of a container: what is not in its record and what the core forgets once the task is deleted.
//!
//! `<root>/io.containerd.grpc.v1.cri/containers/<id>/status`, replaced in one step at every change. Without fsync: a
//! power cut ends the containers anyway, and what is lost here is made again from the core's record and task.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared_sys::files::{Durability, write_atomic};

use super::state::{Exit, State};

const VERSION: &str = "v1";

/// Why a status can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("{doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("malformed status {path}: {source}")]
    Malformed { path: PathBuf, source: serde_json::Error },
}

impl From<StatusError> for shared_proto::Error {
    fn from(e: StatusError) -> Self {
        match &e {
            StatusError::Io { .. } | StatusError::Malformed { .. } => shared_proto::Error::internal(e.to_string()),
        }
    }
}

/// containerd's keys, so that either daemon can go on from the other's file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct File {
    version: String,
    pid: u32,
    started_at: i64,
    finished_at: i64,
    exit_code: i32,
    reason: String,
    message: String,
    /// Ours: a start that had begun.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    starting: bool,
}

/// Writes the status, making its folder when missing. Blocks. An Unknown state is not written: it is no news.
pub fn write(path: &Path, state: &State) -> Result<(), StatusError> {
    let mut file = File { version: VERSION.into(), ..File::default() };
    match state {
        State::Created => {}
        State::Starting => file.starting = true,
        State::Running { pid, started_at } => (file.pid, file.started_at) = (*pid, *started_at),
        State::Exited(exit) => {
            (file.started_at, file.finished_at, file.exit_code) = (exit.started_at, exit.finished_at, exit.code);
            (file.reason, file.message) = (exit.reason.clone(), exit.message.clone());
        }
        State::Unknown { .. } => return Ok(()),
    }
    let io = |doing| move |source| StatusError::Io { doing, path: path.to_owned(), source };
    let bytes = serde_json::to_vec(&file).map_err(|source| StatusError::Malformed { path: path.into(), source })?;
    match write_atomic(path, &bytes, Durability::Rebuildable) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(path);
            std::fs::create_dir_all(dir).map_err(io("make the folder of"))?;
            write_atomic(path, &bytes, Durability::Rebuildable).map_err(io("write"))
        }
        outcome => outcome.map_err(io("write")),
    }
}

/// Reads the last status that was written; `None` when there is none. Blocks.
pub fn read(path: &Path) -> Result<Option<State>, StatusError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StatusError::Io { doing: "read", path: path.into(), source }),
    };
    let file: File =
        serde_json::from_slice(&bytes).map_err(|source| StatusError::Malformed { path: path.into(), source })?;
    Ok(Some(if file.finished_at != 0 {
        State::Exited(Exit {
            started_at: file.started_at,
            finished_at: file.finished_at,
            code: file.exit_code,
            reason: file.reason,
            message: file.message,
        })
    } else if file.started_at != 0 {
        State::Running { pid: file.pid, started_at: file.started_at }
    } else if file.starting {
        State::Starting
    } else {
        State::Created
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("containers/c1/status");
        assert_eq!(read(&path).unwrap(), None);
        let exit = Exit { message: "m".into(), ..Exit::of(1, 2, 137, true) };
        for state in [
            State::Created,
            State::Starting,
            State::Running { pid: 3, started_at: 4 },
            State::Exited(Exit::start_error(5, &shared_proto::Error::invalid("x"))),
            State::Exited(exit),
        ] {
            write(&path, &state).unwrap();
            assert_eq!(read(&path).unwrap(), Some(state));
        }
        let before = std::fs::read(&path).unwrap();
        write(&path, &State::Unknown { reason: "r".into(), asking: true }).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    /// A file as containerd 1.6 writes it.
    #[test]
    fn reads_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status");
        let file = r#"{"Version":"v1","Pid":0,"CreatedAt":1700000000000000000,"StartedAt":1700000001000000000,
            "FinishedAt":1700000002000000000,"ExitCode":3,"Reason":"Error","Message":"","Removing":false}"#;
        std::fs::write(&path, file).unwrap();
        let Some(State::Exited(exit)) = read(&path).unwrap() else { panic!("it has ended") };
        assert_eq!((exit.code, exit.finished_at), (3, 1_700_000_002_000_000_000));
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("status"));
    }
}
