//! What is done with one container.

use e2e::Wiring;
use e2e::docker::IMAGE;
use e2e::slot::cgroup_roots;

use crate::Node;

e2e::wirings!(a_container_runs_and_ends, a_container_is_worked_with, on_a_terminal);

/// Runs until it is told to end, which it answers with 5; on USR1 it says so.
const OBEDIENT: &str = "trap 'exit 5' TERM; trap 'echo told' USR1; echo up; while :; do sleep 1000 & wait; done";

async fn a_container_runs_and_ends(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    let began = epoch();
    let (out, err) = docker.ends(7, &["run", "--name", "ends", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((out.as_str(), err.as_str()), ("out", "err"));
    assert_eq!(docker.ends(0, &["logs", "ends"]), ("out".into(), "err".into()));
    assert_eq!(docker.inspect("ends", ".State.Status"), "exited");
    assert_eq!(docker.inspect("ends", ".State.ExitCode"), "7");
    assert_eq!(docker.inspect("ends", ".State.Pid"), "0");
    assert_eq!(docker.ends(7, &["start", "--attach", "ends"]).0, "out", "it can be started again");
    assert_eq!(docker.docker(&["wait", "ends"]), "7");
    let events = docker.docker(&[
        "events",
        "--since",
        &began.to_string(),
        "--until",
        &(epoch() + 1).to_string(),
        "--filter",
        "container=ends",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}} {{.Actor.Attributes.exitCode}}",
    ]);
    let none = "<no value>";
    let expected = ["create", "attach", "start", "die 7", "attach", "start", "die 7"].map(|action| match action {
        "die 7" => action.to_owned(),
        _ => format!("{action} {none}"),
    });
    assert_eq!(events.lines().collect::<Vec<_>>(), expected);
    docker.docker(&["rm", "ends"]);

    // What a container writes arrives whole, also what it has written just before its end.
    let bytes = docker.docker(&["run", "--rm", IMAGE, "sh", "-c", "yes 0123456 | head -c 4000000"]);
    assert_eq!(bytes.len() + 1, 4_000_000);
    assert_eq!(docker.fed(&["run", "--rm", "-i", IMAGE, "cat"], b"from outside\n"), "from outside");
    let all = docker.docker(&["ps", "--all", "--quiet"]);
    assert_eq!(all, "", "--rm removes them");

    let (_, err) = docker.ends(127, &["run", "--rm", IMAGE, "no-such-program"]);
    assert!(err.contains("no-such-program") && err.contains("not found"), "{err}");
    let (_, err) = docker.ends(126, &["run", "--rm", IMAGE, "/etc"]);
    assert!(err.contains("permission denied") || err.contains("is a directory"), "{err}");
    assert_eq!(docker.docker(&["run", "--rm", "--init", IMAGE, "sh", "-c", "cat /proc/1/comm"]), "docker-init");
    let user = docker.docker(&["run", "--rm", "--user", "1000:1001", "--network", "none", IMAGE, "id", "-u"]);
    assert_eq!(user, "1000");
    let read_only = ["run", "--rm", "--read-only", "--tmpfs", "/tmp", IMAGE, "sh", "-c", "touch /tmp/a && ! touch /a"];
    docker.docker(&read_only);
    node.end().await;
}

async fn a_container_is_worked_with(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    let id = docker.docker(&["run", "-d", "--name", "works", "--memory", "64m", IMAGE, "sh", "-c", OBEDIENT]);
    assert_eq!(docker.inspect("works", ".Id"), id);
    let pid = docker.inspect("works", ".State.Pid");
    let line = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("the container's process");
    assert_eq!(line, "sh\n");

    docker.ends(9, &["exec", "works", "sh", "-c", "exit 9"]);
    assert_eq!(docker.docker(&["exec", "works", "hostname"]), id[..12]);
    assert_eq!(docker.fed(&["exec", "-i", "works", "cat"], b"to an exec"), "to an exec");
    let (_, err) = docker.ends(126, &["exec", "works", "no-such-program"]);
    assert!(err.contains("no-such-program") || err.is_empty(), "{err}");
    docker.docker(&["exec", "-d", "works", "sleep", "1234"]);
    let top = docker.docker(&["top", "works", "-o", "pid,args"]);
    assert!(top.contains(&pid) && top.contains("sleep 1234"), "{top}");

    let stats = docker.docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "works"]);
    let words: Vec<&str> = stats.split(' ').collect();
    assert_eq!((words[0], words.last()), ("works", Some(&"64MiB")), "{stats}");
    assert!(words[1].parse::<u32>().is_ok_and(|pids| pids >= 3) && !words[2].starts_with("0B"), "{stats}");
    docker.docker(&["update", "--memory", "32m", "--memory-swap", "32m", "works"]);
    let memory = cgroup_roots().into_iter().find(|root| root.ends_with("memory"));
    if let Some(memory) = memory {
        let limit = memory.join(node.world.slot.name()).join(&id).join("memory.limit_in_bytes");
        let limit = std::fs::read_to_string(&limit).unwrap_or_else(|e| panic!("{}: {e}", limit.display()));
        assert_eq!(limit.trim(), (32 << 20).to_string());
    }

    docker.docker(&["pause", "works"]);
    assert_eq!(docker.inspect("works", ".State.Status"), "paused");
    let (_, err) = docker.ends(1, &["exec", "works", "true"]);
    assert!(err.contains("is paused"), "{err}");
    docker.docker(&["unpause", "works"]);
    assert_eq!(docker.inspect("works", ".State.Status"), "running");
    docker.docker(&["exec", "works", "true"]);

    docker.docker(&["kill", "--signal", "USR1", "works"]);
    e2e::eventually("the signal arrives", std::time::Duration::from_secs(5), || async {
        let logs = docker.docker(&["logs", "works"]);
        if logs == "up\ntold" { Ok(()) } else { Err(logs) }
    })
    .await;
    docker.docker(&["stop", "works"]);
    assert_eq!(docker.inspect("works", ".State.ExitCode"), "5");
    docker.docker(&["start", "works"]);
    docker.docker(&["restart", "--time", "10", "works"]);
    docker.docker(&["kill", "works"]);
    docker.becomes("works", ".State.Status", "exited").await;
    assert_eq!(docker.inspect("works", ".State.ExitCode"), "137");

    docker.docker(&["run", "-d", "--name", "deaf", IMAGE, "sleep", "1000"]);
    docker.docker(&["stop", "--time", "1", "deaf"]);
    assert_eq!(docker.inspect("deaf", ".State.ExitCode"), "137", "it is killed when it does not listen");
    node.end().await;
}

async fn on_a_terminal(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    // The client sets the size as soon as the container runs.
    let input = "tty; until busybox stty size | grep -v '^0 0'; do :; done; exit 5\n";
    let (code, shown) = docker.on_terminal(&["run", "-it", "--name", "shown", IMAGE, "sh"], input);
    assert_eq!(code, Some(5), "{shown}");
    assert!(shown.contains("/dev/pts/0") && shown.contains("40 100"), "{shown}");
    assert!(docker.docker(&["logs", "shown"]).contains("40 100"));
    docker.docker(&["run", "-d", "--name", "stays", IMAGE, "sleep", "1000"]);
    let (code, shown) = docker.on_terminal(&["exec", "-it", "stays", "sh"], input);
    assert_eq!(code, Some(5), "{shown}");
    assert!(shown.contains("/dev/pts/0") && shown.contains("40 100"), "{shown}");
    node.end().await;
}

/// Seconds since 1970.
fn epoch() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("it is past 1970").as_secs()
}
