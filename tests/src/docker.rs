//! Debian's Docker Engine, unchanged, on the core of a world: `dockerd --containerd=SOCKET`, and its client.
//!
//! A dockerd wants bridges, packet filter rules and published ports, all under names that are the same for every
//! dockerd of a machine. So each gets a network namespace of its own, which takes them all with it; it makes no mount or
//! other namespace, as the shims that run its containers must see what it mounts. Its data, state and socket are in
//! the world's folder, its containers' cgroups below the world's. It always runs with live-restore: its containers
//! outlive it, until [`Docker::end`].
//!
//! One file is shared with every other dockerd of the machine, `/etc/docker/key.json`, which it makes at its first start.
//!
//! Flags: <https://docs.docker.com/reference/cli/dockerd/>.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::daemon::{Daemon, tail};
use crate::fixtures::{BUSYBOX, PAUSE, fixtures};
use crate::slot::Slot;
use crate::{World, eventually};

/// The daemon and its client, where Debian puts them; others of these names may be elsewhere in `PATH`.
const DOCKERD: &str = "/usr/sbin/dockerd";
const DOCKER: &str = "/usr/bin/docker";

/// The image that every Docker of the suites has loaded: busybox.
pub const IMAGE: &str = "busybox:1.36";

/// A kubelet's dockershim asks for negative OOM scores, which a machine without `CAP_SYS_RESOURCE` refuses.
const RUNC_WITHOUT_SCORES: &str = r#"#!/bin/sh
bundle= previous=
for arg in "$@"; do
    case "$previous" in --bundle) bundle=$arg ;; esac
    previous=$arg
done
[ -z "$bundle" ] || sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$bundle/config.json"
exec runc "$@"
"#;

/// Seconds that one command of the client may take.
const LIMIT: &str = "60";

/// Why this machine can't run Docker Engine, if it can't.
pub fn lacks() -> Option<String> {
    let missing = [DOCKERD, DOCKER].into_iter().find(|path| !Path::new(path).exists());
    missing.map(|path| format!("{path} is missing: install docker.io"))
}

/// The network namespace of a slot's dockerd.
pub(crate) fn netns(slot: &Slot) -> String {
    format!("{}-docker", slot.name())
}

