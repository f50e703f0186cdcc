//! Pods that come and go: `soak [--minutes M] [--rate PODS] [--wiring W]`.
//!
//! A failed call or a wrong exit code is an error. At the end nothing may be left of any pod, daemons must hold no more
//! descriptors than after the first one, and their memory must be flat; otherwise the exit status is not 0.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use e2e::config::Options;
use e2e::cri::Cri;
use e2e::{Wiring, World};
use futures::StreamExt as _;
use seam_bench::engine::Engine;
use seam_bench::life::{self, Times};
use seam_bench::stats::{growth, percentile};
use seam_bench::{load, node, until_interrupted};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::IntervalStream;

/// Starts, uses, kills and removes pods, and looks at what that does to the daemons.
#[derive(Parser)]
struct Args {
    /// How long new pods come
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// New pods a minute
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// split, loopback or merged
    #[arg(long, default_value = "split")]
    wiring: String,
    /// Seconds between two lines; memory is judged by lines
    #[arg(long, default_value_t = 60.0)]
    every: f64,
    /// The OCI runtime
    #[arg(long, value_enum, default_value_t = Engine::Runc)]
    engine: Engine,
}

/// More pods than this at a time mean that the daemons don't keep up: the next ones wait.
const AT_A_TIME: usize = 50;
/// No pod takes longer, whatever hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Memory may grow by this share.
const GROWTH: f64 = 0.10;
/// Idle connections come and go.
const DESCRIPTORS: usize = 8;
/// The core keeps as many readers of its database as it has needed at a time, a few at most.
const READERS: &str = "/meta.db";
/// So many errors are shown.
const SHOWN: usize = 20;

/// What has come of the pods so far.
#[derive(Default)]
struct Tally {
    done: usize,
    errors: usize,
    /// Since the last line.
    times: Vec<Times>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    until_interrupted(run(&args)).await
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let all = [Wiring::Split, Wiring::Loopback, Wiring::Merged];
    let wiring = all.into_iter().find(|w| w.name() == args.wiring);
    let Some(wiring) = wiring else { anyhow::bail!("no wiring {}: split, loopback, merged", args.wiring) };
    let engine = Some(args.engine.binary()?);
    let world = World::start(wiring, Options { log_level: "info", engine, ..Options::new(wiring) }).await;
    let cri = world.cri();
    world.pull(e2e::fixtures::PAUSE).await;
    world.pull(e2e::fixtures::BUSYBOX).await;
    let before = world.inventory().await;
    // The first pod opens connections that stay.
    let first = load::start(&world, "first").await;
    cri.end_pod(&first.id).await;

    println!("{}: {} pods a minute for {} minutes; MB = 10^6 bytes", args.wiring, args.rate, args.minutes);
    println!("{HEADER}");
    let (clock, tally) = (Instant::now(), Mutex::new(Tally::default()));
    line(&world, clock, &tally)?;
    let open = node::open_files(&world);
    let mut rss = Vec::new();
    tokio::select! {
        () = churn(args, &world, &cri, &tally) => (),
        failed = watch(args, &world, clock, &tally, &mut rss) => failed?,
    }
    // For some seconds the core still has the logs of shims open that have ended.
    tokio::time::sleep(Duration::from_secs(12)).await;
    line(&world, clock, &tally)?;

    let mut verdicts = vec![memory(&rss)];
    let more: Vec<(usize, String)> = node::open_files(&world)
        .into_iter()
        .filter(|(name, _)| !name.contains(READERS))
        .map(|(name, now)| (now.saturating_sub(open.get(&name).copied().unwrap_or_default()), name))
        .filter(|(more, _)| *more > 0)
        .collect();
    let left: usize = more.iter().map(|(count, _)| count).sum();
    let names: Vec<String> = more.iter().map(|(count, name)| format!("{count} {name}")).collect();
    let text = format!("{left} more descriptors than after the first pod, readers of the database apart: {names:?}");
    verdicts.push(if left <= DESCRIPTORS { Ok(text) } else { Err(text) });
    let tally = tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    verdicts.push(match tally.errors {
        0 => Ok(format!("{} pods without an error", tally.done)),
        errors => Err(format!("{errors} of {} pods had an error", tally.done)),
    });
    for verdict in &verdicts {
        let (Ok(text) | Err(text)) = verdict;
        println!("{}: {text}", if verdict.is_ok() { "good" } else { "BAD" });
    }
    // Panics with the names of what is left.
    world.assert_as_before(&before).await;
    println!("good: nothing is left");
    anyhow::ensure!(verdicts.iter().all(Result::is_ok), "the soak has failed");
    Ok(())
}

