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
pub struct Freed(Vec<Taken>);

struct Taken {
    controller: String,
    dir: PathBuf,
}

/// How long giving back may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the kernel needs to let cgroups go, and then a hierarchy.
const PAUSE: Duration = Duration::from_millis(500);

impl Freed {
    /// Takes every controller away from version 2, and says so.
    pub fn new() -> anyhow::Result<Self> {
        let mut freed = Self(Vec::new());
        for controller in controllers()? {
            let taken = Taken { dir: Path::new(ROOT).join(&controller), controller };
            std::fs::create_dir_all(&taken.dir).with_context(|| format!("make {}", taken.dir.display()))?;
            taken.mount()?;
            eprintln!("crun wants no controller on cgroup version 2: mounted {}", taken.dir.display());
            freed.0.push(taken);
        }
        Ok(freed)
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        for taken in &self.0 {
            match taken.give_back() {
                Ok(()) => eprintln!("unmounted {}", taken.dir.display()),
                Err(e) => eprintln!("{} is not given back: {e:#}", taken.dir.display()),
            }
        }
    }
}

impl Taken {
    fn mount(&self) -> anyhow::Result<()> {
        let controller = Some(self.controller.as_str());
        mount(controller, &self.dir, Some("cgroup"), MsFlags::empty(), controller)
            .with_context(|| format!("mount the controller as version 1 on {}", self.dir.display()))
    }

    /// Removes what was made below the mount meanwhile, and the mount. A hierarchy whose cgroups the kernel has not let
    /// go yet stays when it is unmounted, and programs that look for its mount fail: then it is mounted once more.
    fn give_back(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            remove_below(&self.dir)?;
            std::thread::sleep(PAUSE);
            let left = folders(&self.dir)?.count();
            if left == 0 {
                umount2(&self.dir, MntFlags::empty())?;
                std::thread::sleep(PAUSE);
                if controllers()?.contains(&self.controller) {
                    return Ok(std::fs::remove_dir(&self.dir)?);
                }
                self.mount()?;
            }
            anyhow::ensure!(started.elapsed() < LIMIT, "{left} cgroups in it");
        }
    }
}

/// Cgroups without a process.
fn remove_below(dir: &Path) -> anyhow::Result<()> {
    for folder in folders(dir)? {
        remove_below(&folder)?;
        // Fails while there is a process in it: the caller looks again.
        let _ = std::fs::remove_dir(&folder);
    }
    Ok(())
}

fn folders(dir: &Path) -> anyhow::Result<impl Iterator<Item = PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()))
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
