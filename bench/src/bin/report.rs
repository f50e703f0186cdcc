//! Runs the experiments and writes what was found: `report [--quick] [--only NAME,...] [--out DIR] [--seed N]`.
//!
//! In DIR: `report.html`, which stands alone; `report.json`, with all samples; `summary.md`. The experiments take about
//! twelve minutes on two cores. What is measured: [`seam_bench::experiment`].

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use clap::{Parser, ValueEnum as _};
use seam_bench::experiment::{self, Name, Settings};
use seam_bench::report::{Report, agree, facts, html, markdown};
use seam_bench::trio::LOG_LEVEL;
use shared_sys::allocations::Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Measures what the hop costs and writes a page about it.
#[derive(Parser)]
struct Args {
    /// Few samples: shows that it works, and nothing else
    #[arg(long)]
    quick: bool,
    /// Only these experiments
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Name>,
    /// The folder for page, summary and samples
    #[arg(long, default_value = "target/report")]
    out: PathBuf,
    /// Decides whose turn is the first; that of an earlier run repeats its order
    #[arg(long)]
    seed: Option<u64>,
    /// Writes the summary here as well, and the page beside it
    #[arg(long)]
    results: Option<PathBuf>,
    /// Measures nothing: says which differences of two reports (`report.json`) agree within their intervals
    #[arg(long, num_args = 2, value_names = ["JSON", "JSON"])]
    agree: Vec<PathBuf>,
    /// Milliseconds that are put on the way to the core in split: to see that the report finds them
    #[arg(long, hide = true)]
    delay: Option<u64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let [one, other] = args.agree.as_slice() {
        return agree(one, other);
    }
    anyhow::ensure!(
        args.results.is_none() || !(cfg!(debug_assertions) || args.quick),
        "--results is for what a release build has measured in full"
    );
    let seed = args.seed.unwrap_or_else(seed);
    let delay = args.delay.map(Duration::from_millis);
    let mut facts = facts::gather(seed, args.quick, LOG_LEVEL);
    if let Some(delay) = delay {
        let value = format!("{} ms on the way to the core, in split only", delay.as_millis());
        facts.push(seam_bench::report::Fact { name: "deliberate delay".into(), value });
    }
    let names: Vec<Name> = Name::value_variants()
        .iter()
        .copied()
        .filter(|name| args.only.is_empty() || args.only.contains(name))
        .collect();
    let mut report = Report { facts, reading: reading(), experiments: Vec::new() };
    let began = Instant::now();
    // Dropped half-way, an experiment still takes its worlds with it.
    tokio::select! {
        () = measure(&names, &args, seed, delay, &mut report) => {}
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
    eprintln!("all of it took {:.0} s", began.elapsed().as_secs_f64());

    std::fs::create_dir_all(&args.out).with_context(|| format!("make {}", args.out.display()))?;
    let summary = markdown::render(&report);
    write(&args.out.join("report.json"), &serde_json::to_string(&report)?)?;
    write(&args.out.join("report.html"), &html::render(&report))?;
    write(&args.out.join("summary.md"), &summary)?;
    if let Some(path) = &args.results {
        write(path, &summary)?;
        write(&path.with_extension("html"), &html::render(&report))?;
    }
    println!("{}", args.out.join("report.html").display());
    let failed: Vec<&str> =
        report.experiments.iter().filter(|one| one.error.is_some()).map(|one| one.name.as_str()).collect();
    anyhow::ensure!(failed.is_empty(), "ended early: {}", failed.join(", "));
    Ok(())
}

async fn measure(names: &[Name], args: &Args, seed: u64, delay: Option<Duration>, report: &mut Report) {
    for (index, name) in names.iter().enumerate() {
        let bar = format!("{} of {}", index + 1, names.len());
        let tell = Box::new(move |what: &str, part: f64| progress(&bar, what, part));
        let settings = Settings { quick: args.quick, seed, delay, tell };
        for experiment in experiment::run(*name, &settings).await {
            let Some(error) = &experiment.error else {
                eprintln!("\r\x1b[K{}: {:.0} s", experiment.name, experiment.seconds);
                report.experiments.push(experiment);
                continue;
            };
            eprintln!("\r\x1b[K{}: ended early after {:.0} s: {error}", experiment.name, experiment.seconds);
            report.experiments.push(experiment);
        }
    }
}

/// One line on standard error, over and over; nothing where that is no terminal.
fn progress(bar: &str, what: &str, part: f64) {
    const WIDTH: usize = 24;
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let done = (part.clamp(0.0, 1.0) * WIDTH as f64).round() as usize;
        let _ = write!(stderr, "\r\x1b[K[{:<WIDTH$}] {bar}: {what}", "#".repeat(done));
        let _ = stderr.flush();
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn agree(one: &Path, other: &Path) -> anyhow::Result<()> {
    let read = |path: &Path| -> anyhow::Result<Report> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no report", path.display()))
    };
    let found = agree::agree(&read(one)?, &read(other)?);
    for line in &found {
        println!("{line}");
    }
    let apart = found.iter().filter(|line| !line.agrees()).count();
    anyhow::ensure!(!found.is_empty(), "they have no difference in common");
    anyhow::ensure!(apart == 0, "{apart} of {} differences don't agree", found.len());
    Ok(())
}

fn seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn reading() -> Vec<String> {
    let mut reading = vec![
        "The wirings take turns, so that the machine's mood hits all alike; a difference is the median of the differences \
         of pairs, with the interval that holds it with 95 % confidence (bootstrap over the pairs). An interval that holds \
         zero is called not distinguishable."
            .to_owned(),
        "Dots are samples, a box the middle half of them, and the two numbers beside it p50 and p99.".to_owned(),
    ];
    if cfg!(debug_assertions) {
        reading.push("This is a debug build: its figures say nothing.".into());
    }
    reading
}
