//! A pod's own process, which our shim makes without an engine: it is what runc would have made, fact by fact.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::config::Options;
use e2e::pod::{ready_in, sleeper};
use e2e::{Wiring, World};

e2e::wirings!(as_an_engine_makes_it, without_a_shim);

/// Of `/proc/PID/status`; those that begin with `Cap` and `Sig` besides.
const STATUS: [&str; 9] = ["Umask", "Uid", "Gid", "Groups", "NSpid", "NSsid", "Seccomp", "NoNewPrivs", "Threads"];
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
const LIMITS: [(&str, &str); 3] = [("cpu", "cpu.shares"), ("devices", "devices.list"), ("cpuset", "cpuset.cpus")];

/// A process, and what its facts are cleaned of: what must differ between two pods.
struct Subject<'a> {
    world: &'a World,
    pod: &'a str,
    pid: i32,
}

impl Subject<'_> {
    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(file)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.proc(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    fn clean(&self, text: &str) -> String {
        let world = self.world.paths.dir.display().to_string();
        let text = text.replace(&world, "WORLD").replace(self.pod, "POD").replace(&self.world.slot.name(), "SLOT");
        let text = text.replace(&self.pid.to_string(), "PID");
        let numbers = ["master:", "shared:", "snapshots/"];
        numbers.iter().fold(text, |text, before| {
            let mut parts = text.split(before);
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |done, part| done + before + "N" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
        })
    }

    /// What the kernel says of it.
    fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        let told = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default();
            STATUS.contains(&name) || ["Cap", "SigB", "SigC"].iter().any(|start| name.starts_with(start))
        };
        facts.extend(self.read("status").lines().filter(told).map(|line| self.clean(line)));
        facts.extend(["cmdline", "limits", "oom_score_adj"].map(|file| self.clean(&self.read(file))));
        let environment = self.read("environ");
        facts.push(format!("{:?}", std::collections::BTreeSet::from_iter(environment.split('\0'))));
        // Without the numbers of mounts and devices: from the root on.
        let mounts = self.read("mountinfo");
        facts.extend(mounts.lines().map(|line| self.clean(line.splitn(4, ' ').nth(3).unwrap_or_default())));
        facts.extend(self.read("cgroup").lines().map(|line| self.clean(line)));
        let cgroup =
            self.read("cgroup").lines().next().and_then(|line| line.rsplit(":/").next()).unwrap_or_default().to_owned();
        for (controller, file) in LIMITS {
            let path = Path::new("/sys/fs/cgroup").join(controller).join(&cgroup).join(file);
            facts.push(format!("{file}: {:?}", fs::read_to_string(path).ok()));
        }
        for kind in NAMESPACES {
            let of = |ns: PathBuf| fs::read_link(ns.join(kind)).expect("a namespace");
            facts.push(format!("{kind} of its own: {}", of(self.proc("ns")) != of("/proc/self/ns".into())));
        }
        for link in ["cwd", "root", "exe", "fd/0", "fd/1", "fd/2"] {
            facts.push(format!("{link}: {:?}", fs::read_link(self.proc(link)).ok()));
        }
        let descriptors = fs::read_dir(self.proc("fd")).expect("its descriptors").count();
        facts.push(format!("{descriptors} descriptors"));
        facts.extend(self.devices());
        facts.push(self.inside("hostname; cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range"));
        facts.iter().map(|fact| without_the_known(fact)).collect()
    }

    fn devices(&self) -> Vec<String> {
        let devices = fs::read_dir(self.proc("root/dev")).expect("its devices").flatten();
        let mut devices: Vec<_> = devices
            .map(|entry| {
                let (meta, target) = (entry.metadata().expect("a device"), fs::read_link(entry.path()).ok());
                format!("/dev/{:?} {:o} {} {target:?}", entry.file_name(), meta.mode(), meta.rdev())
            })
            .collect();
        devices.sort();
        devices
    }

    /// What a command prints in its UTS, IPC and network namespaces.
    fn inside(&self, command: &str) -> String {
        let pid = self.pid.to_string();
        let output = Command::new("nsenter").args(["-t", &pid, "-u", "-i", "-n", "sh", "-c", command]).output();
        let output = output.expect("run nsenter");
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// runc takes attributes off the pod's `/dev/shm` when it makes it read-only, and allows what a tunnel needs.
fn without_the_known(fact: &str) -> String {
    if fact.starts_with("/ /dev/shm ") {
        return fact.replace("nosuid,nodev,noexec,", "");
    }
    fact.replace("c 10:200 rwm\\n", "")
}

/// The process that holds the namespaces of a pod.
async fn pause(world: &World, pod: &str) -> i32 {
    let rows = world.ctr(&["-n", "k8s.io", "tasks", "ls"]);
    let row = rows.lines().find(|row| row.starts_with(pod)).unwrap_or_else(|| panic!("no {pod} in\n{rows}"));
    row.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid")
}

async fn as_an_engine_makes_it(wiring: Wiring) {
    let (mut all, ours) = (Vec::new(), std::env::var_os("SEAM_SHIM").is_none() && e2e::world::peer().is_none());
    for faulty_engine in [true, false] {
        let world = World::start(wiring, Options { faulty_engine, ..Options::new(wiring) }).await;
        let (world, cri, config, pod) = ready_in(world, "alike").await;
        let id = cri.run(&pod, &config, &sleeper("main")).await;
        assert_eq!(cri.exec_ok(&id, &["hostname"]).await, "alike\n");
        let subject = Subject { world: &world, pod: &pod, pid: pause(&world, &pod).await };
        all.push(subject.facts());
        let by_engine = world.paths.runc_root.join("k8s.io").join(&pod).exists();
        assert_eq!(by_engine, faulty_engine || !ours, "who made it");
        if !by_engine {
            let refused = world.try_ctr(&["-n", "k8s.io", "tasks", "exec", "--exec-id", "x", &pod, "true"]);
            let said = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success() && said.contains("a pod's own process"), "{said}");
        }
        cri.end_pod(&pod).await;
        world.no_pods().await;
    }
    let missing =
        |from: &[String], of: &[String]| of.iter().filter(|fact| !from.contains(fact)).cloned().collect::<Vec<_>>();
    assert_eq!(missing(&all[1], &all[0]), missing(&all[0], &all[1]), "left the engine's alone, right ours alone");
    assert_eq!(all[0], all[1], "in this order");
}

/// Its shim is killed: the pod ends, and nothing of it stays.
async fn without_a_shim(wiring: Wiring) {
    let (world, cri, config, pod) = e2e::pod::ready(wiring, "orphan").await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    let (pid, processes) = (pause(&world, &pod).await, world.processes());
    let shim = processes.iter().find(|(_, line)| line.contains("containerd-shim-runc-v2") && line.contains(&pod));
    let (shim, _) = shim.unwrap_or_else(|| panic!("no shim of {pod}: {processes:?}"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(*shim), nix::sys::signal::Signal::SIGKILL)
        .expect("kill the shim");
    assert_eq!(cri.exited(&id).await.exit_code, 137);
    e2e::eventually("the pause process is gone", std::time::Duration::from_secs(20), || {
        let there = Path::new("/proc").join(pid.to_string()).exists();
        std::future::ready(if there { Err(format!("{pid} is there")) } else { Ok(()) })
    })
    .await;
    cri.end_pod(&pod).await;
    world.no_pods().await;
}
