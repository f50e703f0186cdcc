//! Without `--containerd`, dockerd starts the program `containerd` itself, with a configuration that it writes, watches
//! it, and starts it again when it dies.

use std::path::Path;
use std::time::Duration;

use e2e::daemon::binary;
use e2e::docker::{Docker, IMAGE, lacks};
use e2e::skip::skip;
use e2e::world::peer;
use e2e::{Wiring, world};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where dockerd looks for a core that runs already.
const SYSTEM: &str = "/run/containerd/containerd.sock";

#[tokio::test(flavor = "multi_thread")]
async fn dockerd_starts_the_core() {
    let running = Path::new(SYSTEM).exists().then(|| format!("{SYSTEM} exists: dockerd would take that core"));
    if let Some(reason) = lacks().or(running) {
        return skip(&reason);
    }
    let world = world(Wiring::Split).await;
    let before = world.inventory().await;
    let core = match peer() {
        Some(peer) => Path::new("/usr/bin").join(peer),
        None => binary("core-daemon"),
    };
    let docker = Docker::start_with_core(&world, &core).await;
    let pid = docker.own_core();
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).expect("it runs"), core);
    docker.docker(&["run", "-d", "--name", "stays", IMAGE, "sleep", "1000"]);
    docker.ends(8, &["exec", "stays", "sh", "-c", "exit 8"]);

    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill the core");
    e2e::eventually("dockerd starts it again", Duration::from_secs(20), || async {
        if docker.own_core() == pid {
            return Err("it has not yet".to_owned());
        }
        let output = docker.try_docker(&["exec", "stays", "true"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    docker.docker(&["stop", "--time", "0", "stays"]);
    assert_eq!(docker.inspect("stays", ".State.ExitCode"), "137");
    docker.end();
    world.assert_as_before(&before).await;
}
