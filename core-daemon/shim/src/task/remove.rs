//! Takes a container that has ended away, without running the engine once more.
//!
//! What an engine's `delete` does for such a container: it ends what is left in the cgroup, removes the cgroup and its
//! own folder. That is all done here, for cgroups that are the container's own by their name. Hooks, and cgroups that
//! systemd made, are for the engine.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;

const KILL: u32 = 9;
/// How long killed processes may take to go.
const LIMIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// `false`: that is for the engine to do; what was removed already doesn't disturb it.
pub async fn remove(folder: &Path, cgroup: &Cgroup, id: &str) -> bool {
    let state = ["state.json", "status"].iter().any(|name| folder.join(name).exists());
    state && remove_cgroup(cgroup, id).await && fs::remove_dir_all(folder).is_ok()
}

/// Ends what is left in a cgroup that is the container's own by its name, and removes it.
pub async fn remove_cgroup(cgroup: &Cgroup, id: &str) -> bool {
    let folders = cgroup.folders();
    let own = |path: &&Path| path.file_name().is_some_and(|name| name == id);
    if folders.is_empty() || !folders.iter().all(own) {
        return false;
    }
    let began = Instant::now();
    for cgroup_folder in folders {
        loop {
            match remove_tree(cgroup_folder) {
                Ok(()) => break,
                Err(_) if began.elapsed() < LIMIT => {
                    cgroup.kill(KILL);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => return false,
            }
        }
    }
    true
}

/// A cgroup and those below; their files are the kernel's.
fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
        Ok(()) => return Ok(()),
    }
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn cgroup(path: &Path) -> Cgroup {
        Cgroup::V1(BTreeMap::from([("memory".to_owned(), path.to_owned())]))
    }

    #[tokio::test]
    async fn only_what_is_named_after_the_container_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, own, other) = (dir.path().join("state"), dir.path().join("box"), dir.path().join("other"));
        for path in [&folder, &own.join("below"), &other] {
            fs::create_dir_all(path).unwrap();
        }
        assert!(!remove(&folder, &cgroup(&own), "box").await, "whose folder is that");
        fs::write(folder.join("state.json"), "{}").unwrap();
        assert!(!remove(&folder, &cgroup(&other), "box").await);
        assert!(own.exists() && folder.exists() && other.exists());
        assert!(remove(&folder, &cgroup(&own), "box").await);
        assert!(!own.exists() && !folder.exists());
    }
}
