//! The cgroups of a pause process: one folder in every hierarchy that is mounted.

use std::fs;
use std::io;
use std::path::Path;

use super::Plan;
use crate::cgroup::Cgroup;
use crate::error::Error;

/// What every container may use, whatever else is denied: to make any device, and to use `null`, `zero`, `full`,
/// `random`, `urandom`, `tty`, and pseudo terminals. As the OCI runtime specification has it.
const ALLOWED: [&str; 10] = [
    "b *:* m",
    "c *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Cgroups that are not used yet.
pub struct Groups(Cgroup);

impl Groups {
    /// Makes them. A failure leaves nothing but the folders above.
    pub fn make(plan: &Plan) -> Result<Self, Error> {
        let cgroup = Cgroup::named(&plan.cgroup)?;
        let Cgroup::V1(folders) = &cgroup else { return Err(Error::Unimplemented("cgroup version 2 alone".into())) };
        if cgroup.folders().iter().any(|folder| folder.exists()) {
            return Err(Error::Exists(format!("cgroup {}", plan.cgroup.display())));
        }
        let made = (|| {
            for folder in cgroup.folders() {
                fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
            }
            let write = |controller: &str, file: &str, value: &str| {
                let Some(folder) = folders.get(controller) else { return Ok(()) };
                let path = folder.join(file);
                fs::write(&path, value).map_err(Error::io("write", path))
            };
            if let Some(folder) = folders.get("cpuset") {
                inherit(folder).map_err(Error::io("set up", folder))?;
            }
            if let Some(shares) = plan.shares {
                write("cpu", "cpu.shares", &shares.to_string())?;
            }
            write("devices", "devices.deny", "a")?;
            ALLOWED.iter().try_for_each(|rule| write("devices", "devices.allow", rule))
        })();
        match made {
            Ok(()) => Ok(Self(cgroup)),
            Err(e) => {
                remove(&cgroup);
                Err(e)
            }
        }
    }

    /// The calling process joins them.
    pub fn join(&self) -> io::Result<()> {
        let join = |folder: &Path| fs::write(folder.join("cgroup.procs"), "0");
        self.0.folders().into_iter().try_for_each(join)
    }

    /// They are used.
    pub fn keep(self) -> Cgroup {
        self.0
    }

    /// Nobody will use them.
    pub fn remove(self) {
        remove(&self.0);
    }
}

/// Takes them off; nobody is in them any more.
fn remove(cgroup: &Cgroup) {
    for folder in cgroup.folders() {
        let _ = fs::remove_dir(folder);
    }
}

/// A cgroup without processors and memory of its own to run on can't be joined: it gets what its parent has.
fn inherit(folder: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = folder.join(file);
        if !fs::read_to_string(&path)?.trim().is_empty() {
            continue;
        }
        let parent = folder.parent().ok_or(io::ErrorKind::NotFound)?;
        if fs::read_to_string(parent.join(file))?.trim().is_empty() {
            inherit(parent)?;
        }
        fs::write(path, fs::read_to_string(parent.join(file))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_come_from_the_nearest_parent_that_has_some() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pod/box");
        fs::create_dir_all(&folder).unwrap();
        for (at, cpus) in [(dir.path(), "0-3\n"), (&dir.path().join("pod"), "\n"), (&folder, "\n")] {
            fs::write(at.join("cpuset.cpus"), cpus).unwrap();
            fs::write(at.join("cpuset.mems"), "0\n").unwrap();
        }
        inherit(&folder).unwrap();
        assert_eq!(fs::read_to_string(folder.join("cpuset.cpus")).unwrap(), "0-3\n");
        assert_eq!(fs::read_to_string(dir.path().join("pod/cpuset.cpus")).unwrap(), "0-3\n");
    }
}
