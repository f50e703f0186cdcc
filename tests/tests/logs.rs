//! Container logs: the CRI format, long and unfinished lines, terminals, rotation, a slow disk's worth of output.

use std::time::Duration;

use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{script, sleeper};
use e2e::{Wiring, eventually, logs, world};
use shared_proto::cri::v1::*;

e2e::wirings!(lines_of_every_shape, rotation_loses_nothing);

/// `max_container_log_line_size`, by default.
const MAX_LINE: usize = 16384;

async fn lines_of_every_shape(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let config = world.pod("shapes");
    let pod = cri.run_pod(&config).await;
    let run = async |container: ContainerConfig| {
        let name = container.metadata.as_ref().expect("metadata").name.clone();
        let id = cri.run(&pod, &config, &container).await;
        let status = cri.exited(&id).await;
        assert_eq!(status.exit_code, 0, "{name}");
        // Everything is in the file by the time that the exit is told; Debian's containerd needs a moment more.
        if e2e::world::peer().is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        logs::read(&world.log("shapes", &name))
    };

    let lines = run(script("plain", "echo one; echo; echo '  spaced  '; echo err >&2; printf 'no end'")).await;
    assert_eq!(logs::text(&lines, "stderr"), "err\n");
    assert_eq!(logs::text(&lines, "stdout"), "one\n\n  spaced  \nno end");
    let last = lines.iter().rfind(|l| l.stream == "stdout").expect("a line");
    assert_eq!((last.tag.as_str(), last.text.as_str()), ("P", "no end"));

    let long = format!("yes x | tr -d '\\n' | head -c {}; echo; echo after", MAX_LINE * 2 + 100);
    let lines = run(script("long", &long)).await;
    let shape: Vec<(&str, usize)> = lines.iter().map(|l| (l.tag.as_str(), l.text.len())).collect();
    assert_eq!(shape, [("P", MAX_LINE), ("P", MAX_LINE), ("F", 100), ("F", 5)]);

    // Faster than a log can be written: the end of it is still in pipes when the process is gone. Debian's containerd
    // loses it.
    if e2e::world::peer().is_none() {
        let lines = run(script("many", "seq 1 200000")).await;
        assert_eq!(logs::assert_sequence(&lines), 200_000);
    }

    // Bytes that are no UTF-8 go through as they are.
    let id = cri.run(&pod, &config, &script("bytes", "printf '\\377\\376\\000caf\\303\\251\\n'")).await;
    assert_eq!(cri.exited(&id).await.exit_code, 0);
    let bytes = std::fs::read(world.log("shapes", "bytes")).expect("read the log");
    assert!(bytes.ends_with(b" stdout F \xff\xfe\0caf\xc3\xa9\n"), "{}", String::from_utf8_lossy(&bytes));

    let mut terminal = script("terminal", "test -t 1 && echo terminal; echo err >&2");
    terminal.tty = true;
    let lines = run(terminal).await;
    assert_eq!(logs::text(&lines, "stdout").replace('\r', ""), "terminal\nerr\n", "a terminal has one stream");
    assert_eq!(logs::text(&lines, "stderr"), "");

    // No log path: nothing is written, and nothing blocks.
    let mut silent = script("silent", "seq 1 100000");
    silent.log_path = String::new();
    let id = cri.run(&pod, &config, &silent).await;
    assert_eq!(cri.exited(&id).await.exit_code, 0);
    cri.end_pod(&pod).await;
}

async fn rotation_loses_nothing(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let config = world.pod("rotation");
    let pod = cri.run_pod(&config).await;
    let counter = script("counter", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; usleep 500; done");
    let id = cri.run(&pod, &config, &counter).await;
    let log = world.log("rotation", "counter");
    let mut pieces = Vec::new();
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let rotated = log.with_extension(format!("{round}"));
        std::fs::rename(&log, &rotated).expect("rotate");
        cri.reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await;
        assert!(log.exists(), "the log is there when the call returns");
        pieces.push(rotated);
    }
    assert_eq!(cri.exited(&id).await.exit_code, 0);
    pieces.push(log.clone());
    let lines: Vec<_> = pieces.iter().flat_map(|path| logs::read(path)).collect();
    assert_eq!(logs::assert_sequence(&lines), 3000);

    // Not running: an error, and no new file.
    std::fs::remove_file(&log).expect("remove the log");
    let request = ReopenContainerLogRequest { container_id: id.clone() };
    cri.try_reopen_container_log(request).await.expect_err("it does not run");
    assert!(!log.exists(), "no file is made for a container that does not run");

    // A reader that never comes back must not stop the writer: the log's folder vanishes under a running container.
    let id = cri.run(&pod, &config, &sleeper("orphan")).await;
    std::fs::remove_dir_all(world.pod_logs("rotation")).expect("remove the logs");
    cri.exec_ok(&id, &["sh", "-c", "seq 1 50000 >/proc/1/fd/1"]).await;
    eventually("it still stops", Duration::from_secs(5), || async {
        cri.try_stop(&id, 1).await.map_err(|e| e.to_string())
    })
    .await;
    cri.end_pod(&pod).await;
}
