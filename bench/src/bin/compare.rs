//! Whole pods on real daemons, the three wirings in turn: `compare [-n PODS] [--json FILE]`.
//!
//! One world a wiring, all three up at the same time; every round starts one pod in each, in rotating order, so that
//! the machine's mood hits all three alike. Differences are taken pair by pair.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use e2e::World;
use seam_bench::load::{self, STEPS};
use seam_bench::stats::{difference, percentile};
use seam_bench::trio::{self, Seam, WIRINGS};

/// Compares the three wirings, pod by pod.
#[derive(Parser)]
struct Args {
    /// Pods per wiring that are counted
    #[arg(short = 'n', long, default_value_t = 20)]
    pods: usize,
    /// Pods per wiring that are started first and not counted
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Write the raw samples here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Milliseconds by step, one entry a pod.
type Samples = BTreeMap<&'static str, Vec<f64>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let worlds = trio::start(trio::options).await;
    for round in 0..args.warmup {
        for world in &worlds {
            load::once(world, &format!("warm-{round}")).await;
        }
    }

    let before: Vec<Seam> = seams(&worlds).await?;
    let mut samples = vec![Samples::new(); WIRINGS.len()];
    for round in 0..args.pods {
        for which in trio::turns(round) {
            let millis = load::once(&worlds[which], &format!("pod-{round}")).await;
            for (step, value) in STEPS.into_iter().zip(millis) {
                samples[which].entry(step).or_default().push(value);
            }
        }
        eprint!("\r{} of {} rounds", round + 1, args.pods);
    }
    eprintln!();
    let after = seams(&worlds).await?;

    report(&args, &samples, &before, &after);
    if let Some(path) = &args.json {
        let by_wiring: BTreeMap<_, _> = WIRINGS.iter().map(|w| w.name()).zip(&samples).collect();
        let text = serde_json::to_string_pretty(&by_wiring)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

async fn seams(worlds: &[World]) -> anyhow::Result<Vec<Seam>> {
    let mut all = Vec::new();
    for world in worlds {
        all.push(trio::seam(world).await?);
    }
    Ok(all)
}

fn report(args: &Args, samples: &[Samples], before: &[Seam], after: &[Seam]) {
    println!("{} pods per wiring, interleaved; milliseconds\n", args.pods);
    println!("{:<16}{:>22}{:>22}{:>22}", "p50 / p99", "split", "loopback", "merged");
    for step in STEPS {
        print!("{step:<16}");
        for wiring in samples {
            let values = &wiring[step];
            let shown = format!("{:.1} / {:.1}", percentile(values, 0.5), percentile(values, 0.99));
            print!("{shown:>22}");
        }
        println!();
    }

    println!("\nper pod (start, stop and remove), between CRI and core:");
    let per_pod =
        |value: fn(&Seam) -> f64, which: usize| (value(&after[which]) - value(&before[which])) / args.pods as f64;
    for (name, value) in [
        ("calls", (|s| s.calls) as fn(&Seam) -> f64),
        ("encoded bytes", |s| s.bytes),
        ("ms inside calls", |s| s.millis),
    ] {
        print!("{name:<16}");
        for which in 0..WIRINGS.len() {
            print!("{:>22.1}", per_pod(value, which));
        }
        println!();
    }

    println!("\ndifference to merged, median of pairs with its 95 % confidence interval:");
    for (which, wiring) in WIRINGS.iter().enumerate().take(2) {
        for step in STEPS {
            let d = difference(&samples[which][step], &samples[2][step]);
            let verdict = if d.is_indistinguishable() { "  not distinguishable" } else { "" };
            println!("{:<10}{step:<16}{:>+8.2} ms  [{:+.2}, {:+.2}]{verdict}", wiring.name(), d.median, d.low, d.high);
        }
    }
}
