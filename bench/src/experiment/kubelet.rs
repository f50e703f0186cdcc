//! Experiment: the announcement's own. A real kubelet fills a node with pods; what kubelet and runtime then use at rest,
//! with ours, with Debian's containerd, and with Docker Engine behind the kubelet's dockershim.
//!
//! The announcement of containerd 1.1 (May 2018) compared kubelet and runtime, CPU and memory, at 105 pods, CRI beside
//! dockershim. The kubelet here is version 1.20, the last but three with a dockershim. Without one, or without Docker
//! Engine, that part is left out, and the report says so.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::docker::{self, Docker};
use e2e::fixtures::BUSYBOX;
use e2e::kubelet::{Kubelet, is_ready};
use e2e::{World, eventually};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::Settings;
use crate::engine::Engine;
use crate::node::{self, MB, Usage};
use crate::report::{Experiment, Part, Row, Table, show};
use crate::sides::{PEER, SIDES};

const PODS: usize = 105;
/// How long a node comes to rest once all is ready: first probes, first stats, garbage collection.
const SETTLE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(240);
/// Pods that are ended at a time.
const AT_A_TIME: usize = 10;
const DOCKERSHIM: &str = "Docker Engine";

/// What one side used.
struct Node {
    side: &'static str,
    ready_seconds: f64,
    /// Kubelet, daemons, shims: percent of a core at rest, and what they are at the end.
    parts: [(f64, Usage); 3],
}

pub async fn run(settings: &Settings) -> anyhow::Result<Experiment> {
    let mut experiment = Experiment {
        name: "kubelet".into(),
        title: "The announcement's table".into(),
        question: "What do a kubelet and its runtime use at 105 pods, over CRI and with Docker?".into(),
        ..Experiment::default()
    };
    if std::env::var_os("SEAM_KUBELET").is_none() {
        experiment.notes.push("Left out: there is no kubelet. `make test-kubelet` builds one and keeps it.".into());
        return Ok(experiment);
    }
    let (pods, seconds) = (settings.pick(PODS, 4), settings.pick(20, 3));
    let engine = Engine::Runc.binary()?;
    let lacks = docker::lacks();
    let count = SIDES.len() + usize::from(lacks.is_none());
    let mut nodes = Vec::new();
    for turn in 0..count {
        let which = (turn + settings.seed as usize) % count;
        let name = SIDES.get(which).map_or(DOCKERSHIM, |side| side.name);
        (settings.tell)(&format!("a kubelet with {name}"), turn as f64 / count as f64);
        let measured = match SIDES.get(which) {
            Some(side) => over_cri(side.world(&engine).await, name, pods, seconds).await,
            None => with_dockershim(pods, seconds).await,
        };
        nodes.push(measured.with_context(|| format!("a kubelet with {name}"))?);
    }
    describe(&mut experiment, &nodes, pods, seconds);
    experiment.notes.extend(lacks.map(|why| format!("Docker Engine is left out: {why}.")));
    Ok(experiment)
}

async fn over_cri(world: World, side: &'static str, pods: usize, seconds: u64) -> anyhow::Result<Node> {
    world.pull(e2e::fixtures::PAUSE).await;
    world.pull(BUSYBOX).await;
    let mut kubelet = Kubelet::start(&world, &[]).await;
    let node = fill(&world, &kubelet, &world.daemon_pids(), side, pods, seconds).await?;
    // A kubelet takes its time to end pods, which is not looked at here.
    kubelet.stop();
    let cri = world.cri();
    let pods = cri.list_pods(Default::default()).await;
    futures::stream::iter(&pods).for_each_concurrent(AT_A_TIME, |pod| cri.end_pod(&pod.id)).await;
    Ok(node)
}

async fn with_dockershim(pods: usize, seconds: u64) -> anyhow::Result<Node> {
    let world = World::prepare(e2e::Wiring::Split, e2e::config::Options::new(e2e::Wiring::Split));
    let docker = Docker::start_for_dockershim(&world).await;
    let networks = world.paths.dir.join("networks-of-dockershim");
    write_network(&world.paths.cni_conf.join("10-seam.conflist"), &networks)?;
    let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
    let flags = [
        flag("container-runtime", &"docker"),
        flag("network-plugin", &"cni"),
        flag("cni-bin-dir", &world.paths.cni_bin.display()),
        flag("cni-conf-dir", &networks.display()),
        flag("cni-cache-dir", &world.paths.dir.join("cni-cache").display()),
        flag("docker-endpoint", &docker.endpoint()),
    ];
    let mut kubelet = Kubelet::start(&world, &flags.each_ref().map(String::as_str)).await;
    let node = fill(&world, &kubelet, &docker.pids(), DOCKERSHIM, pods, seconds).await?;
    kubelet.stop();
    docker.end();
    Ok(node)
}

/// The network of the suites, as a CNI library of 2020 reads it, and without our own plugin.
fn write_network(from: &Path, folder: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    let mut network: Value = serde_json::from_slice(&text)?;
    network["cniVersion"] = "0.3.1".into();
    if let Some(plugins) = network["plugins"].as_array_mut() {
        plugins.retain(|plugin| plugin["type"] != "cni-gate");
    }
    std::fs::create_dir_all(folder)?;
    let to = folder.join("10-seam.conflist");
    std::fs::write(&to, network.to_string()).with_context(|| format!("write {}", to.display()))
}

