//! A node at rest: N pods in a wiring, polled as a kubelet polls: `steady [-n PODS] [--seconds S] [--wiring W]...`.
//!
//! Lists every second, `Status` every five, all stats every ten. Printed per wiring: CPU of the daemons and of the
//! shims in percent of one core (from `/proc/PID/stat`, in ticks of 10 ms), their memory (PSS), and how long the
//! answers took. `SEAM_PEER=containerd` measures Debian's containerd instead; it has no wiring.

use std::time::Instant;

use clap::Parser;
use e2e::config::Options;
use e2e::{Wiring, World};
use seam_bench::stats::percentile;
use seam_bench::{load, node};

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
    let world = World::start(wiring, Options { log_level: "info", ..Options::new(wiring) }).await;
    let cri = world.cri();
    world.pull(e2e::fixtures::PAUSE).await;
    world.pull(e2e::fixtures::BUSYBOX).await;
    let started = Instant::now();
    let pods = load::start_all(&world, args.pods, args.at_a_time).await;
    let batch = started.elapsed().as_secs_f64();

    let (daemons, shims) = (node::daemons(&world)?, node::shims(&world)?);
    let clock = Instant::now();
    let answers = load::poll(&cri, args.seconds).await;
    let seconds = clock.elapsed().as_secs_f64();

    let name = e2e::world::peer().unwrap_or(wiring.name());
    println!("{name}: {} pods started in {batch:.1} s, then polled for {seconds:.0} s; MB = 10^6 bytes", args.pods);
    for (what, before, after) in [("daemons", daemons, node::daemons(&world)?), ("shims", shims, node::shims(&world)?)]
    {
        println!(
            "  {} {what}: {:.2} % of a core, {:.1} MB (PSS)",
            after.processes,
            (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0,
            after.pss / node::MB
        );
    }
    for (what, values) in [("both lists", &answers.lists), ("all stats", &answers.stats)] {
        println!("  {what}: p50 {:.1} ms, p99 {:.1} ms", percentile(values, 0.5), percentile(values, 0.99));
    }

    let started = Instant::now();
    load::end_all(&cri, &pods, args.at_a_time).await;
    println!("  stopped and removed in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
