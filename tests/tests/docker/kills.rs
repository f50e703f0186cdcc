//! dockerd, the core or a shim is killed under running containers.
//!
//! Containers wait for a file each in a folder that they share with the test, which so says when each of them ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::Wiring;
use e2e::config::Options;
use e2e::daemon::{bin_dir, binary};
use e2e::docker::{Docker, IMAGE};
use e2e::world::peer;

use crate::Node;

e2e::wirings!(dockerd_is_killed, the_core_is_killed, the_core_is_killed_under_starts, a_shim_is_killed);

const SHIM: &str = "containerd-shim-runc-v2";

/// The folder of the files.
struct Ends(PathBuf);

impl Ends {
    fn new(node: &Node) -> Self {
        let dir = node.world.paths.dir.join("ends");
        std::fs::create_dir_all(&dir).expect("make the folder");
        Self(dir)
    }

    /// Starts a container that ends with `code` once it is let go.
    fn run(&self, docker: &Docker, name: &str, policy: &str, code: i32) {
        let share = format!("{}:/ends", self.0.display());
        let script = format!("until [ -e /ends/{name} ]; do usleep 20000; done; exit {code}");
        let args = ["run", "-d", "--name", name, "--restart", policy, "-v", &share, IMAGE, "sh", "-c", &script];
        docker.docker(&args);
    }

    fn let_go(&self, name: &str) {
        std::fs::write(self.0.join(name), "").expect("write a file");
    }

    /// Waits until the process has ended. Nobody may be there to hear of it.
    async fn ended(&self, pid: &str) {
        e2e::eventually(format!("{pid} ends"), Duration::from_secs(10), || async {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
        })
        .await;
    }
}

const END: &str = ".State.Status .State.ExitCode";

async fn dockerd_is_killed(wiring: Wiring) {
    let Some(mut node) = Node::start(wiring).await else { return };
    let ends = Ends::new(&node);
    let docker = &mut node.docker;
    ends.run(docker, "stays", "no", 0);
    ends.run(docker, "meanwhile", "no", 4);
    ends.run(docker, "later", "no", 5);
    ends.run(docker, "again", "always", 6);
    let pid = |docker: &Docker, name: &str| docker.inspect(name, ".State.Pid");
    let (stays, meanwhile, again) = (pid(docker, "stays"), pid(docker, "meanwhile"), pid(docker, "again"));
    docker.kill();
    for (name, pid) in [("meanwhile", &meanwhile), ("again", &again)] {
        ends.let_go(name);
        ends.ended(pid).await;
    }
    std::fs::remove_file(ends.0.join("again")).expect("the restarted one is to stay");
    docker.run().await;
    docker.becomes("meanwhile", END, "exited 4").await;
    assert_eq!(docker.inspect("stays", END), "running 0");
    assert_eq!(pid(docker, "stays"), stays);
    docker.becomes("again", ".State.Status", "running").await;
    assert_ne!(pid(docker, "again"), again);
    docker.ends(8, &["exec", "stays", "sh", "-c", "exit 8"]);
    ends.let_go("later");
    docker.becomes("later", END, "exited 5").await;

    // As a service manager would restart it.
    docker.stop();
    docker.run().await;
    assert_eq!(pid(docker, "stays"), stays);
    ends.let_go("stays");
    docker.becomes("stays", END, "exited 0").await;
    node.end().await;
}

async fn the_core_is_killed(wiring: Wiring) {
    the_core_is_killed_in(wiring, Options::new(wiring)).await;
}

/// A core that does not lie beside our shim takes the one in `PATH`.
#[tokio::test(flavor = "multi_thread")]
async fn the_core_is_killed_over_debians_shim() {
    let dir = tempfile::tempdir_in(bin_dir()).expect("make a folder");
    let core = dir.path().join("core-daemon");
    std::fs::hard_link(binary("core-daemon"), &core).expect("link the core");
    let wiring = Wiring::Merged;
    the_core_is_killed_in(wiring, Options { core_binary: Some(core), ..Options::new(wiring) }).await;
}

