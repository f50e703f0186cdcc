//! A private world: everything that a node has, in one folder.
//!
//! The daemons read one file; [`World::switch`] changes its one line and starts them again, which is all that a
//! change of wiring takes. A test that panics prints the end of both daemons' logs. Dropping a world kills what is
//! left in it and unmounts it, so a failing test does not spoil the next one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shared_proto::{Context, Core, cri::v1, transport};

use crate::config::{self, Options, Paths};
use crate::cri::Cri;
use crate::daemon::{Daemon, binary, tail};
use crate::fixtures::fixtures;
use crate::registry::Registry;
use crate::slot::Slot;
use crate::{Wiring, eventually};

/// See the [module](self).
#[derive(Debug)]
pub struct World {
    pub paths: Paths,
    pub slot: Slot,
    pub registry: Registry,
    wiring: Wiring,
    pub options: Options,
    core: Option<Daemon>,
    cri: Option<Daemon>,
    // Dropped last: removes the folder.
    _dir: Option<tempfile::TempDir>,
}

/// The runtime that stands in for ours, if the environment names one.
pub fn peer() -> Option<&'static str> {
    match std::env::var("SEAM_PEER").as_deref() {
        Ok("containerd") => Some("containerd"),
        Ok(other) => panic!("SEAM_PEER={other}: only containerd is known"),
        Err(_) => None,
    }
}

/// A running world with the usual options.
pub async fn world(wiring: Wiring) -> World {
    World::start(wiring, Options::new(wiring)).await
}

/// The same with an OCI runtime that fails when it is asked to.
pub async fn faulty_world(wiring: Wiring) -> World {
    World::start(wiring, Options { faulty_engine: true, ..Options::new(wiring) }).await
}

impl World {
    /// Makes a world and starts its daemons.
    pub async fn start(wiring: Wiring, options: Options) -> Self {
        let mut world = Self::prepare(wiring, options);
        world.run().await;
        world
    }

