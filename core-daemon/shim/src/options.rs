//! What a client says of the engine (`containerd.runc.v1.Options`), and where it is kept for a later `delete`.

use std::path::{Path, PathBuf};

use prost_types::Any;
use serde::{Deserialize, Serialize};
use shared_proto::any;
use shared_proto::containerd::runc;
use shared_sys::files::{Durability, write_atomic};

use crate::error::Error;

/// In a bundle.
const FILE: &str = "engine.json";
/// Where engines keep their state, without an option: containerd's place.
const ROOT: &str = "/run/containerd/runc";

/// How the engine is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub binary: String,
    /// The engine's state folder for this namespace.
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    /// Owner of the container's pipes: root of its user namespace.
    pub io_uid: u32,
    pub io_gid: u32,
    /// A cgroup for the shim itself; empty = that of the core.
    #[serde(default)]
    pub shim_cgroup: String,
    #[serde(default)]
    pub criu_image_path: String,
    #[serde(default)]
    pub criu_work_path: String,
}

impl Options {
    /// From a request. Options of another kind than runc's say nothing to us.
    pub fn new(given: Option<&Any>, namespace: &str) -> Result<Self, Error> {
        let given = match given {
            Some(given) if any::is::<runc::Options>(given) => {
                any::unpack::<runc::Options>(given).map_err(|e| Error::Invalid(e.message))?
            }
            Some(_) | None => runc::Options::default(),
        };
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        Ok(Self {
            binary: or(given.binary_name, "runc"),
            root: Path::new(&or(given.root, ROOT)).join(namespace),
            systemd_cgroup: given.systemd_cgroup,
            no_pivot_root: given.no_pivot_root,
            no_new_keyring: given.no_new_keyring,
            io_uid: given.io_uid,
            io_gid: given.io_gid,
            shim_cgroup: given.shim_cgroup,
            criu_image_path: given.criu_image_path,
            criu_work_path: given.criu_work_path,
        })
    }

    pub fn save(&self, bundle: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self).expect("plain data is valid JSON");
        let path = bundle.join(FILE);
        write_atomic(&path, &text, Durability::Rebuildable).map_err(Error::io("write", path))
    }

    /// Those of an earlier [`Options::save`]; the defaults where there are none.
    pub fn load(bundle: &Path, namespace: &str) -> Self {
        let bytes = std::fs::read(bundle.join(FILE)).ok();
        let saved = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        saved.unwrap_or_else(|| Self::new(None, namespace).expect("defaults are valid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_runs_the_same_engine() {
        let bundle = tempfile::tempdir().unwrap();
        let given = runc::Options { binary_name: "/usr/bin/crun".into(), root: "/run/x".into(), ..Default::default() };
        let options = Options::new(Some(&any::pack(&given)), "k8s.io").unwrap();
        assert_eq!((options.binary.as_str(), options.root.to_str()), ("/usr/bin/crun", Some("/run/x/k8s.io")));
        options.save(bundle.path()).unwrap();
        assert_eq!(Options::load(bundle.path(), "k8s.io"), options);
        let none = tempfile::tempdir().unwrap();
        assert_eq!(Options::load(none.path(), "ns").root, Path::new("/run/containerd/runc/ns"));
    }

    #[test]
    fn malformed_options_are_refused() {
        let broken = Any { type_url: "containerd.runc.v1.Options".into(), value: vec![0xff] };
        assert!(Options::new(Some(&broken), "ns").is_err());
    }
}
