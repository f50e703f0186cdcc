//! Reading files of a root file system before anything runs in it: the accounts of an image, the content of volumes.
//!
//! A fresh snapshot shows what its image has, so it is read through a mount of its own: attached nowhere, read-only and
//! without the snapshot's writable layer (two overlays must not share one). The accounts are kept per image: its chain
//! id names its content, so they never change.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use shared_proto::containerd::types;
use shared_sys::mount::{Detached, Mount};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Images whose accounts are kept, and the most bytes that are kept of one.
const KEPT: usize = 256;
const KEPT_BYTES: usize = 64 << 10;

/// `/etc/passwd` and `/etc/group` of an image; `None` where it has no such file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    passwd: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
}

impl Accounts {
    /// Reads them through the mounts of a fresh snapshot. Blocks.
    fn read(mounts: &[types::Mount]) -> io::Result<Self> {
        let root = open(mounts)?;
        let read = |path| match root.read(Path::new(path)) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io::Error::new(e.kind(), format!("read {path} of the image: {e}"))),
        };
        Ok(Self { passwd: read(PASSWD)?, group: read(GROUP)? })
    }

    /// Reads as from the image itself, for [`crate::spec::user::resolve`].
    pub fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = match path.to_str() {
            Some(PASSWD) => &self.passwd,
            Some(GROUP) => &self.group,
            Some(_) | None => &None,
        };
        content.clone().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn len(&self) -> usize {
        [&self.passwd, &self.group].into_iter().flatten().map(Vec::len).sum()
    }
}

/// The accounts of images that were used lately.
#[derive(Default)]
pub struct Known(Mutex<BTreeMap<String, Arc<Accounts>>>);

impl Known {
    /// The accounts of the image with this chain id, if they were read before.
    pub fn get(&self, chain_id: &str) -> Option<Arc<Accounts>> {
        if chain_id.is_empty() {
            // An image without layers has no files.
            return Some(Arc::default());
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(chain_id).cloned()
    }

    /// Reads them from a fresh snapshot of the image.
    pub async fn read(&self, chain_id: &str, mounts: Vec<types::Mount>) -> io::Result<Arc<Accounts>> {
        let accounts = Arc::new(shared_sys::blocking(move || Accounts::read(&mounts)).await?);
        if accounts.len() <= KEPT_BYTES {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KEPT {
                known.pop_first();
            }
            known.insert(chain_id.to_owned(), accounts.clone());
        }
        Ok(accounts)
    }
}

/// A fresh snapshot's files, mounted nowhere and read-only. Blocks.
pub fn open(mounts: &[types::Mount]) -> io::Result<Detached> {
    let mounts: Vec<Mount> = mounts.iter().map(read_only).collect();
    Detached::of(&mounts)
}

/// The same files without the writable layer. A fresh one is empty, so nothing is missed.
fn read_only(mount: &types::Mount) -> Mount {
    let value = |option: &String, key: &str| option.strip_prefix(key).map(str::to_owned);
    let mut options: Vec<String> = mount.options.iter().filter(|o| *o != "rw" && *o != "ro").cloned().collect();
    options.push("ro".into());
    let (kind, source, target) = (mount.r#type.clone(), mount.source.clone(), mount.target.clone());
    if kind != "overlay" {
        return Mount { kind, source, target, options };
    }
    let lower = options.iter().find_map(|o| value(o, "lowerdir=")).unwrap_or_default();
    if lower.contains(':') {
        options.retain(|o| !o.starts_with("upperdir=") && !o.starts_with("workdir="));
        return Mount { kind, source, target, options };
    }
    // An overlay needs two layers; a single one is a folder.
    Mount { kind: "bind".into(), source: lower, target, options: vec!["rbind".into(), "ro".into()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> types::Mount {
        types::Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    #[test]
    fn the_writable_layer_is_left_out() {
        let one = read_only(&overlay(&["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/l1"]));
        assert_eq!((one.kind.as_str(), one.source.as_str()), ("bind", "/l1"));
        let two = read_only(&overlay(&["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/l2:/l1"]));
        assert_eq!(two.options, ["index=off", "lowerdir=/l2:/l1", "ro"]);
    }

    #[tokio::test]
    async fn accounts_are_read_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "web:x:7:8::/:/bin/sh\n").unwrap();
        let lower = format!("lowerdir={}", dir.path().display());
        let mounts = vec![overlay(&["workdir=/none", "upperdir=/none", &lower])];
        let known = Known::default();
        assert!(known.get("sha256:1").is_none());
        let accounts = known.read("sha256:1", mounts).await.unwrap();
        assert!(accounts.file(Path::new(PASSWD)).unwrap().starts_with(b"web:"));
        assert_eq!(accounts.file(Path::new(GROUP)).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(known.get("sha256:1").unwrap(), accounts);
        assert_eq!(known.get("").unwrap(), Arc::default());
    }
}
