//! What a start changes on the machine: what is there now, against what was there before.
//!
//! Looked at from outside, without asking the daemons: their processes and those that came from them or from shims,
//! mounts and files below their folders, network namespaces, links, and cgroups that are named after a container.
//! Limits: what is in containers' file systems and in the content store is not looked into; a program that has come and
//! gone between two looks is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use anyhow::Context as _;
use cri_daemon::{host, network};
use shared_config::Config;
use shared_sys::{socket, usage};

use super::super::bill;

/// Folders that are not looked into: file systems of containers, and blobs.
const CLOSED: &[&str] = &["rootfs", "fs", "work", "blobs"];
/// How deep cgroups lie below a hierarchy at most.
const CGROUPS: usize = 8;

/// Names of all that is there, each with its kind in front.
pub struct Machine(BTreeSet<String>);

impl Machine {
    /// Blocking.
    pub fn look(config: &Config) -> anyhow::Result<Self> {
        let mut all = BTreeSet::new();
        processes(config, &mut all)?;
        let netns = host::new_netns_path(config);
        // The kernel says where a link leads to.
        let netns = netns.parent().map(|dir| dir.canonicalize().unwrap_or(dir.to_owned())).unwrap_or_default();
        mounts(&[config.state.as_path(), &config.root, &netns], &mut all);
        for dir in [config.state.as_path(), &config.root, Path::new(network::CACHE_DIR)] {
            files(dir, &mut all);
        }
        entries(&netns, "network namespace", &mut all);
        entries(Path::new("/sys/class/net"), "link", &mut all);
        cgroups(Path::new("/sys/fs/cgroup"), CGROUPS, &mut all);
        Ok(Self(all))
    }

    /// What has come, then what has gone.
    pub fn since(&self, before: &Self) -> Vec<String> {
        let come = self.0.difference(&before.0).map(|name| format!("+ {name}"));
        let gone = before.0.difference(&self.0).map(|name| format!("- {name}"));
        come.chain(gone).collect()
    }
}

/// The daemons, the shims of this core, and all that came from them.
fn processes(config: &Config, all: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let owner =
        |path: &Path| socket::owner(path).with_context(|| format!("find out who answers at {}", path.display()));
    let processes = usage::processes().context("list processes")?;
    let address = config.grpc.address.to_string_lossy();
    let mut ours = BTreeSet::from([owner(&config.grpc.address)?, owner(&config.cri.address)?]);
    let shims = processes.iter().filter(|(_, line)| bill::flag(line, "address") == Some(&address));
    ours.extend(shims.map(|(pid, _)| *pid));
    let parents: BTreeMap<u32, u32> =
        processes.iter().filter_map(|(pid, _)| Some((*pid, usage::parent(*pid).ok()?))).collect();
    for (pid, line) in &processes {
        let ancestors = std::iter::successors(Some(*pid), |pid| parents.get(pid).copied());
        if ancestors.take(parents.len()).any(|ancestor| ours.contains(&ancestor)) {
            all.insert(format!("process {pid} {}", line.join(" ")));
        }
    }
    Ok(())
}

fn mounts(dirs: &[&Path], all: &mut BTreeSet<String>) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in text.lines() {
        let target = Path::new(line.split(' ').nth(4).unwrap_or_default());
        // Behind the dash: the kind of file system.
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        if dirs.iter().any(|dir| target.starts_with(dir)) {
            all.insert(format!("mount {} ({kind})", target.display()));
        }
    }
}

/// Everything below a folder, links not followed.
fn files(dir: &Path, all: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = match kind {
            kind if kind.is_dir() => "folder",
            kind if kind.is_fifo() => "FIFO",
            kind if kind.is_socket() => "socket",
            _ => "file",
        };
        all.insert(format!("{name} {}", entry.path().display()));
        if kind.is_dir() && !CLOSED.iter().any(|closed| entry.file_name() == *closed) {
            files(&entry.path(), all);
        }
    }
}

fn entries(dir: &Path, kind: &str, all: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    all.extend(entries.map(|entry| format!("{kind} {}", entry.file_name().to_string_lossy())));
}

/// Cgroups whose name holds the id of a container, in whatever form the driver writes it.
fn cgroups(dir: &Path, depth: usize, all: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let mut words = name.to_str().unwrap_or_default().split(|c: char| !c.is_ascii_hexdigit());
        if words.any(|word| word.len() == 64) {
            all.insert(format!("cgroup {}", entry.path().display()));
        }
        if depth > 0 {
            cgroups(&entry.path(), depth - 1, all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_cgroups_are_found_and_file_systems_left_closed() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef".repeat(4);
        for path in ["a/rootfs/etc", "pods/x"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::create_dir(dir.path().join(format!("pods/cri-containerd-{id}.scope"))).unwrap();
        std::fs::write(dir.path().join("a/file"), "").unwrap();
        let below = |path: &str| dir.path().join(path).display().to_string();
        let (mut all, mut groups) = (BTreeSet::new(), BTreeSet::new());
        files(dir.path(), &mut all);
        assert!(
            all.contains(&format!("file {}", below("a/file")))
                && all.contains(&format!("folder {}", below("a/rootfs")))
        );
        assert!(!all.iter().any(|name| name.contains("etc")), "{all:?}");
        cgroups(dir.path(), CGROUPS, &mut groups);
        assert_eq!(
            groups.into_iter().collect::<Vec<_>>(),
            [format!("cgroup {}", below(&format!("pods/cri-containerd-{id}.scope")))]
        );
    }

    #[test]
    fn changes_come_before_what_is_gone() {
        let machine = |names: &[&str]| Machine(names.iter().map(|name| (*name).to_owned()).collect());
        let (before, now) = (machine(&["a", "b"]), machine(&["b", "c"]));
        assert_eq!(now.since(&before), ["+ c", "- a"]);
    }
}