    /// Makes a world without starting its daemons.
    pub fn prepare(wiring: Wiring, options: Options) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes mounts, namespaces and cgroups");
        let slot = Slot::take();
        let parent = options.parent.clone().unwrap_or_else(std::env::temp_dir);
        let prefix = format!("{}-", slot.name());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).expect("make a world's folder");
        let (path, dir) = match std::env::var_os("SEAM_KEEP") {
            Some(_) => (dir.keep(), None),
            None => (dir.path().to_owned(), Some(dir)),
        };
        let paths = Paths::create(&path);
        config::network(&paths, &slot);
        config::runtime(&paths);
        for cgroup in slot.cgroups() {
            std::fs::create_dir_all(&cgroup).unwrap_or_else(|e| panic!("make {}: {e}", cgroup.display()));
        }
        let registry = Registry::start(&path);
        let images = fixtures();
        registry.add("pause", "3.9", &images.pause);
        registry.add("library/busybox", "1.36", &images.busybox);
        registry.add_indexed("e2e/layered", "1", &images.layered);
        registry.add("e2e/docker", "1", &images.docker);
        registry.add("e2e/volumes", "1", &images.volumes);
        registry.add("e2e/stranger", "1", &images.stranger);
        config::mirrors(&paths, registry.address(), &["registry.k8s.io", "docker.io"]);
        config::daemons(&paths, wiring, &options);
        Self { paths, slot, registry, wiring, options, core: None, cri: None, _dir: dir }
    }

    pub fn wiring(&self) -> Wiring {
        self.wiring
    }

    /// The process that CRI calls are answered by.
    pub fn cri_daemon(&mut self) -> &mut Daemon {
        self.cri.as_mut().or(self.core.as_mut()).expect("the daemons run")
    }

    /// The process that holds the core.
    pub fn core_daemon_pid(&self) -> i32 {
        self.core.as_ref().expect("the core runs").pid()
    }

    /// The daemons' processes: two in `split`, otherwise one.
    pub fn daemon_pids(&self) -> Vec<i32> {
        [&self.core, &self.cri].into_iter().flatten().map(Daemon::pid).collect()
    }

    /// Open descriptors of the core's process, and of the CRI side's where that is another one.
    pub fn descriptors(&self) -> (usize, usize) {
        let count = |daemon: &Option<Daemon>| daemon.as_ref().map(Daemon::descriptors).unwrap_or_default();
        (count(&self.core), count(&self.cri))
    }

    /// Starts whatever is not running, and waits until it answers.
    pub async fn run(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts whatever is not running.
    pub fn spawn(&mut self) {
        if self.core.is_none() {
            let program = match self.options.peer {
                Some(peer) => PathBuf::from(peer),
                None => self.options.core_binary.clone().unwrap_or_else(|| binary("core-daemon")),
            };
            self.core = Some(self.daemon("core-daemon", &program));
        }
        if self.cri.is_none() && self.wiring == Wiring::Split && self.options.peer.is_none() {
            self.cri = Some(self.daemon("cri-daemon", &binary("cri-daemon")));
        }
    }

    fn daemon(&self, name: &str, program: &Path) -> Daemon {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.paths.config).current_dir(&self.paths.dir).env("RUST_BACKTRACE", "1");
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        Daemon::spawn(name, &mut command, &self.paths.dir.join(format!("{name}.log")))
    }

    /// Waits until both sides answer. A daemon that ended meanwhile is a failure.
    pub async fn ready(&mut self) {
        let limit = Duration::from_secs(20);
        let started = std::time::Instant::now();
        loop {
            for (name, daemon) in [("core-daemon", &mut self.core), ("cri-daemon", &mut self.cri)] {
                if let Some(status) = daemon.as_mut().and_then(Daemon::ended) {
                    panic!("{name} ended while starting: {status}");
                }
            }
            let core = self.core().version.version(&Context::default(), ()).await.map(drop).map_err(|e| e.to_string());
            let cri = match core {
                // `Version` answers while pods of the last run are still looked at; `Status` does not.
                Ok(()) => self.cri().try_status(Default::default()).await.map(drop).map_err(|e| format!("CRI: {e}")),
                Err(e) => Err(format!("core: {e}")),
            };
            match cri {
                Ok(()) => return,
                Err(reason) if started.elapsed() > limit => panic!("the daemons don't answer in {limit:?}: {reason}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Ends the daemons as systemd would: SIGTERM, CRI side first.
    pub fn stop(&mut self) {
        if let Some(cri) = self.cri.take() {
            cri.stop();
        }
        if let Some(core) = self.core.take() {
            core.stop();
        }
    }

    /// The same beside what the test goes on doing, which keeps the world.
    pub async fn stopped(mut self) -> Self {
        let stop = move || {
            self.stop();
            self
        };
        tokio::task::spawn_blocking(stop).await.expect("stop")
    }

    /// SIGKILL for the core, and in `loopback` and `merged` for CRI with it.
    pub fn kill_core(&mut self) {
        self.core.take().expect("the core runs").kill();
    }

    /// SIGKILL for the CRI side, and in `loopback` and `merged` for the core with it.
    pub fn kill_cri(&mut self) {
        self.cri.take().or_else(|| self.core.take()).expect("the CRI side runs").kill();
    }

    pub async fn restart(&mut self) {
        self.stop();
        self.run().await;
    }

    /// Stops the daemons and starts them in another wiring, on the same data.
    pub async fn switch(&mut self, wiring: Wiring) {
        self.stop();
        self.wiring = wiring;
        config::daemons(&self.paths, wiring, &self.options);
        self.run().await;
    }

    /// Where CRI is served.
    pub fn cri_socket(&self) -> &Path {
        if self.options.peer.is_some() { &self.paths.core_socket } else { &self.paths.cri_socket }
    }

    /// A client of the CRI socket.
    pub fn cri(&self) -> Cri {
        Cri::connect(self.cri_socket())
    }

    /// A client of the core socket.
    pub fn core(&self) -> Core {
        Core::remote(transport::unix(&self.paths.core_socket))
    }

    /// Waits until an image is there; pulls it.
    pub async fn pull(&self, reference: &str) -> String {
        self.cri().pull(reference).await
    }

    /// Waits until `list` shows no pod that is not there any more.
    pub async fn no_pods(&self) {
        let cri = self.cri();
        eventually("all pods gone", Duration::from_secs(10), || async {
            let request = v1::ListPodSandboxRequest::default();
            let pods = cri.list_pods(request).await;
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
        })
        .await;
    }

    /// The end of every log in the world.
    pub fn logs(&self) -> String {
        ["core-daemon.log", "cri-daemon.log"]
            .iter()
            .map(|name| self.paths.dir.join(name))
            .filter(|path| path.exists())
            .map(|path| tail(&path, 60))
            .collect()
    }

    /// Shims and whatever else names this world on its command line, the daemons and the registry apart.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let needle = self.paths.dir.display().to_string();
        let daemons = self.daemon_pids();
        crate::inventory::processes()
            .into_iter()
            .filter(|(pid, line)| {
                line.contains(&needle) && !daemons.contains(pid) && !line.starts_with("docker-registry")
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("=== {} ({})\n{}", self.paths.dir.display(), self.wiring.name(), self.logs());
        }
        self.cri.take();
        self.core.take();
        for (pid, _) in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        for (socket, _) in self.shim_sockets() {
            let _ = std::fs::remove_file(socket);
        }
        let mut mounts = crate::inventory::mounts(&self.paths.dir);
        mounts.reverse();
        for mount in mounts {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
