//! The flight recorder: a pod's life recorded on the way to each wiring, and replayed on it, on another wiring and on
//! Debian's containerd.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use e2e::config::Options;
use e2e::cri::{Cri, image, refused};
use e2e::daemon::binary;
use e2e::faulty::{Fault, Faulty};
use e2e::fixtures::{BUSYBOX, PAUSE, fixtures};
use e2e::pod::{script, sleeper};
use e2e::recorder::{self, Recorder, calls, explained};
use e2e::{Wiring, World, eventually, world};
use serde_json::Value;
use shared_proto::cri::v1::*;
use shared_proto::transport;
use tonic::Code;

e2e::wirings!(a_life_is_recorded_and_replayed, a_recorder_gets_out_of_the_way);

/// What must be in no recording.
const PASSWORD: &str = "pa55-of-the-registry";
const VARIABLE: &str = "va1ue-of-the-environment";
const PRIVATE: &str = "private.test/some/image:1";

/// A registry that wants a password, known to a world as `private.test`.
async fn private_registry(world: &World) -> Faulty {
    let registry = Faulty::start().await;
    registry.add("some/image", "1", &fixtures().layered);
    registry.fail(Fault::Basic { user: "me", password: PASSWORD });
    let dir = world.paths.dir.join("certs.d/private.test");
    std::fs::create_dir_all(&dir).expect("make the folder of a registry");
    let text = format!("server = \"http://{0}\"\n[host.\"http://{0}\"]\n", registry.address());
    std::fs::write(dir.join("hosts.toml"), text).expect("write hosts.toml");
    registry
}

/// Waits as `Cri::asleep` does, without an answer that is another one each time.
async fn asleep(cri: &Cri, container: &str) {
    cri.exec_ok(container, &["sh", "-c", "until busybox pidof sleep >/dev/null; do usleep 10000; done"]).await;
}

/// What a kubelet would do with a pod, from its first image to its removal, and some mistakes.
async fn life(world: &World, cri: &Cri) {
    cri.status(StatusRequest { verbose: true }).await;
    assert!(cri.list_pods(Default::default()).await.is_empty());
    assert!(cri.find_image(BUSYBOX).await.is_none());
    for reference in [PAUSE, BUSYBOX] {
        cri.pull(reference).await;
    }
    let pull = |password: &str| {
        let auth = AuthConfig { username: "me".into(), password: password.into(), ..Default::default() };
        cri.try_pull_image(PullImageRequest { image: Some(image(PRIVATE)), auth: Some(auth), ..Default::default() })
    };
    refused("a wrong password", pull("wr0ng-password").await, Code::Unauthenticated, PRIVATE);
    pull(PASSWORD).await.expect("the right password");
    assert!(cri.find_image(PRIVATE).await.is_some());
    cri.list_images(ListImagesRequest::default()).await;
    cri.image_fs_info(ImageFsInfoRequest {}).await;

    let config = world.pod("flown");
    let pod = cri.run_pod(&config).await;
    cri.pod_ip(&pod).await;
    let mut main = sleeper("main");
    main.envs.push(KeyValue { key: "SECRET".into(), value: VARIABLE.as_bytes().to_vec() });
    let main = cri.create(&pod, &config, &main).await;
    cri.container(&main).await;
    cri.try_start(&main).await.expect("start");
    asleep(cri, &main).await;
    // Two at once, of which one ends by itself.
    let (second, short) = (sleeper("second"), script("short", "echo out; sleep 0.3; exit 7"));
    let (second, short) = tokio::join!(cri.run(&pod, &config, &second), cri.run(&pod, &config, &short));
    assert_eq!(cri.exited(&short).await.exit_code, 7);
    cri.container_info(&main).await;
    cri.container_stats(ContainerStatsRequest { container_id: main.clone() }).await;
    cri.list_container_stats(Default::default()).await;
    cri.list_containers(Default::default()).await;
    cri.list_pods(Default::default()).await;
    asleep(cri, &second).await;

    assert_eq!(cri.exec_ok(&main, &["echo", "said"]).await, "said\n");
    assert_eq!(cri.try_exec_in(&main, &["sh", "-c", "exit 9"], 5).await.expect("exec").exit_code, 9);
    let exec = ExecRequest { container_id: main.clone(), cmd: vec!["sh".into()], stdout: true, ..Default::default() };
    assert!(cri.exec(exec).await.url.starts_with("http://"));
    cri.reopen_container_log(ReopenContainerLogRequest { container_id: main.clone() }).await;

    let nobody = "0".repeat(64);
    refused("no such container", cri.try_container(&nobody).await, Code::NotFound, &nobody);
    refused("no such pod", cri.try_create(&nobody, &config, &sleeper("lost")).await, Code::NotFound, &nobody);
    refused("it runs", cri.try_create(&pod, &config, &sleeper("main")).await, Code::AlreadyExists, "main");

    cri.try_stop(&main, 5).await.expect("stop");
    assert_eq!(cri.container(&main).await.state(), ContainerState::ContainerExited);
    cri.try_remove(&main).await.expect("remove");
    refused("removed", cri.try_container(&main).await, Code::NotFound, &main);
    cri.try_stop(&second, 5).await.expect("stop");
    cri.end_pod(&pod).await;
    assert!(cri.list_pods(Default::default()).await.is_empty());
}

