//! The machine itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::apparmor::RealAppArmor;
use super::{AppArmor, Host, HostError, HostFacts};

pub struct RealHost {
    facts: HostFacts,
}

impl RealHost {
    pub fn new() -> Result<Self, HostError> {
        Ok(Self { facts: HostFacts::read()? })
    }
}

#[async_trait]
impl Host for RealHost {
    async fn create_netns(&self, path: &Path) -> Result<(), HostError> {
        on(path, |path| shared_sys::netns::create(&path).map_err(|source| HostError::CreateNetns { path, source }))
            .await
    }

    async fn remove_netns(&self, path: &Path) -> Result<(), HostError> {
        on(path, |path| match shared_sys::netns::remove(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Err(HostError::Busy { holders: holders(&path), path }),
            Err(source) => Err(HostError::RemoveNetns { path, source }),
        })
        .await
    }

    async fn mount_shm(&self, path: &Path, size: u64) -> Result<(), HostError> {
        on(path, move |path| shm(&path, size).map_err(|source| HostError::MountShm { path, source })).await
    }

    async fn unmount(&self, path: &Path) -> Result<(), HostError> {
        on(path, |path| match unmount_all(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Err(HostError::Busy { holders: holders(&path), path }),
            Err(source) => Err(HostError::Unmount { path, source }),
        })
        .await
    }

    fn facts(&self) -> &HostFacts {
        &self.facts
    }

    fn apparmor(&self) -> &dyn AppArmor {
        &RealAppArmor
    }

    fn hostname(&self) -> String {
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

async fn on<T: Send + 'static>(path: &Path, work: impl FnOnce(PathBuf) -> T + Send + 'static) -> T {
    let path = path.to_owned();
    shared_sys::blocking(move || work(path)).await
}

fn shm(path: &Path, size: u64) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if is_mount_point(path)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode=1777,size={size}");
    Ok(mount(Some("shm"), path, Some("tmpfs"), flags, Some(options.as_str()))?)
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

fn unmount_all(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Mounted twice is possible: go on until nothing is left.
            Ok(()) => {}
            // Not mounted, or not there.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Who has `path` mounted in a mount namespace: `NAME (pid N)`, one process a namespace, at most five.
fn holders(path: &Path) -> Vec<String> {
    let wanted = path.to_string_lossy();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut namespaces = Vec::new();
    let mut found = Vec::new();
    for process in entries.flatten().map(|e| e.path()) {
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else { continue };
        let Ok(mounts) = fs::read_to_string(process.join("mountinfo")) else { continue };
        let holds = mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*wanted));
        if holds && !namespaces.contains(&namespace) && found.len() < 5 {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let pid = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(format!("{} (pid {pid})", name.trim()));
            namespaces.push(namespace);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SHM_SIZE;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn shm_is_mounted_once_and_gone_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sandbox/shm");
        let host = RealHost::new().unwrap();
        host.mount_shm(&path, SHM_SIZE).await.unwrap();
        host.mount_shm(&path, SHM_SIZE).await.unwrap();
        let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines: Vec<_> = info.lines().filter(|l| l.contains(&*path.to_string_lossy())).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("nosuid,nodev,noexec") && lines[0].contains("size=65536k"), "{lines:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert_eq!(holders(&path).len(), 1);
        host.unmount(&path).await.unwrap();
        host.unmount(&path).await.unwrap();
        host.unmount(&dir.path().join("never")).await.unwrap();
        assert!(!is_mount_point(&path).unwrap());
    }

    #[tokio::test]
    async fn a_network_namespace_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni-x");
        let host = RealHost::new().unwrap();
        host.create_netns(&path).await.unwrap();
        assert!(shared_sys::netns::is_namespace(&path));
        let again = host.create_netns(&path).await.unwrap_err();
        assert!(again.to_string().contains("cni-x"), "{again}");
        host.remove_netns(&path).await.unwrap();
        host.remove_netns(&path).await.unwrap();
        assert!(!path.exists());
    }
}