/// Ends what is in a network namespace, and removes it. For one that was left by a killed test, too.
pub(crate) fn remove_netns(name: &str) {
    if !Path::new("/run/netns").join(name).exists() {
        return;
    }
    let output = Command::new("ip").args(["netns", "pids", name]).output().expect("run ip");
    for pid in String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    // Fails only when it vanished meanwhile.
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

/// A dockerd and its client; dropping it kills dockerd, and leaves its containers to the world's own clean-up.
#[derive(Debug)]
pub struct Docker {
    dir: PathBuf,
    /// None = dockerd starts a core of its own.
    core_socket: Option<PathBuf>,
    netns: String,
    cgroup: String,
    process: Option<Daemon>,
    registry: Option<Daemon>,
}

impl Docker {
    /// Starts a dockerd on the core of `world`, with [`IMAGE`] loaded.
    pub async fn start(world: &World) -> Self {
        Self::start_on(world, Some(world.paths.core_socket.clone())).await
    }

    /// Starts a dockerd that finds `core` under the name `containerd` and runs it itself.
    pub async fn start_with_core(world: &World, core: &Path) -> Self {
        let bin = world.paths.dir.join("docker/bin");
        std::fs::create_dir_all(&bin).expect("make a folder for programs");
        std::os::unix::fs::symlink(core, bin.join("containerd")).expect("link the core");
        Self::start_on(world, None).await
    }

    /// Starts a dockerd for a kubelet's dockershim: it runs Debian's containerd itself, and has the images that pods of
    /// the suites use.
    pub async fn start_for_dockershim(world: &World) -> Self {
        let dir = world.paths.dir.join("docker");
        std::fs::create_dir_all(&dir).expect("make Docker's folder");
        let runc = dir.join("runc-without-scores");
        std::fs::write(&runc, RUNC_WITHOUT_SCORES).expect("write an OCI runtime");
        std::fs::set_permissions(&runc, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("make it executable");
        let docker = Self::configured(
            world,
            None,
            &serde_json::json!({"default-runtime": "node", "runtimes": {"node": {"path": runc}}}),
        )
        .await;
        for (image, name) in [(&fixtures().pause, PAUSE), (&fixtures().busybox, BUSYBOX)] {
            docker.fed(&["load"], &image.docker_archive(&[name]));
        }
        docker
    }

    async fn start_on(world: &World, core_socket: Option<PathBuf>) -> Self {
        Self::configured(world, core_socket, &serde_json::json!({})).await
    }

    async fn configured(world: &World, core_socket: Option<PathBuf>, configuration: &serde_json::Value) -> Self {
        let dir = world.paths.dir.join("docker");
        std::fs::create_dir_all(&dir).expect("make Docker's folder");
        std::fs::write(dir.join("daemon.json"), configuration.to_string()).expect("write Docker's configuration");
        let netns = netns(&world.slot);
        let cgroup = format!("/{}", world.slot.name());
        let mut docker = Self { dir, core_socket, netns, cgroup, process: None, registry: None };
        docker.run_ip(&["netns", "add", &docker.netns]);
        docker.run_ip(&["-n", &docker.netns, "link", "set", "lo", "up"]);
        docker.run().await;
        let loaded = docker.fed(&["load"], &fixtures().busybox.docker_archive(&[IMAGE]));
        assert!(loaded.contains(&format!("Loaded image: {IMAGE}")), "{loaded}");
        docker
    }

    fn run_ip(&self, args: &[&str]) {
        let output = Command::new("ip").args(args).output().expect("run ip");
        assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts dockerd, and waits until it answers.
    pub async fn run(&mut self) {
        assert!(self.process.is_none(), "dockerd runs already");
        let at = |name: &str| self.dir.join(name);
        let mut command = self.inside(DOCKERD);
        command
            .arg("--config-file")
            .arg(at("daemon.json"))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(self.host())
            .arg("--cgroup-parent")
            .arg(&self.cgroup)
            // A lower score than its parent's needs a capability that containers of test machines lack.
            .args(["--oom-score-adjust", "0", "--live-restore", "--log-level", "debug"]);
        match &self.core_socket {
            Some(socket) => drop(command.arg("--containerd").arg(socket)),
            None => {
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("{}:{path}", at("bin").display()));
            }
        }
        self.process = Some(Daemon::spawn("dockerd", &mut command, &self.log()));
        let this = &*self;
        eventually("dockerd answers", Duration::from_secs(30), || async move {
            let output = this.try_docker(&["version"]);
            if output.status.success() { Ok(()) } else { Err(tail(&this.log(), 20)) }
        })
        .await;
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.join("sock").display())
    }

    /// A command in dockerd's network namespace.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(program).stdin(Stdio::null());
        command
    }

    /// SIGKILL for dockerd; containers go on.
    pub fn kill(&mut self) {
        self.process.take().expect("dockerd runs").kill();
    }

    /// SIGTERM for dockerd; containers go on.
    pub fn stop(&mut self) {
        self.process.take().expect("dockerd runs").stop();
    }

    /// `docker ARGS`, to be run.
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", LIMIT, DOCKER, "--host", &self.host()]).args(args).stdin(Stdio::null());
        command.env("DOCKER_CONFIG", self.dir.join("client"));
        command
    }

    /// Runs `docker`; answers all that it did.
    pub fn try_docker(&self, args: &[&str]) -> Output {
        self.client(args).output().expect("run docker")
    }

    /// Runs `docker`, which must succeed; what it printed, without the end of the last line.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        said(args, &self.try_docker(args))
    }

    /// Runs `docker`, which must end with `code`; what it printed on both of its outputs.
    #[track_caller]
    pub fn ends(&self, code: i32, args: &[&str]) -> (String, String) {
        let output = self.try_docker(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "docker {args:?}: {out}\n{err}");
        (out, err)
    }

    /// Runs `docker` with `input`.
    #[track_caller]
    pub fn fed(&self, args: &[&str], input: &[u8]) -> String {
        let mut command = self.client(args);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("run docker");
        let mut pipe = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        // One that does not read says why.
        let feeder = std::thread::spawn(move || pipe.write_all(&input));
        let output = child.wait_with_output().expect("wait for docker");
        let _ = feeder.join().expect("the feeder ends");
        said(args, &output)
    }

    /// Runs `docker` on a terminal of 40 rows and 100 columns, and types `input` once there is a prompt; its exit code,
    /// and what the terminal showed.
    pub fn on_terminal(&self, args: &[&str], input: &str) -> (Option<i32>, String) {
        let size = nix::pty::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).expect("make a terminal");
        let mut command = self.client(args);
        // `slave` goes with the client: the terminal ends then.
        let slave = || Stdio::from(pty.slave.try_clone().expect("clone a descriptor"));
        let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("run docker");
        drop((command, pty.slave));
        let mut master = std::fs::File::from(pty.master);
        let (mut shown, mut typed, mut buffer) = (String::new(), false, [0; 4096]);
        // The end of a terminal is an error.
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            shown += &String::from_utf8_lossy(&buffer[..n]);
            if !typed && shown.contains("# ") {
                master.write_all(input.as_bytes()).expect("type");
                typed = true;
            }
        }
        (child.wait().expect("wait for docker").code(), shown)
    }

    /// What `docker inspect` tells: one field, such as `.State.Pid`, or several, separated by spaces.
    #[track_caller]
    pub fn inspect(&self, name: &str, fields: &str) -> String {
        let format: Vec<String> = fields.split(' ').map(|field| format!("{{{{{field}}}}}")).collect();
        self.docker(&["inspect", "--format", &format.join(" "), name])
    }

    /// Waits until [`inspect`](Self::inspect) answers `wanted`.
    pub async fn becomes(&self, name: &str, fields: &str, wanted: &str) {
        eventually(format!("{name}: {fields} is {wanted}"), Duration::from_secs(20), || async {
            let now = self.inspect(name, fields);
            if now == wanted { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// A page behind a published port on loopback, as somebody on dockerd's node gets it.
    pub async fn page(&self, port: u16, path: &str) -> String {
        let script =
            "exec 3<>/dev/tcp/127.0.0.1/$0 && printf 'GET /%s HTTP/1.0\\r\\n\\r\\n' \"$1\" >&3 && timeout 2 cat <&3";
        eventually(format!("GET /{path} from port {port}"), Duration::from_secs(10), || async {
            let output = self.inside("bash").args(["-c", script, &port.to_string(), path]).output().expect("run bash");
            let text = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
            match text.split_once("\n\n") {
                Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
                _ => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
            }
        })
        .await
    }

    /// Serves the images of the world's registry in dockerd's network namespace as well, until the end; where.
    pub async fn serve_registry(&mut self, world: &World) -> String {
        let (address, storage) = ("127.0.0.1:5000", world.registry.storage().display());
        let config = self.dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {storage}}}\nhttp: {{addr: \"{address}\"}}\n"
        );
        std::fs::write(&config, text).expect("write the registry's configuration");
        let mut command = self.inside("docker-registry");
        command.arg("serve").arg(&config);
        self.registry = Some(Daemon::spawn("docker-registry", &mut command, &self.dir.join("registry.log")));
        self.page(5000, "v2/").await;
        address.to_owned()
    }

    /// dockerd, and the core that it has started itself.
    pub fn pids(&self) -> Vec<i32> {
        let own_core = self.core_socket.is_none().then(|| self.own_core());
        self.process.as_ref().map(Daemon::pid).into_iter().chain(own_core).collect()
    }

    /// Where clients connect: `unix://PATH`.
    pub fn endpoint(&self) -> String {
        self.host()
    }

    /// The pid of the core that dockerd has started itself.
    pub fn own_core(&self) -> i32 {
        let file = self.dir.join("exec/containerd/containerd.pid");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        text.trim().parse().unwrap_or_else(|e| panic!("{}: {e}: {text}", file.display()))
    }

    /// Removes all containers, and ends dockerd as a service manager would. What is left after it is a leak.
    pub fn end(mut self) {
        let all = self.docker(&["ps", "--all", "--quiet"]);
        let mut remove = vec!["rm", "--force", "--volumes"];
        remove.extend(all.lines());
        if remove.len() > 3 {
            self.docker(&remove);
        }
        for folder in ["exec/containerd", "exec/runtime-runc/moby", "data/containers"] {
            let all = std::fs::read_dir(self.dir.join(folder)).into_iter().flatten().flatten();
            // Beside the folders of containers there is what a core of its own has.
            let left: Vec<_> = all.filter(|entry| entry.file_name().len() == 64).collect();
            assert!(left.is_empty(), "containers are gone, but not {left:?}");
        }
        self.stop();
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("=== dockerd\n{}", tail(&self.log(), 40));
        }
        self.process.take();
        self.registry.take();
        remove_netns(&self.netns);
        let mut mounts = crate::inventory::mounts(&self.dir);
        mounts.reverse();
        for mount in mounts {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

#[track_caller]
fn said(args: &[&str], output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "docker {args:?}: {}\nstdout: {out}\nstderr: {err}", output.status);
    out.trim_end().to_owned()
}
