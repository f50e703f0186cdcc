//! `ContainerConfig`: what runs, with what, and what is told of it.

use std::time::Duration;

use e2e::Wiring;
use e2e::cases::Cases;
use e2e::cri::image;
use e2e::fixtures::{BUSYBOX, DOCKER};
use e2e::pod::sleeper;
use shared_proto::cri::v1::*;
use tonic::Code::{InvalidArgument, NotFound};

pub async fn container(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "container", &[DOCKER]).await;
    told_again(&mut cases).await;
    commands(&mut cases).await;
    surroundings(&mut cases).await;
    streams(&mut cases).await;
    stop_signals(&mut cases).await;
    refusals(&mut cases).await;
    cases.end().await;
}

async fn told_again(cases: &mut Cases) {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let metadata = Some(ContainerMetadata { name: "metadata".into(), attempt: 3 });
    let wanted = metadata.clone();
    let id = cases
        .runs("metadata", |c| {
            c.metadata = wanted;
            c.labels = [pair("a", "1"), pair("b.c/d", "")].into();
            c.annotations = [pair("note", "kept, with \"quotes\"")].into();
            c.log_path = "metadata/3.log".into();
        })
        .await;
    let status = cases.cri.container(&id).await;
    assert_eq!(status.metadata, metadata);
    cases.case("labels");
    assert_eq!(status.labels, [pair("a", "1"), pair("b.c/d", "")].into());
    cases.case("annotations");
    assert_eq!(status.annotations, [pair("note", "kept, with \"quotes\"")].into());
    cases.case("image");
    assert_eq!(status.image.expect("an image").image, BUSYBOX);
    let known = cases.cri.find_image(BUSYBOX).await.expect("the image");
    assert!(known.repo_digests.contains(&status.image_ref) || status.image_ref == known.id, "{}", status.image_ref);
    cases.case("log-path");
    let log = cases.world.pod_logs("container").join("metadata/3.log");
    assert_eq!(status.log_path, log.display().to_string());
    assert!(log.exists(), "{} is not there", log.display());
    let labels = [pair("b.c/d", "")].into();
    let filter = ContainerFilter { label_selector: labels, ..Default::default() };
    let found = cases.cri.list_containers(ListContainersRequest { filter: Some(filter) }).await.containers;
    assert_eq!(found.iter().map(|c| &c.id).collect::<Vec<_>>(), [&id]);
    cases.cri.try_remove(&id).await.expect("remove");

    let by_id = cases.prints("image-by-id", "echo ran", |c| c.image = Some(image(&known.id))).await;
    assert_eq!(by_id, "ran\n");
    let by_digest = cases.prints("image-by-digest", "echo ran", |c| c.image = Some(image(&known.repo_digests[0])));
    assert_eq!(by_digest.await, "ran\n");
}

async fn commands(cases: &mut Cases) {
    let words = |list: &[&str]| list.iter().map(|w| w.to_string()).collect::<Vec<_>>();
    let run = |command: &[&str], args: &[&str], reference: &'static str| {
        let (command, args) = (words(command), words(args));
        move |c: &mut ContainerConfig| (c.command, c.args, c.image) = (command, args, Some(image(reference)))
    };
    // Its entry point is `sh -c`, its command `id; env; pwd`.
    let both = cases.prints("command-of-the-image", "", run(&[], &[], DOCKER)).await;
    assert!(
        both.contains("uid=1000(app)") && both.contains("FROM_IMAGE=yes") && both.ends_with("/work/dir\n"),
        "{both}"
    );
    let args = cases.prints("args-replace-the-image's-command", "", run(&[], &["echo args"], DOCKER)).await;
    assert_eq!(args, "args\n");
    let command = cases.prints("command-replaces-both", "", run(&["echo", "command"], &[], DOCKER)).await;
    assert_eq!(command, "command\n");
    let both = cases.prints("command-and-args", "", run(&["echo"], &["a b", "", "c"], DOCKER)).await;
    assert_eq!(both, "a b  c\n");
}

async fn surroundings(cases: &mut Cases) {
    let wanted = [("ONE", "1"), ("FROM_IMAGE", "over"), ("SPACES", " a=b \n c"), ("EMPTY", "")];
    let pairs: Vec<_> = wanted.map(|(key, value)| KeyValue { key: key.into(), value: value.into() }).into();
    let script = "echo \"$ONE|$FROM_IMAGE|$SPACES|${EMPTY-unset}|$HOSTNAME|$PATH\"";
    let change = |c: &mut ContainerConfig| {
        c.image = Some(image(DOCKER));
        c.envs = pairs;
    };
    let out = cases.prints("envs", script, change).await;
    assert_eq!(out, "1|over| a=b \n c||container|/bin\n");
    let out =
        cases.prints("working-dir", "pwd; ls -ld . | cut -c1-10", |c| c.working_dir = "/made/for/it".into()).await;
    assert_eq!(out, "/made/for/it\ndrwxr-xr-x\n");
    let out = cases.prints("working-dir-of-the-image", "pwd", |c| c.image = Some(image(DOCKER))).await;
    assert_eq!(out, "/work/dir\n");
}

