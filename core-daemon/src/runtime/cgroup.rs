//! Cgroups that an OCI runtime has left: it was killed between making them and writing down that it had.
//!
//! That happens when the core dies while a shim runs `runc create`: the shim gives up the call and kills runc with it.
//! What `runc delete` knows nothing of is found by the path that the spec asked for. Only a cgroup with the
//! container's own name is touched. Limit: paths of the systemd driver name units, and systemd removes those itself.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shared_sys::cgroup::Hierarchies;

use super::spec;

/// How often a cgroup is tried: its processes take a moment to die.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Kills what is in the cgroups of the container `id` and removes them. Blocks.
pub(super) fn remove(bundle: &Path, id: &str) {
    let Ok(json) = fs::read(bundle.join("config.json")) else { return };
    let Some(path) = spec::read(&json).ok().and_then(|facts| facts.cgroup) else { return };
    let Some(path) = own(&path, id) else { return };
    for root in Hierarchies::read().unwrap_or_default().mount_points() {
        let dir = root.join(&path);
        if dir.exists() && !emptied(&dir) {
            tracing::warn!(cgroup = %dir.display(), "a cgroup that a runtime left can't be removed");
        }
    }
}

/// The path below a hierarchy, if it is absolute, straight, and ends with the container's id.
fn own(path: &str, id: &str) -> Option<PathBuf> {
    let below = Path::new(path.strip_prefix('/')?);
    let straight = below.components().all(|part| matches!(part, Component::Normal(_)));
    (straight && below.file_name().is_some_and(|name| name == id)).then(|| below.to_owned())
}

fn emptied(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            emptied(&entry.path());
        }
    }
    for _ in 0..TRIES {
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
            // Fails when it is gone already.
            let _ = pidfd_open(pid, PidfdFlags::empty()).and_then(|process| pidfd_send_signal(&process, Signal::KILL));
        }
        if fs::remove_dir(dir).is_ok() || !dir.exists() {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_s_own_cgroup_is_meant() {
        assert_eq!(own("/kubepods/pod1/abc", "abc"), Some("kubepods/pod1/abc".into()));
        for (path, why) in [
            ("/kubepods/pod1", "another name"),
            ("/kubepods/../abc", "not straight"),
            ("system.slice:cri:abc", "a unit of systemd"),
            ("abc", "relative to the runtime's own"),
        ] {
            assert_eq!(own(path, "abc"), None, "{why}");
        }
    }

    #[test]
    fn what_is_left_is_killed_and_removed() {
        let name = format!("seam-test-cgroup-{}", std::process::id());
        let all = Hierarchies::read().unwrap();
        let dir = all.mount_points().first().expect("a cgroup hierarchy").join(&name);
        fs::create_dir(&dir).unwrap();
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(dir.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        let bundle = tempfile::tempdir().unwrap();
        let spec = format!(r#"{{"ociVersion":"1.0.2","linux":{{"cgroupsPath":"/{name}"}}}}"#);
        fs::write(bundle.path().join("config.json"), spec).unwrap();
        remove(bundle.path(), "another");
        assert!(dir.exists());
        remove(bundle.path(), &name);
        assert!(!dir.exists());
        assert!(!sleeper.wait().unwrap().success());
    }
}