async fn the_core_is_killed_in(wiring: Wiring, options: Options) {
    let shim = match &options.core_binary {
        Some(_) => Path::new("/usr/bin").join(SHIM),
        None if peer().is_some() => Path::new("/usr/bin").join(SHIM),
        None => bin_dir().join(SHIM),
    };
    let Some(mut node) = Node::start_with(options, wiring).await else { return };
    let ends = Ends::new(&node);
    for (name, policy, code) in
        [("stays", "no", 0), ("meanwhile", "no", 4), ("early", "no", 5), ("later", "no", 6), ("again", "always", 7)]
    {
        ends.run(&node.docker, name, policy, code);
    }
    assert_eq!(Path::new(&node.shim(&node.docker.inspect("stays", ".Id")).1), shim);
    let pid = |docker: &Docker, name: &str| docker.inspect(name, ".State.Pid");
    let [stays, meanwhile, again] = ["stays", "meanwhile", "again"].map(|name| pid(&node.docker, name));
    let wait = "until [ -e /ends/exec ]; do usleep 20000; done; exit 9";
    let mut exec = node.docker.client(&["exec", "stays", "sh", "-c", wait]).spawn().expect("run docker");
    e2e::eventually("the exec runs", Duration::from_secs(10), || async {
        let top = node.docker.docker(&["top", "stays", "-o", "pid,args"]);
        if top.contains("/ends/exec") { Ok(()) } else { Err(top) }
    })
    .await;
    // It runs before dockerd has the answer that it does; what the kill makes of that is another question.
    tokio::time::sleep(Duration::from_millis(500)).await;

    node.world.kill_core();
    for (name, pid) in [("meanwhile", &meanwhile), ("again", &again)] {
        ends.let_go(name);
        ends.ended(pid).await;
    }
    std::fs::remove_file(ends.0.join("again")).expect("the restarted one is to stay");
    ends.let_go("exec");
    node.world.run().await;
    // dockerd comes back to the core within seconds only; the shim's news of this one are there before.
    ends.let_go("early");
    let docker = &node.docker;
    if peer().is_none() {
        docker.becomes("meanwhile", END, "exited 4").await;
        docker.becomes("early", END, "exited 5").await;
        docker.becomes("again", ".State.Status .RestartCount", "running 1").await;
        assert_ne!(pid(docker, "again"), again);
        assert_eq!(exec.wait().expect("wait for docker").code(), Some(9), "the exec's end is heard of");
    } else {
        // containerd tells of an end once, and dockerd is not there yet.
        exec.kill().expect("end docker");
        exec.wait().expect("end docker");
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert_eq!(docker.inspect("stays", END), "running 0");
    assert_eq!(pid(docker, "stays"), stays);
    docker.ends(8, &["exec", "stays", "sh", "-c", "exit 8"]);
    ends.let_go("later");
    docker.becomes("later", END, "exited 6").await;
    assert_eq!(docker.docker(&["run", "--rm", IMAGE, "echo", "new"]), "new");

    // As a service manager would restart it: clients that listen delay it by nothing.
    let began = Instant::now();
    node.world.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?} to stop", began.elapsed());
    node.world.run().await;
    ends.let_go("stays");
    node.docker.becomes("stays", END, "exited 0").await;
    node.end().await;
}

async fn a_shim_is_killed(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    let id = docker.docker(&["run", "-d", "--name", "orphan", IMAGE, "sleep", "1000"]);
    docker.docker(&["run", "-d", "--name", "other", IMAGE, "sleep", "1000"]);
    let (pid, binary) = node.shim(&id);
    if peer().is_none() {
        assert_eq!(Path::new(&binary), bin_dir().join(SHIM), "built by deploy/scripts/build-shim");
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("kill");
    docker.becomes("orphan", END, "exited 137").await;
    assert_eq!(docker.inspect("other", END), "running 0");
    docker.docker(&["start", "orphan"]);
    docker.ends(8, &["exec", "orphan", "sh", "-c", "exit 8"]);
    node.end().await;
}

/// Starts that the kill falls into fail or not; afterwards every container can be started, and nothing is left.
async fn the_core_is_killed_under_starts(wiring: Wiring) {
    let Some(mut node) = Node::start(wiring).await else { return };
    // Where in a start it falls is different in each wiring.
    let earliest = match wiring {
        Wiring::Split => 250,
        Wiring::Loopback => 400,
        Wiring::Merged => 550,
    };
    for round in 0..2u64 {
        let names: Vec<String> = (0..6).map(|n| format!("r{round}n{n}")).collect();
        let starts = names.iter().map(|name| {
            let mut client = node.docker.client(&["run", "-d", "--name", name, IMAGE, "sleep", "1000"]);
            client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run docker")
        });
        let starts: Vec<_> = starts.collect();
        tokio::time::sleep(Duration::from_millis(earliest + 100 * round)).await;
        node.world.kill_core();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        node.world.run().await;
        // Shown only when the test fails.
        println!("round {round}: the core is back after {:?}", began.elapsed());
        for start in starts {
            println!("{:?}", start.wait_with_output().expect("wait for docker"));
        }
        let docker = &node.docker;
        for name in &names {
            let state = docker.inspect(name, END);
            e2e::eventually(format!("{name}, {state}, runs"), Duration::from_secs(20), || async {
                // All of it fails for as long as dockerd has not come back to the core. Of a container that runs though
                // dockerd saw its start fail, dockerd has taken the root filesystem away: it must be stopped and started.
                let run = |args: &[&str]| {
                    let output = docker.try_docker(args);
                    if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
                };
                run(&["start", name])?;
                let execs = run(&["exec", name, "true"]);
                if execs.is_err() {
                    run(&["stop", "--time", "0", name])?;
                }
                execs
            })
            .await;
        }
        println!("round {round}: all run after {:?}", began.elapsed());
        let mut remove = vec!["rm", "--force"];
        remove.extend(names.iter().map(String::as_str));
        docker.docker(&remove);
    }
    // Clients hold one while they make a container; where they can't give it back, it ends by itself after a day.
    for lease in node.world.ctr(&["-n", "moby", "leases", "ls", "-q"]).lines() {
        node.world.ctr(&["-n", "moby", "leases", "rm", lease]);
    }
    node.end().await;
}
