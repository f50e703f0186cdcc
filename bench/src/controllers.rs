//! crun's one wish: it starts nothing on a hybrid layout where cgroup version 2 still has a controller.
//!
//! Whatever `unified` has is mounted as version 1, which takes it away from there, and given back on drop. On a layout
//! of one version there is nothing to do.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const ROOT: &str = "/sys/fs/cgroup";

/// Controllers that are mounted as version 1 for the time of a bench.
pub struct Freed(Vec<PathBuf>);

impl Freed {
    /// Takes every controller away from version 2, and says so.
    pub fn new() -> anyhow::Result<Self> {
        let mut freed = Self(Vec::new());
        for controller in controllers()? {
            let dir = Path::new(ROOT).join(&controller);
            std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            let source = Some(controller.as_str());
            mount(source, &dir, Some("cgroup"), MsFlags::empty(), source)
                .with_context(|| format!("mount the controller {controller} as version 1 on {}", dir.display()))?;
            eprintln!("crun wants no controller on cgroup version 2: mounted {controller} on {}", dir.display());
            freed.0.push(dir);
        }
        Ok(freed)
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        for dir in &self.0 {
            if let Err(e) = give_back(dir) {
                eprintln!("{} stays mounted: {e:#}", dir.display());
            }
        }
    }
}

/// A mount goes once no cgroup is left in it; those of the last pods may take a moment.
fn give_back(dir: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let left = std::fs::read_dir(dir)?.flatten().filter(|entry| entry.path().is_dir()).count();
        if left == 0 {
            umount2(dir, MntFlags::empty())?;
            std::fs::remove_dir(dir)?;
            eprintln!("unmounted {}", dir.display());
            return Ok(());
        }
        anyhow::ensure!(started.elapsed() < Duration::from_secs(5), "{left} cgroups in it");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What cgroup version 2 has on a hybrid layout; nothing on others.
fn controllers() -> anyhow::Result<Vec<String>> {
    let path = Path::new(ROOT).join("unified/cgroup.controllers");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}