/// One pod after the other, at the given rate, until the time is over; then until the last one is gone.
async fn churn(args: &Args, world: &World, cri: &Cri, tally: &Mutex<Tally>) {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(60.0 / args.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let over = tokio::time::Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let ticks = IntervalStream::new(ticks).take_while(|tick| std::future::ready(*tick < over)).enumerate();
    ticks
        .for_each_concurrent(AT_A_TIME, |(index, _)| async move {
            // 3, 4 or 5 seconds.
            let stay = Duration::from_secs(3 + index as u64 % 3);
            let lived = tokio::time::timeout(LIMIT, life::live(world, cri, index, stay)).await;
            let lived = lived.unwrap_or_else(|_| Err(anyhow::anyhow!("soak-{index}: not done after {LIMIT:?}")));
            let mut tally = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            tally.done += 1;
            match lived {
                Ok(times) => tally.times.push(times),
                Err(e) => {
                    tally.errors += 1;
                    if tally.errors <= SHOWN {
                        println!("error: {e:#}");
                    }
                }
            }
        })
        .await;
}

/// Prints a line every so often; ends only if one can't be had.
async fn watch(
    args: &Args,
    world: &World,
    clock: Instant,
    tally: &Mutex<Tally>,
    rss: &mut Vec<f64>,
) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(Duration::from_secs_f64(args.every)).await;
        rss.push(line(world, clock, tally)?.rss);
    }
}

const HEADER: &str = "\
minute   done errors | start p50/p99 ms | removal p50/p99 | daemons RSS/PSS MB | fds threads shims | root/state MB";

/// Prints what is now, and the latencies since the last line. What the daemons use.
fn line(world: &World, clock: Instant, tally: &Mutex<Tally>) -> anyhow::Result<node::Usage> {
    let (daemons, shims) = (node::daemons(world)?, node::shims_alive(world));
    let (done, errors, times) = {
        let mut tally = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        (tally.done, tally.errors, std::mem::take(&mut tally.times))
    };
    let both = |of: fn(&Times) -> f64| {
        let values: Vec<f64> = times.iter().map(of).collect();
        format!("{:.0} / {:.0}", percentile(&values, 0.5), percentile(&values, 0.99))
    };
    println!(
        "{:>6.1} {done:>6} {errors:>6} | {:>16} | {:>15} | {:>10.1} {:>7.1} | {:>3} {:>7} {shims:>5} | {:>6.1} {:>6.1}",
        clock.elapsed().as_secs_f64() / 60.0,
        both(|t| t.start),
        both(|t| t.removal),
        daemons.rss / node::MB,
        daemons.pss / node::MB,
        daemons.descriptors,
        daemons.threads,
        node::disk(&world.paths.root) as f64 / node::MB,
        node::disk(&world.paths.state) as f64 / node::MB,
    );
    Ok(daemons)
}

/// Whether memory is flat, with the RSS of each line.
fn memory(rss: &[f64]) -> Result<String, String> {
    let all: Vec<String> = rss.iter().map(|bytes| format!("{:.1}", bytes / node::MB)).collect();
    let text = format!("RSS of the daemons, MB, line by line: {}", all.join(" "));
    match growth(rss) {
        None => Ok(format!("{text}: too few lines to judge memory by")),
        Some(share) => {
            let text = format!("{text}: {:+.1} % from lines 3 to 7 to the last five", share * 100.0);
            if share <= GROWTH { Ok(text) } else { Err(text) }
        }
    }
}
