//! A pod's pause process, made without an engine.
//!
//! The pause process does nothing: it holds the pod's namespaces and waits. To make it, an engine is started three
//! times, for a few dozen system calls. Here a child of the shim makes them itself, in this order, as the OCI runtime
//! specification wants a container to be made:
//!
//! 1. [`plan`]: what the spec asks for, if it asks for nothing that is not offered here.
//! 2. [`groups`]: the cgroups, with their limits.
//! 3. The child, in new mount, UTS, IPC and PID namespaces ([`child`]): joins the cgroups and the pod's network
//!    namespace, makes its root filesystem ([`root`]), sets host name and sysctls, hides what is to be hidden, gives up
//!    what it may not do, says that it is ready, and waits.
//! 4. [`Gate::open`]: it becomes the pause program.
//!
//! Anything else than a plain pause process (a seccomp, AppArmor or SELinux profile, a user namespace, hooks, systemd's
//! cgroups, cgroup version 2 alone, a runtime that is not runc or crun) is for the engine, and so is one that could not
//! be made here: see ADR 19. Such a container is unknown to the engine: nothing can be run in it (`exec`), and its
//! limits can't be changed; CRI does neither with a pod's own process.

mod child;
mod groups;
mod plan;
mod root;

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::Path;
use std::sync::Arc;

use shared_sys::descriptor::Descriptor;
use shared_sys::fork::fork_into;
use shared_sys::mount::Mount;
use tokio::io::Interest;

use crate::cgroup::Cgroup;
use crate::engine::Streams;
use crate::error::Error;
use crate::reaper::{Birth, Reaper};

pub use plan::Plan;

/// In a bundle: its container was made here.
const MARK: &str = "pause";
/// What the child says when it waits; anything else is what went wrong.
const READY: &[u8] = b"ready";
/// The longest word of the child, bytes.
const MAX_WORD: usize = 1024;

/// A pause process that waits to be let go.
pub struct Waiting {
    pub pid: u32,
    pub birth: Birth,
    pub cgroup: Cgroup,
    pub gate: Gate,
}

/// Where it waits. It ends when this goes without having been opened.
pub struct Gate(PipeWriter);

impl Gate {
    /// Lets the process go.
    pub fn open(mut self) -> Result<(), Error> {
        self.0.write_all(&[0]).map_err(|e| Error::State(format!("the pause process has ended: {e}")))
    }
}

/// What the child holds of the parent's.
struct Ends {
    word: PipeWriter,
    gate: PipeReader,
    streams: Streams,
}

/// Makes the process that `plan` describes; `root` is its root filesystem. A failure leaves nothing.
pub async fn make(
    plan: Plan,
    bundle: &Path,
    root: &[Mount],
    streams: Streams,
    reaper: &Arc<Reaper>,
) -> Result<Waiting, Error> {
    let failed = |doing: &'static str| Error::io(doing, bundle);
    let (word, child_word) = std::io::pipe().map_err(failed("make a pipe for"))?;
    let (child_gate, gate) = std::io::pipe().map_err(failed("make a pipe for"))?;
    let word = Descriptor::new(File::from(rustix::fd::OwnedFd::from(word)), Interest::READABLE);
    let word = word.map_err(failed("watch a pipe for"))?;
    let groups = groups::Groups::make(&plan)?;
    let birth = reaper.birth();
    let ends = Ends { word: child_word, gate: child_gate, streams };
    let gate_copy = rustix::fd::AsRawFd::as_raw_fd(&gate);
    let forked = fork_into(plan.namespaces, || child::run(&plan, &groups, bundle, root, ends, gate_copy));
    // The child's ends are the child's alone now: they went with the closure.
    let made = match forked.map_err(failed("make the pause process of")) {
        Ok(pid) => {
            let ready = ready(&word, bundle).await.and_then(|()| record(bundle, pid));
            if ready.is_err() {
                let _ = shared_sys::process::kill(pid, 9);
                drop(reaper.expect(pid).await);
            }
            ready.map(|()| pid)
        }
        Err(e) => Err(e),
    };
    match made {
        Ok(pid) => Ok(Waiting { pid, birth, cgroup: groups.keep(), gate: Gate(gate) }),
        Err(e) => {
            // The engine makes it now.
            let _ = std::fs::remove_file(bundle.join(MARK));
            groups.remove();
            Err(e)
        }
    }
}

/// Waits until the child waits.
async fn ready(word: &Descriptor, bundle: &Path) -> Result<(), Error> {
    let mut said = [0; MAX_WORD];
    let read = word.read(&mut said).await;
    match &said[..read.map_err(Error::io("read from the pause process of", bundle))?] {
        READY => Ok(()),
        [] => Err(Error::Pause("it ended".into())),
        said => Err(Error::Pause(String::from_utf8_lossy(said).into_owned())),
    }
}

/// What a later `delete` looks for.
fn record(bundle: &Path, pid: u32) -> Result<(), Error> {
    std::fs::write(bundle.join(MARK), "").map_err(Error::io("mark", bundle))?;
    let path = bundle.join("init.pid");
    std::fs::write(&path, pid.to_string()).map_err(Error::io("write", path))
}

/// Whether the container of a bundle was made here.
pub fn made(bundle: &Path) -> bool {
    bundle.join(MARK).exists()
}

/// Kills what [`make`] made for a bundle, when the shim that did it is gone.
pub fn kill(bundle: &Path) -> Result<(), Error> {
    let path = || bundle.join("config.json");
    let plan = Plan::read(bundle).map_err(|reason| Error::Malformed { path: path(), reason })?;
    Cgroup::named(&plan.cgroup)?.kill(9);
    Ok(())
}
