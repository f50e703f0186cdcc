//! Ours against Debian's containerd in one run: `compare-peer [--engine ENGINE] [-n PODS] [--rounds R] [--json FILE]`.
//!
//! Three sides (`merged`, `split`, the peer) with the same engine, CNI network, images and requests. A round gives each
//! side a world of its own, one after the other, so that no side's processes run beside another's; the order rotates
//! from round to round, so that the machine's mood hits all three alike. What is measured: [`seam_bench::bars`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use e2e::World;
use seam_bench::bars::{self, Sample};
use seam_bench::controllers::Freed;
use seam_bench::engine::Engine;
use seam_bench::sides::{PEER, SIDES, turns};
use seam_bench::{load, node, until_interrupted};

/// The three sides, measured in turn.
#[derive(Parser)]
struct Args {
    /// The OCI runtime of all sides
    #[arg(long, value_enum, default_value_t = Engine::Runc)]
    engine: Engine,
    /// Pods, each with one container; the bars are made for the default
    #[arg(short = 'n', long, default_value_t = 105)]
    pods: usize,
    /// Pods that are started, and ended, at a time
    #[arg(long, default_value_t = 10)]
    at_a_time: usize,
    /// How often each side is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each round polls
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Write the raw samples here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// `true` is run so many times in a running container.
const EXECS: usize = 40;
/// More than this many cores busy before a batch, and the run is no measurement.
const NOISE: f64 = 0.1;

/// How long daemons have to come to rest once they answer: ours give back what their start needed a second after it.
const STARTED: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let _freed = match args.engine {
        Engine::Crun => Some(Freed::new()?),
        Engine::Runc => None,
    };
    until_interrupted(run(&args)).await
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let engine = args.engine.binary()?;
    let mut samples: [Vec<Sample>; 3] = Default::default();
    let mut shims = BTreeMap::new();
    for which in turns(args.rounds) {
        let name = SIDES[which].name;
        let world = SIDES[which].world(&engine).await;
        let (sample, shim) = measure(args, &world).await.with_context(|| format!("measure {name}"))?;
        samples[which].push(sample);
        shims.insert(name, shim);
    }

    println!(
        "{}; {} pods, {} at a time; {} rounds by turns; polled for {} s",
        engine.display(),
        args.pods,
        args.at_a_time,
        args.rounds,
        args.seconds
    );
    for (name, shim) in &shims {
        println!("shim of {name}: {shim}");
    }
    bars::print([&samples[0], &samples[1], &samples[2]], PEER);
    if args.pods != 105 {
        println!("the bars are made for 105 pods");
    }
    if cfg!(debug_assertions) {
        println!("this is a debug build: its figures say nothing");
    }
    let noise = samples.iter().flatten().map(|s| s.noise_cores).fold(0.0, f64::max);
    if noise > NOISE {
        println!("up to {noise:.2} cores were busy before a batch: something else runs on this machine");
    }
    if let Some(path) = &args.json {
        let by_side: BTreeMap<_, _> = SIDES.iter().map(|side| side.name).zip(&samples).collect();
        let all = serde_json::json!({"engine": engine, "pods": args.pods, "shims": shims, "samples": by_side});
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// One round of one side, and where its shim was found.
async fn measure(args: &Args, world: &World) -> anyhow::Result<(Sample, String)> {
    let cri = world.cri();
    let mut sample = Sample::default();
    let settle = || tokio::time::sleep(Duration::from_secs(1));
    tokio::time::sleep(STARTED).await;
    sample.idle_rss_bytes = node::daemons(world)?.rss;
    world.pull(e2e::fixtures::PAUSE).await;
    world.pull(e2e::fixtures::BUSYBOX).await;
    settle().await;
    sample.idle_with_images_rss_bytes = node::daemons(world)?.rss;

    let (clock, before) = (Instant::now(), node::others_seconds()?);
    settle().await;
    sample.noise_cores = (node::others_seconds()? - before) / clock.elapsed().as_secs_f64();

    let (clock, before) = (Instant::now(), node::others_seconds()?);
    let pods = load::start_all(world, args.pods, args.at_a_time).await;
    sample.batch_seconds = clock.elapsed().as_secs_f64();
    sample.batch_cpu_seconds = node::others_seconds()? - before;
    sample.pod_millis = pods.iter().map(load::Pod::millis).collect();

    settle().await;
    let (daemons, shims) = (node::daemons(world)?, node::shims(world)?);
    let shim = node::shim_binary(world).context("no shim runs")?;
    sample.daemons_pss_bytes = daemons.pss;
    sample.daemons_rss_bytes = daemons.rss;
    sample.shims = shims.processes;
    sample.shims_pss_bytes = shims.pss;

    let clock = Instant::now();
    load::poll(&cri, args.seconds).await;
    let seconds = clock.elapsed().as_secs_f64();
    let used = node::daemons(world)?.cpu_seconds + node::shims(world)?.cpu_seconds;
    sample.steady_cpu_percent = (used - daemons.cpu_seconds - shims.cpu_seconds) / seconds * 100.0;

    sample.exec_millis = load::exec(&cri, &pods[0].container, EXECS).await;

    let clock = Instant::now();
    load::end_all(&cri, &pods, args.at_a_time).await;
    sample.end_seconds = clock.elapsed().as_secs_f64();
    Ok((sample, shim))
}