/// Replays with the credentials that no recording has.
fn replay(file: &Path, from: &World, on: &World, more: &[&str]) -> Output {
    let auth = on.paths.dir.join("auth.json");
    let text = format!(r#"{{"auths": {{"private.test": {{"auth": "{}"}}}}}}"#, base64(&format!("me:{PASSWORD}")));
    std::fs::write(&auth, text).expect("write credentials");
    recorder::replay(file, from, on, &[&["--auth", &auth.display().to_string()], more].concat())
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn next(wiring: Wiring) -> Wiring {
    match wiring {
        Wiring::Split => Wiring::Loopback,
        Wiring::Loopback => Wiring::Merged,
        Wiring::Merged => Wiring::Split,
    }
}

async fn a_life_is_recorded_and_replayed(wiring: Wiring) {
    let home = world(wiring).await;
    let _registry = private_registry(&home).await;
    let recorder = Recorder::start(&home, "life").await;
    let cri = Cri::connect(&recorder.socket);
    let mut events = cri.runtime().get_container_events(GetEventsRequest {}).await.expect("subscribe").into_inner();
    old_version(&recorder.socket).await;
    life(&home, &cri).await;
    let event = tokio::time::timeout(Duration::from_secs(5), events.message()).await.expect("an event in time");
    assert!(event.expect("no error").is_some(), "a stream goes through the recorder");
    drop(events);
    // The cancellation gets there before the signal.
    cri.version().await.expect("an answer");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (file, lines) = recorder.stop();
    whole(&lines);
    no_secret(&std::fs::read_to_string(&file).expect("read"));

    // On the same wiring in the time of the recording, on another one as fast as it goes.
    let same = world(wiring).await;
    let _registry_there = private_registry(&same).await;
    explained(&replay(&file, &home, &same, &[]));
    assert!(same.cri().list_pods(Default::default()).await.is_empty(), "the recording removes what it makes");
    let other = world(next(wiring)).await;
    let _registry_elsewhere = private_registry(&other).await;
    let report: Value = serde_json::from_str(&explained(&replay(&file, &home, &other, &["--speed", "max", "--json"])))
        .expect("one JSON document");
    assert_eq!((&report["unexplained"], &report["warnings"]), (&0.into(), &Value::Array(Vec::new())));
    let latencies = report["latencies"].as_array().expect("a table");
    let run = latencies.iter().find(|row| row["method"] == "RunPodSandbox").expect("the pod was run");
    assert!(run["calls"] == 1 && run["recorded"]["p50_ns"].as_u64() > Some(1_000_000), "{run}");
    assert!(run["replayed"]["p99_ns"].as_u64() > Some(1_000_000), "{run}");

    falsified(&file, &home, &other);
}

/// The recording has every call from beginning to end, as it was.
fn whole(lines: &[Value]) {
    let (first, last) = (&lines[0], &lines[lines.len() - 1]);
    assert_eq!((&first["kind"], &first["target"]["runtime_name"]), (&"header".into(), &"seam".into()), "{first}");
    assert_eq!((&last["kind"], &last["dropped"]["lines"]), (&"footer".into(), &0.into()), "{last}");
    let mut numbers: Vec<u64> = calls(lines, "").iter().map(|call| call["seq"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=last["calls"].as_u64().expect("a count")).collect::<Vec<_>>(), "no call is missing");
    for (method, count) in [("RunPodSandbox", 1), ("CreateContainer", 5), ("PullImage", 4), ("StopContainer", 2)] {
        assert_eq!(calls(lines, method).len(), count, "{method}");
    }
    for call in calls(lines, "").iter().filter(|call| !call["method"].as_str().unwrap_or_default().ends_with("Events"))
    {
        assert!(call["code"].is_string() && call["took_ns"].as_u64() > Some(0), "{call}");
        assert!(call["request"]["json"].is_object(), "{call}");
        assert_eq!(call["code"] == "OK", call["response"]["json"].is_object(), "{call}");
    }
    let old: Vec<_> = calls(lines, "/runtime.v1alpha2.RuntimeService/Version");
    assert_eq!(old[0]["response"]["json"]["runtime_api_version"], "v1alpha2");
    // The stream of events: opened, message by message, cut by the client.
    let open = lines.iter().find(|line| line["kind"] == "open").expect("a stream");
    let messages = lines.iter().filter(|line| line["kind"] == "message" && line["seq"] == open["seq"]).count();
    let end = calls(lines, "GetContainerEvents")[0];
    assert_eq!((&end["responses"], &end["cut"]), (&messages.into(), &"client".into()), "{end}");
    assert!(messages >= 8, "created and started, four things: {messages}");
    // What somebody reads first: what was run, and how it went.
    let exec = calls(lines, "ExecSync").into_iter().find(|call| call["response"]["json"]["exit_code"] == 9);
    assert_eq!(exec.expect("the failed command")["request"]["json"]["cmd"][2], "exit 9");
}

/// Nothing secret is in the text, in no form; that something was there, is.
fn no_secret(text: &str) {
    for secret in [PASSWORD, VARIABLE, "wr0ng-password"] {
        assert!(!text.contains(secret) && !text.contains(base64(secret).trim_end_matches('=')), "{secret}");
    }
    assert!(text.contains("SECRET") && text.contains("REDACTED"), "the name of the variable is no secret");
    let url = text.split("/exec/").nth(1).expect("the address of a stream");
    assert!(url.starts_with("REDACTED\""), "{}", &url[..20]);
}

/// A recording that says something else than what happens is found out.
fn falsified(file: &Path, home: &World, on: &World) {
    let text = std::fs::read_to_string(file).expect("read");
    let (seven, eight) = ("\"exit_code\":7", "\"exit_code\":8");
    assert!(text.contains(seven), "the container that ended with 7 is in the recording");
    let forged = on.paths.dir.join("forged.jsonl");
    std::fs::write(&forged, text.replace(seven, eight)).expect("write");
    let output = replay(&forged, home, on, &["--speed", "max", "--settle", "1"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{out}");
    assert!(out.contains("\nUnexplained:\n") && out.contains("exit_code: recorded 8, replayed 7"), "{out}");
}

/// Version as a kubelet up to 1.25 asks for it.
async fn old_version(socket: &Path) {
    let mut client = tonic::client::Grpc::new(transport::unix(socket));
    client.ready().await.expect("connect");
    let path = "/runtime.v1alpha2.RuntimeService/Version".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<VersionRequest, VersionResponse>::default();
    let request = tonic::Request::new(VersionRequest { version: "0.1.0".into() });
    let answer = client.unary(request, path, codec).await.expect("an answer").into_inner();
    assert_eq!(answer.runtime_api_version, "v1alpha2");
}

/// The median time of a call that does nothing.
async fn typical(cri: &Cri) -> Duration {
    let mut times = Vec::new();
    for _ in 0..301 {
        let started = Instant::now();
        cri.version().await.expect("an answer");
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// A recorder that is ended, and one whose target goes away, hinder nobody for longer than that.
async fn a_recorder_gets_out_of_the_way(wiring: Wiring) {
    let mut world = world(wiring).await;
    let recorder = Recorder::start(&world, "first").await;
    let cri = Cri::connect(&recorder.socket);
    let (direct, recorded) = (typical(&world.cri()).await, typical(&cri).await);
    println!("{}: Version in {direct:?}, through the recorder in {recorded:?}", wiring.name());
    assert!(recorded < direct + Duration::from_millis(20), "{recorded:?}, without the recorder {direct:?}");
    world.restart().await;
    eventually("the same client is served again", Duration::from_secs(10), || async {
        cri.version().await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let socket = recorder.socket.clone();
    let open = cri.runtime().get_container_events(GetEventsRequest {}).await.expect("subscribe");
    let (file, lines) = recorder.stop();
    drop(open);
    assert!(!socket.exists(), "nobody waits for a recorder that is gone");
    assert_eq!(lines[lines.len() - 1]["kind"], "footer");
    let cut = calls(&lines, "GetContainerEvents");
    assert_eq!(cut[0]["cut"], "recorder", "{cut:?}");

    // A recording is not written over, and a socket that nobody serves is no target.
    for (to, output, names) in [
        (world.paths.cri_socket.clone(), file.clone(), file.display().to_string()),
        (world.paths.dir.join("nobody.sock"), world.paths.dir.join("new"), "nobody.sock".to_owned()),
    ] {
        let mut command = Command::new(binary("cri-daemon"));
        command.arg("record").arg("--listen").arg(&socket).arg("--to").arg(to).arg("--output").arg(output);
        let failed = command.output().expect("run cri-daemon record");
        let err = String::from_utf8_lossy(&failed.stderr);
        assert!(failed.status.code() == Some(1) && err.contains(&names), "{names}: {err}");
    }
}

/// Ours on containerd, and containerd's on ours: what differs is known.
#[tokio::test(flavor = "multi_thread")]
async fn debians_containerd_differs_in_known_ways() {
    let (ours, mut options) = (world(Wiring::Split).await, Options::new(Wiring::Split));
    options.peer = Some("containerd");
    let theirs = World::start(Wiring::Split, options).await;
    let _registries = (private_registry(&ours).await, private_registry(&theirs).await);
    let recorder = Recorder::start(&ours, "ours").await;
    life(&ours, &Cri::connect(&recorder.socket)).await;
    let (file, _) = recorder.stop();
    let out = explained(&replay(&file, &ours, &theirs, &[]));
    assert!(out.contains("another runtime"), "{out}");
}
