//! A node at rest: N pods in a wiring, polled as a kubelet polls: `steady [-n PODS] [--seconds S] [--wiring W]...`.
//!
//! Lists every second, `Status` every five, all stats every ten. Printed per wiring: CPU of the daemons and of the
//! shims in percent of one core (from `/proc/PID/stat`, in ticks of 10 ms), their memory (PSS), and how long the
//! answers took. `SEAM_PEER=containerd` measures Debian's containerd instead; it has no wiring.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use e2e::config::Options;
use e2e::pod::container;
use e2e::{Wiring, World};
use futures::StreamExt as _;
use seam_bench::stats::percentile;
use shared_proto::cri::v1::{
    ListContainerStatsRequest, ListContainersRequest, ListPodSandboxStatsRequest, StatusRequest,
};

/// CPU, memory and answers of a node whose pods do nothing.
#[derive(Parser)]
struct Args {
    /// Pods, each with one container
    #[arg(short = 'n', long, default_value_t = 105)]
    pods: usize,
    /// Pods that are started at a time
    #[arg(long, default_value_t = 10)]
    at_a_time: usize,
    /// How long the polling goes on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// split, loopback or merged; may be given several times; default: all
    #[arg(long)]
    wiring: Vec<String>,
}

/// Processes of one kind at one moment.
#[derive(Default, Clone, Copy)]
struct Usage {
    processes: usize,
    ticks: u64,
    pss_kib: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let all = [Wiring::Split, Wiring::Loopback, Wiring::Merged];
    for name in &args.wiring {
        anyhow::ensure!(all.iter().any(|w| w.name() == name), "no wiring {name}: split, loopback, merged");
    }
    for wiring in all {
        if args.wiring.is_empty() || args.wiring.iter().any(|name| name == wiring.name()) {
            measure(&args, wiring).await?;
        }
    }
    Ok(())
}

async fn measure(args: &Args, wiring: Wiring) -> anyhow::Result<()> {
    let mut world = World::start(wiring, Options { log_level: "info", ..Options::new(wiring) }).await;
    let cri = world.cri();
    world.pull(e2e::fixtures::PAUSE).await;
    world.pull(e2e::fixtures::BUSYBOX).await;
    let started = Instant::now();
    let running = &world;
    let pods: Vec<String> = futures::stream::iter(0..args.pods)
        .map(|i| async move {
            let (cri, config) = (running.cri(), running.pod(&format!("p{i}")));
            let pod = cri.run_pod(&config).await;
            let id = cri.create(&pod, &config, &container("main", &["sleep", "100000"])).await;
            cri.try_start(&id).await.unwrap_or_else(|e| panic!("start a container: {e:?}"));
            pod
        })
        .buffer_unordered(args.at_a_time)
        .collect()
        .await;
    let batch = started.elapsed().as_secs_f64();

    let daemons = daemons(&mut world);
    let (first, first_shims) = (usage(&daemons), usage(&shims(&world)));
    let clock = Instant::now();
    let (mut lists, mut stats) = (Vec::new(), Vec::new());
    let mut ticker = tokio::time::interval(Duration::from_secs(1));
    for second in 0..args.seconds {
        ticker.tick().await;
        let asked = Instant::now();
        cri.list_pods(Default::default()).await;
        cri.list_containers(ListContainersRequest::default()).await;
        lists.push(asked.elapsed().as_secs_f64() * 1e3);
        if second % 5 == 0 {
            cri.status(StatusRequest::default()).await;
        }
        if second % 10 == 0 {
            let asked = Instant::now();
            cri.list_container_stats(ListContainerStatsRequest::default()).await;
            cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await;
            stats.push(asked.elapsed().as_secs_f64() * 1e3);
        }
    }
    let seconds = clock.elapsed().as_secs_f64();
    let (last, last_shims) = (usage(&daemons), usage(&shims(&world)));

    let name = e2e::world::peer().unwrap_or(wiring.name());
    let percent = |before: Usage, after: Usage| after.ticks.saturating_sub(before.ticks) as f64 / seconds;
    println!("{name}: {} pods started in {batch:.1} s, then polled for {seconds:.0} s", args.pods);
    println!("  daemons: {:.2} % of a core, {:.1} MB (PSS)", percent(first, last), last.pss_kib as f64 / 1024.0);
    println!(
        "  {} shims: {:.2} % of a core, {:.1} MB (PSS)",
        last_shims.processes,
        percent(first_shims, last_shims),
        last_shims.pss_kib as f64 / 1024.0
    );
    for (what, values) in [("both lists", &lists), ("all stats", &stats)] {
        println!("  {what}: p50 {:.1} ms, p99 {:.1} ms", percentile(values, 0.5), percentile(values, 0.99));
    }

    let started = Instant::now();
    futures::stream::iter(&pods).for_each_concurrent(args.at_a_time, |pod| cri.end_pod(pod)).await;
    println!("  stopped and removed in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The daemons' processes; one where CRI is linked in.
fn daemons(world: &mut World) -> Vec<i32> {
    let mut all = vec![world.core_daemon_pid(), world.cri_daemon().pid()];
    all.dedup();
    all
}

fn shims(world: &World) -> Vec<i32> {
    let is_shim = |line: &str| line.split(' ').next().is_some_and(|program| program.contains("shim"));
    world.processes().into_iter().filter(|(_, line)| is_shim(line)).map(|(pid, _)| pid).collect()
}

fn usage(pids: &[i32]) -> Usage {
    let mut all = Usage { processes: pids.len(), ..Usage::default() };
    for pid in pids {
        all.ticks += ticks(*pid).unwrap_or_default();
        all.pss_kib += pss_kib(*pid).unwrap_or_default();
    }
    all
}

/// User and system time, without that of children.
fn ticks(pid: i32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = text.rsplit(')').next().context("no name in stat")?;
    let words: Vec<&str> = after_name.split_whitespace().collect();
    Ok(words[11].parse::<u64>()? + words[12].parse::<u64>()?)
}

fn pss_kib(pid: i32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with("Pss:")).context("no Pss line")?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}