async fn streams(cases: &mut Cases) {
    // A line or the end: without stdin it is the end.
    let read = "read line; echo $?";
    assert_eq!(cases.prints("no-stdin", read, |_| ()).await, "1\n");
    let waits = cases.runs("stdin", |c| (c.command, c.stdin) = (vec!["cat".into()], true)).await;
    let once =
        cases.runs("stdin-once", |c| (c.command, c.stdin, c.stdin_once) = (vec!["cat".into()], true, true)).await;
    // Nobody has attached yet, so neither has come to its end.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for id in [waits, once] {
        assert_eq!(cases.cri.container(&id).await.state(), ContainerState::ContainerRunning);
        cases.cri.try_stop(&id, 0).await.expect("stop");
        cases.cri.try_remove(&id).await.expect("remove");
    }
    let terminal = "tty; test -t 1 && echo a terminal; echo error >&2; echo $TERM";
    let out = cases.prints("tty", terminal, |c| c.tty = true).await;
    assert_eq!(out.replace('\r', ""), "/dev/console\na terminal\nerror\nxterm\n".replace("/dev/console", TTY));
    assert_eq!(cases.prints("no-tty", "test -t 1 || echo no terminal", |_| ()).await, "no terminal\n");
    let both = cases.runs("log-has-both-streams", |c| {
        c.command = ["sh", "-c", "echo out; echo err >&2; printf part; sleep 1000"].map(String::from).into();
    });
    let both = both.await;
    let log = cases.world.log("container", "log-has-both-streams");
    e2e::eventually("both streams in the log", Duration::from_secs(5), || async {
        let lines = e2e::logs::read_live(&log);
        let found = |stream: &str, text: &str| lines.iter().any(|line| line.stream == stream && line.text == text);
        if found("stdout", "out") && found("stderr", "err") { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
    cases.cri.try_stop(&both, 0).await.expect("stop");
    cases.cri.try_remove(&both).await.expect("remove");
}

/// What runc calls the terminal in the container.
const TTY: &str = "/dev/pts/0";

async fn stop_signals(cases: &mut Cases) {
    let trap = |signal: &str| format!("trap 'exit 41' {signal}; touch /ready; while :; do sleep 1000 & wait $!; done");
    let stop = async |cases: &mut Cases, name: &str, signal: &str, change: &dyn Fn(&mut ContainerConfig)| {
        let id = cases
            .runs(name, |c| {
                c.command = vec!["sh".into(), "-c".into(), trap(signal)];
                change(c);
            })
            .await;
        e2e::eventually("the trap is set", Duration::from_secs(5), || async {
            match cases.cri.try_exec_in(&id, &["test", "-e", "/ready"], 5).await {
                Ok(answer) if answer.exit_code == 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        cases.cri.try_stop(&id, 10).await.expect("stop");
        assert_eq!(cases.cri.container(&id).await.exit_code, 41, "{name}");
        cases.cri.try_remove(&id).await.expect("remove");
    };
    stop(cases, "stop-signal-default", "TERM", &|_| ()).await;
    let root = Some(Int64Value { value: 0 });
    let from_image = |c: &mut ContainerConfig| {
        c.image = Some(image(DOCKER));
        e2e::pod::security(c).run_as_user = root;
    };
    stop(cases, "stop-signal-of-the-image", "INT", &from_image).await;
    if !cases.peer_lacks("stop-signal", "1.6 has no ContainerConfig.stop_signal") {
        stop(cases, "stop-signal", "USR1", &|c| c.set_stop_signal(Signal::Sigusr1)).await;
    }
}

async fn refusals(cases: &mut Cases) {
    cases.refused("metadata-missing", InvalidArgument, "metadata", |c| c.metadata = None).await;
    let absent = "registry.k8s.io/not/pulled:1";
    cases.refused("image-not-pulled", NotFound, absent, |c| c.image = Some(image(absent))).await;
    if !cases.peer_lacks("image-missing", "1.6 goes on to look for an image without a name") {
        cases.refused("image-missing", InvalidArgument, "image", |c| c.image = None).await;
    }
    if !cases.peer_lacks("container-refusals", "1.6 leaves these to runc, or takes them") {
        let relative = |c: &mut ContainerConfig| c.working_dir = "made/for/it".into();
        cases.refused("working-dir-relative", InvalidArgument, "working_dir", relative).await;
        let nameless = |c: &mut ContainerConfig| c.envs = vec![KeyValue { key: "a=b".into(), value: "c".into() }];
        cases.refused("env-without-a-name", InvalidArgument, "envs[0]", nameless).await;
        let zero = |c: &mut ContainerConfig| c.args = vec!["a\0b".into()];
        cases.refused("args-with-a-zero-byte", InvalidArgument, "zero byte", zero).await;
        let escape = |c: &mut ContainerConfig| c.log_path = "../../escaped.log".into();
        cases.refused("log-path-that-leads-out", InvalidArgument, "log_path", escape).await;
    }
    // A name is taken until its container is gone.
    cases.case("metadata-taken");
    let first = cases.cri.create(&cases.pod, &cases.config, &sleeper("taken")).await;
    let mut other = sleeper("taken");
    other.envs = vec![KeyValue { key: "X".into(), value: "y".into() }];
    let again = cases.cri.try_create(&cases.pod, &cases.config, &other).await.expect_err("the name is taken");
    assert!(again.message().contains("taken"), "{again:?}");
    cases.cri.try_remove(&first).await.expect("remove");
    let second = cases.cri.create(&cases.pod, &cases.config, &other).await;
    cases.cri.try_remove(&second).await.expect("remove");
}
