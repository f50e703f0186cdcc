//! Processes that the kernel kills for memory: told by the cgroup, as they happen.
//!
//! Version 1 has an eventfd that is told when the limit is met and somebody is about to be killed. Version 2 has a file
//! that is written to for several reasons, with a counter that says whether it was for a kill.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use shared_sys::descriptor::Descriptor;
use tokio::io::Interest;

use super::Cgroup;
use super::file::{fields, text};

/// A cgroup that is watched.
pub struct Watch {
    wakes: Descriptor,
    folder: PathBuf,
    file: &'static str,
    seen: u64,
    /// Version 1's own descriptor of the file.
    control: Option<File>,
}

impl Watch {
    /// Begins watching. `None`: the cgroup has no memory controller.
    pub fn new(cgroup: &Cgroup) -> io::Result<Option<Self>> {
        let (folder, file) = match cgroup {
            Cgroup::V1(folders) => match folders.get("memory") {
                Some(folder) => (folder.clone(), "memory.oom_control"),
                None => return Ok(None),
            },
            Cgroup::V2(folder) if folder.join("memory.events").exists() => (folder.clone(), "memory.events"),
            Cgroup::V2(_) => return Ok(None),
        };
        let (wakes, control): (OwnedFd, _) = match cgroup {
            Cgroup::V1(_) => {
                let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let control = File::open(folder.join(file))?;
                let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
                fs::write(folder.join("cgroup.event_control"), line)?;
                (event, Some(control))
            }
            Cgroup::V2(_) => {
                let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                inotify::add_watch(&watch, folder.join(file), inotify::WatchFlags::MODIFY)?;
                (watch, None)
            }
        };
        let wakes = Descriptor::new(File::from(wakes), Interest::READABLE)?;
        let mut watch = Self { wakes, folder, file, seen: 0, control };
        watch.seen = watch.kills();
        Ok(Some(watch))
    }

    /// Until a process was killed since the last call; `false` when the cgroup has gone.
    pub async fn killed(&mut self) -> bool {
        loop {
            let woken = self.wakes.read(&mut [0; 4096]).await;
            if woken.is_err() || !self.folder.exists() {
                return false;
            }
            if self.control.is_some() {
                return true;
            }
            let kills = self.kills();
            if kills > self.seen {
                self.seen = kills;
                return true;
            }
        }
    }

    fn kills(&self) -> u64 {
        let mut kills = 0;
        fields(&text(&self.folder, self.file), |key, value| {
            if key == "oom_kill" {
                kills = value;
            }
        });
        kills
    }
}