/// Fills the node, lets it come to rest, and looks at what is used.
async fn fill(
    world: &World,
    kubelet: &Kubelet,
    daemons: &[i32],
    side: &'static str,
    pods: usize,
    seconds: u64,
) -> anyhow::Result<Node> {
    let clock = Instant::now();
    let main = json!({
        "name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"],
    });
    for i in 0..pods {
        kubelet.add(&format!("p{i}"), json!({"containers": [&main], "terminationGracePeriodSeconds": 1}));
    }
    eventually(format!("{pods} pods are ready"), LIMIT, || async {
        let known = kubelet.pods().await;
        let ready = known.iter().filter(|pod| is_ready(&pod["status"])).count();
        if ready == pods { Ok(()) } else { Err(format!("{ready} of {}", known.len())) }
    })
    .await;
    let ready_seconds = clock.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let look = || -> anyhow::Result<[Usage; 3]> {
        Ok([node::sum(&[kubelet.pid()])?, node::sum(daemons)?, node::shims(world)?])
    };
    let (clock, before) = (Instant::now(), look()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, took) = (look()?, clock.elapsed().as_secs_f64());
    let part = |which: usize| {
        let used = after[which].cpu_seconds - before[which].cpu_seconds;
        (used / took * 100.0, after[which])
    };
    Ok(Node { side, ready_seconds, parts: [part(0), part(1), part(2)] })
}

fn describe(experiment: &mut Experiment, nodes: &[Node], pods: usize, seconds: u64) {
    let runtime = |node: &Node| {
        let [_, daemons, shims] = node.parts;
        (daemons.0 + shims.0, daemons.1.pss + shims.1.pss)
    };
    for node in nodes {
        let (cpu, pss) = runtime(node);
        experiment.findings.push(format!(
            "{}: {pods} pods ready after {} s; at rest the kubelet uses {} % of a core, the runtime {} % and {} MB (PSS).",
            name(node.side),
            show(node.ready_seconds),
            show(node.parts[0].0),
            show(cpu),
            show(pss / MB)
        ));
    }
    let columns = [
        "kubelet with",
        "all ready, s",
        "kubelet CPU, % of a core",
        "kubelet RSS, MB",
        "daemons CPU, %",
        "daemons RSS, MB",
        "shims CPU, %",
        "shims RSS, MB",
        "runtime PSS, MB",
    ];
    let row = |node: &Node| {
        let [kubelet, daemons, shims] = node.parts;
        let cells = [
            node.ready_seconds,
            kubelet.0,
            kubelet.1.rss / MB,
            daemons.0,
            daemons.1.rss / MB,
            shims.0,
            shims.1.rss / MB,
            runtime(node).1 / MB,
        ];
        Row { name: name(node.side), cells: cells.map(Some).into() }
    };
    experiment.parts.push(Part::Table(Table {
        title: format!("{pods} static pods, one container each, at rest for {seconds} s"),
        columns: columns.map(str::to_owned).into(),
        rows: nodes.iter().map(row).collect(),
    }));
    experiment.notes.push(
        "One kubelet 1.20 for all, with runc, the same CNI network and images; CRI is v1alpha2 there. The announcement of \
         2018 had a cluster, kubelet 1.10, Docker 17.12 and containerd 1.1: its figures are not comparable, its question \
         is. With Docker Engine an OCI runtime wrapper lifts negative OOM scores, which takes some milliseconds a start. \
         Daemons: core and CRI side; containerd; dockerd and its containerd. Their RSS counts shared pages in full. One \
         stretch of time a side: no interval is given."
            .into(),
    );
}

fn name(side: &str) -> String {
    match side {
        PEER => "containerd 1.6".to_owned(),
        DOCKERSHIM => "dockershim and Docker Engine 20.10".to_owned(),
        ours => format!("Seam, {ours}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_is_who() {
        let usage = |rss: f64| Usage { processes: 1, rss, pss: rss / 2.0, ..Usage::default() };
        let node = |side| Node {
            side,
            ready_seconds: 20.0,
            parts: [(10.0, usage(80e6)), (2.0, usage(40e6)), (1.0, usage(60e6))],
        };
        let mut experiment = Experiment::default();
        describe(&mut experiment, &[node("merged"), node(DOCKERSHIM)], 105, 20);
        let Part::Table(table) = &experiment.parts[0] else { panic!("{:?}", experiment.parts) };
        let names: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["Seam, merged", "dockershim and Docker Engine 20.10"]);
        assert_eq!(table.rows[0].cells, [20.0, 10.0, 80.0, 2.0, 40.0, 1.0, 60.0, 50.0].map(Some));
        assert!(table.rows.iter().all(|row| row.cells.len() + 1 == table.columns.len()));
    }

    #[test]
    fn an_old_library_gets_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::write(&from, r#"{"cniVersion":"0.4.0","plugins":[{"type":"bridge"},{"type":"cni-gate"}]}"#).unwrap();
        write_network(&from, &dir.path().join("to")).unwrap();
        let text = std::fs::read_to_string(dir.path().join("to/10-seam.conflist")).unwrap();
        assert_eq!(text, r#"{"cniVersion":"0.3.1","plugins":[{"type":"bridge"}]}"#);
    }
}
