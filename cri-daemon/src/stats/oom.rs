//! Whether the kernel has killed processes of a container for memory, as its cgroup counts them.
//!
//! The shim says so in an event of its own, which may come after the exit, or never: when nobody listened. The counter
//! is there until the task is deleted. A container's cgroup is made for it alone, so the counter begins at 0.
//!
//! The cgroup is found from the container's configuration: no process is left to ask. Limit: with the systemd driver a
//! scope goes with its last process, and only the event tells.

use std::path::Path;

use super::parse;
use super::place::Place;
use super::{Stats, StatsError};
use crate::container::Container;
use crate::{Inner, spec};

/// How a process ends that the kernel killed for memory, or anybody with SIGKILL.
const KILLED: i32 = 128 + 9;

impl Stats {
    /// How many processes of container `id` were killed for memory. Blocks, for the kernel's own work only.
    fn oom_kills(&self, id: &str, cgroup: &Path) -> Result<u64, StatsError> {
        kills(id, &self.finder()?.at(cgroup)?)
    }
}

fn kills(id: &str, place: &Place) -> Result<u64, StatsError> {
    let file = match place {
        Place::V1 { memory, .. } => memory.join("memory.oom_control"),
        Place::V2(folder) => folder.join("memory.events"),
    };
    let text = std::fs::read_to_string(&file).map_err(|e| StatsError::of(id, file, e))?;
    // Kernels before 4.13 do not count.
    Ok(parse::field(&text, "oom_kill").unwrap_or(0))
}

impl Inner {
    /// Whether a process that ended with `code` was killed for memory. To be asked before its task is deleted.
    pub(crate) async fn ran_out_of_memory(&self, container: &Container, code: i32) -> bool {
        if code != KILLED || self.config.runtime.disable_cgroup {
            return false;
        }
        let id = container.record.id.clone();
        let Some(sandbox) = self.sandboxes.exact(&container.record.sandbox_id) else { return false };
        let record = sandbox.record();
        let parent = record.config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()).unwrap_or_default();
        let Ok(systemd) = self.runtime(&record.runtime_handler).map(|runtime| runtime.systemd_cgroup) else {
            return false;
        };
        let Ok(cgroup) = spec::cgroup_folder(parent, &id, systemd) else { return false };
        let stats = self.stats.clone();
        let name = id.clone();
        match shared_sys::blocking(move || stats.oom_kills(&name, &cgroup)).await {
            Ok(kills) => kills > 0,
            Err(error) => {
                tracing::debug!(container = id, %error, "whether its memory ran out is known from events only");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let v1 = Place::V1 { cpuacct: path.clone(), memory: path.clone(), pids: None };
        let v2 = Place::V2(path.clone());
        assert!(matches!(kills("c", &v1), Err(StatsError::Gone { .. })));
        std::fs::write(path.join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n").unwrap();
        assert_eq!(kills("c", &v1).unwrap(), 2);
        std::fs::write(path.join("memory.events"), "low 0\nhigh 7\nmax 9\noom 5\noom_kill 1\n").unwrap();
        assert_eq!(kills("c", &v2).unwrap(), 1);
        std::fs::write(path.join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 1\n").unwrap();
        assert_eq!(kills("c", &v1).unwrap(), 0, "an old kernel");
    }
}
