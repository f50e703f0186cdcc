//! How fast output gets into a CRI log: `log-throughput [--megabytes MB] [--rounds R]`, ours and Debian's containerd.
//!
//! A container copies prepared lines to its output as fast as it can; the clock stops when the last line is in the log.
//! Afterwards the log is read, line by line. Three kinds of lines: of 100 bytes, of 4 KiB, and a single one of 16 MiB,
//! which the log has in entries of 16 KiB.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use e2e::World;
use e2e::cri::Cri;
use e2e::pod::script;
use nix::sys::stat::Mode;
use seam_bench::engine::Engine;
use seam_bench::lines::{self, LAST, Lines};
use seam_bench::sides::{SIDES, turns};
use seam_bench::stats::percentile;
use seam_bench::{node, until_interrupted};
use shared_proto::cri::v1::{Mount, PodSandboxConfig};

/// The three sides, measured in turn.
#[derive(Parser)]
struct Args {
    /// Output of a container, 10^6 bytes; the single long line has its own length
    #[arg(long, default_value_t = 200)]
    megabytes: usize,
    /// How often each side is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The OCI runtime of all sides
    #[arg(long, value_enum, default_value_t = Engine::Runc)]
    engine: Engine,
}

/// The single line's length, and how much there is of it.
const LONG: usize = 16 << 20;
/// How long a log may take.
const LIMIT: Duration = Duration::from_secs(300);
const KINDS: [(&str, usize); 3] =
    [("lines of 100 bytes", 100), ("lines of 4 KiB", 4 << 10), ("one line of 16 MiB", LONG)];

/// One log.
#[derive(Clone, Copy)]
struct Sample {
    megabytes_per_second: f64,
    /// CPU seconds for 10^8 bytes: of the daemons, of the shim, of the whole machine but this program.
    cpu: [f64; 3],
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    until_interrupted(run(&args)).await
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let engine = args.engine.binary()?;
    let mut samples: [[Vec<Sample>; 3]; 3] = Default::default();
    for which in turns(args.rounds) {
        let world = SIDES[which].world(&engine).await;
        let logs = side(args, &world).await.with_context(|| format!("measure {}", SIDES[which].name))?;
        for (kind, sample) in logs.into_iter().enumerate() {
            samples[kind][which].push(sample);
        }
    }

    println!("{} MB a log, {} rounds by turns; medians; MB = 10^6 bytes", args.megabytes, args.rounds);
    println!("{:<32}{:>8}{:>16}{:>12}{:>12}{:>12}", "", "MB/s", "(least-most)", "daemons", "shim", "machine");
    for ((kind, _), sides) in KINDS.iter().zip(&samples) {
        println!("{kind}; CPU seconds for 100 MB");
        for (side, samples) in SIDES.iter().zip(sides) {
            row(side.name, samples);
        }
    }
    if cfg!(debug_assertions) {
        println!("this is a debug build: its figures say nothing");
    }
    Ok(())
}

fn row(side: &str, samples: &[Sample]) {
    let at = |of: fn(&Sample) -> f64, p: f64| percentile(&samples.iter().map(of).collect::<Vec<_>>(), p);
    let speed = |p: f64| at(|sample| sample.megabytes_per_second, p);
    let range = format!("({:.0}-{:.0})", speed(0.0), speed(1.0));
    print!("  {side:<30}{:>8.0}{range:>16}", speed(0.5));
    for of in [(|s| s.cpu[0]) as fn(&Sample) -> f64, |s| s.cpu[1], |s| s.cpu[2]] {
        print!("{:>12.2}", at(of, 0.5));
    }
    println!();
}

/// All kinds of lines, one container after the other in one pod.
async fn side(args: &Args, world: &World) -> anyhow::Result<Vec<Sample>> {
    let cri = world.cri();
    world.pull(e2e::fixtures::PAUSE).await;
    world.pull(e2e::fixtures::BUSYBOX).await;
    let config = world.pod("writer");
    let pod = cri.run_pod(&config).await;
    let mut samples = Vec::new();
    for (kind, length) in KINDS {
        let bytes = if length == LONG { LONG } else { args.megabytes * 1_000_000 };
        let sample = log(world, &cri, (&pod, &config), Lines::new(bytes, length)).await;
        samples.push(sample.with_context(|| kind.to_owned())?);
    }
    cri.end_pod(&pod).await;
    Ok(samples)
}

/// One container's output, from its first byte to the log's last.
async fn log(world: &World, cri: &Cri, pod: (&str, &PodSandboxConfig), lines: Lines) -> anyhow::Result<Sample> {
    let data = world.paths.dir.join(format!("data-{}", lines.length));
    std::fs::create_dir(&data)?;
    std::fs::write(data.join("chunk"), lines.chunk())?;
    nix::unistd::mkfifo(&data.join("go"), Mode::S_IRWXU)?;
    let name = format!("writes-{}", lines.length);
    let text = format!(
        "read go </data/go; i=0; while [ $i -lt {} ]; do cat /data/chunk; i=$((i+1)); done; echo {LAST}",
        lines.chunks
    );
    let mut config = script(&name, &text);
    let host_path = data.display().to_string();
    config.mounts = vec![Mount { container_path: "/data".into(), host_path, readonly: true, ..Default::default() }];
    let container = cri.run(pod.0, pod.1, &config).await;
    let log = world.log("writer", &name);

    // Opens once the container waits there.
    let mut go = std::fs::OpenOptions::new().write(true).open(data.join("go"))?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (clock, before) = (Instant::now(), used(world)?);
    go.write_all(b"go\n")?;
    let seconds = whole(&log, clock).await?;
    let status = cri.exited(&container).await;
    let after = used(world)?;
    anyhow::ensure!(status.exit_code == 0, "the container has failed: {status:?}");

    lines.check(&log)?;
    std::fs::remove_file(&log)?;
    let hundreds = lines.bytes() as f64 / 1e8;
    let cpu = [0, 1, 2].map(|who| (after[who] - before[who]) / hundreds);
    Ok(Sample { megabytes_per_second: hundreds * 100.0 / seconds, cpu })
}

/// CPU seconds of the daemons, the shim, the machine.
fn used(world: &World) -> anyhow::Result<[f64; 3]> {
    Ok([node::daemons(world)?.cpu_seconds, node::shims(world)?.cpu_seconds, node::others_seconds()?])
}

/// Waits until the last line is in the log. Seconds since `clock`.
async fn whole(log: &Path, clock: Instant) -> anyhow::Result<f64> {
    while !lines::is_whole(log)? {
        anyhow::ensure!(clock.elapsed() < LIMIT, "the log has no last line after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(clock.elapsed().as_secs_f64())
}
