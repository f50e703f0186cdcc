//! What Docker does by itself, on news from the core: restarts, health, ends for lack of memory.

use e2e::Wiring;
use e2e::docker::IMAGE;

use crate::Node;

e2e::wirings!(containers_are_restarted, health_is_checked, memory_runs_out);

async fn containers_are_restarted(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    let run = |name: &str, policy: &str, script: &str| {
        docker.docker(&["run", "-d", "--name", name, "--restart", policy, IMAGE, "sh", "-c", script]);
    };
    run("fails", "on-failure:2", "echo try; exit 3");
    run("succeeds", "on-failure:2", "exit 0");
    run("always", "always", "sleep 0.2; exit 0");
    docker.becomes("fails", ".State.Status .RestartCount .State.ExitCode", "exited 2 3").await;
    assert_eq!(docker.docker(&["logs", "fails"]), "try\ntry\ntry");
    assert_eq!(docker.inspect("succeeds", ".State.Status .RestartCount .State.ExitCode"), "exited 0 0");
    e2e::eventually("it is restarted", std::time::Duration::from_secs(10), || async {
        let restarts: u32 = docker.inspect("always", ".RestartCount").parse().expect("a number");
        if restarts >= 2 { Ok(()) } else { Err(restarts.to_string()) }
    })
    .await;
    docker.docker(&["stop", "--time", "1", "always"]);
    assert_eq!(docker.inspect("always", ".State.Status"), "exited");
    let started = docker.inspect("always", ".State.StartedAt");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(docker.inspect("always", ".State.StartedAt"), started, "what was stopped stays so");
    node.end().await;
}

async fn health_is_checked(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "2"];
    let mut args = vec!["run", "-d", "--name", "patient"];
    args.extend(health);
    args.extend([IMAGE, "sleep", "1000"]);
    docker.docker(&args);
    docker.becomes("patient", ".State.Health.Status", "unhealthy").await;
    docker.docker(&["exec", "patient", "touch", "/tmp/well"]);
    docker.becomes("patient", ".State.Health.Status", "healthy").await;
    node.end().await;
}

async fn memory_runs_out(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    let run = ["run", "--name", "hungry", "--memory", "16m", "--memory-swap", "16m", IMAGE, "tail", "/dev/zero"];
    docker.ends(137, &run);
    docker.becomes("hungry", ".State.OOMKilled .State.ExitCode", "true 137").await;
    docker.ends(137, &["run", "--name", "killed", IMAGE, "sh", "-c", "kill -9 -1; sleep 0 & kill -9 $!; wait $!"]);
    assert_eq!(docker.inspect("killed", ".State.OOMKilled"), "false");
    node.end().await;
}
