//! Experiment: single calls, in the three wirings: the cost card.
//!
//! Port calls go to a core in memory, so that the way is all that costs; CRI calls go to real daemons with real pods.
//! Times, allocations and system calls are taken in runs of their own: counting would disturb the clock. System calls,
//! context switches and fsyncs are those of the caller and, in `split`, of the core's process as well.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shared_proto::core::Core;
use shared_proto::meter::Meter;
use shared_sys::allocations;

use super::card::Card;
use super::ports::{Script, scripts};
use super::{Settings, cri};
use crate::delay::Delay;
use crate::kernel::{self, Counter};
use crate::other::{self, Other};
use crate::report::{Distributions, Experiment, Part, Series};
use crate::trio::WIRINGS;

/// After that long no further samples are taken.
const LIMIT: Duration = Duration::from_secs(30);
/// Calls that are counted by the allocator's and by the kernel's counters.
const COUNTED: usize = 20;
/// The methods of the plots: an empty call, a small one, one with a record of some KB, one of 64 KiB.
const SHOWN: [&str; 4] = ["version.version", "tasks.get", "containers.create", "content.read"];

/// A side: its ports, behind the meter that is around them in the daemons as well.
struct Side {
    core: Core,
    meter: Meter,
}

pub async fn run(settings: &Settings) -> anyhow::Result<Experiment> {
    let mut experiment = ports(settings).await?;
    match cri::card(settings).await {
        Ok((card, notes)) => {
            experiment.parts.push(Part::Table(card.latency("CRI calls on real daemons with five pods: time")));
            experiment.parts.push(Part::Table(card.costs("CRI calls: what else they cost the daemons")));
            experiment.raw.extend(card.raw());
            experiment.notes.extend(notes);
        }
        Err(e) => experiment.error = Some(format!("CRI calls: {e:#}")),
    }
    (settings.tell)("CRI calls", 1.0);
    experiment.notes.push("The waits for locks are not measured.".into());
    Ok(experiment)
}

/// The first half: ports alone. Needs no root.
pub async fn ports(settings: &Settings) -> anyhow::Result<Experiment> {
    let other = Other::start();
    let delayed = other.socket().with_file_name("delayed.sock");
    let _delay = settings.delay.map(|delay| Delay::start(&delayed, other.socket(), delay)).transpose()?;
    let socket: PathBuf = if settings.delay.is_some() { delayed } else { other.socket() };
    let sides = other::wirings(&socket).await.map(|(wiring, core)| {
        let meter = Meter::default();
        Side { core: core.metered(&meter, wiring != "merged"), meter }
    });
    let scripts = scripts();
    let mut card = Card { unit: "µs", rows: Vec::new() };
    times(settings, &sides, &scripts, &mut card).await?;
    bytes(&sides, &mut card);
    count_allocations(settings.pick(COUNTED, 3), &sides, &scripts, &mut card).await?;
    let mut notes = vec![
        "Port calls go to a core in memory: what a real core does for them is not in here.".to_owned(),
        "Allocations of split are those of the caller alone; those of loopback and merged are of both sides, the core in memory included.".to_owned(),
        "Encoded bytes are those of messages, without the frames and headers around them.".to_owned(),
    ];
    let pids = [std::process::id() as i32, other.pid()];
    match count_system_calls(settings, &sides, &scripts, pids, &mut card).await {
        Ok(()) => notes.push("System calls are those of both sides together.".into()),
        Err(e) => notes.push(format!("There are no columns of system calls, context switches and fsyncs: {e:#}.")),
    }
    let hop = card.differences("What the way adds to a call, by the median of pairs", &SHOWN);
    let told = hop.rows.iter().filter(|row| SHOWN[..2].iter().any(|method| row.name.ends_with(method)));
    let findings = told.map(|row| format!("{}: {}, beside merged.", row.name, row.words(card.unit)));
    Ok(Experiment {
        name: "calls".into(),
        title: "Calls".into(),
        question: "What does a single call cost when it crosses the seam as gRPC between processes (split), as gRPC \
                   within one (loopback), or as a plain call (merged)?"
            .into(),
        seconds: 0.0,
        findings: findings.collect(),
        parts: plots(&card)
            .into_iter()
            .chain([Part::Differences(hop)])
            .chain([
                Part::Table(card.latency("Port calls: time")),
                Part::Table(card.costs("Port calls: what else they cost")),
            ])
            .collect(),
        notes,
        raw: card.raw(),
        error: None,
    })
}

/// Runs the scripts by turns.
async fn times(settings: &Settings, sides: &[Side; 3], scripts: &[Script], card: &mut Card) -> anyhow::Result<()> {
    let warmup = settings.pick(20, 3);
    for round in settings.rounds("port calls", warmup + settings.pick(300, 15), warmup + 10, LIMIT) {
        for which in settings.turns(round) {
            for step in scripts.iter().flatten() {
                let call = (step.call)(sides[which].core.clone());
                let clock = Instant::now();
                call.await.with_context(|| format!("{} in {}", step.name, WIRINGS[which].name()))?;
                let took = clock.elapsed().as_secs_f64() * 1e6;
                if round >= warmup {
                    card.row(step.name).times[which].push(took);
                }
            }
        }
    }
    Ok(())
}

/// What the meters have seen so far.
fn bytes(sides: &[Side; 3], card: &mut Card) {
    for (which, side) in sides.iter().enumerate() {
        for sample in side.meter.samples() {
            let name = format!("{}.{}", sample.service.to_lowercase(), sample.method);
            let each = |bytes: u64| bytes as f64 / sample.calls as f64;
            card.row(&name).bytes[which] = Some([each(sample.bytes_out), each(sample.bytes_in)]);
        }
    }
}

async fn count_allocations(
    rounds: usize,
    sides: &[Side; 3],
    scripts: &[Script],
    card: &mut Card,
) -> anyhow::Result<()> {
    for (which, side) in sides.iter().enumerate() {
        for round in 0..rounds {
            for step in scripts.iter().flatten() {
                let call = (step.call)(side.core.clone());
                let before = allocations::so_far().calls;
                allocations::count(true);
                let answer = call.await;
                allocations::count(false);
                answer.with_context(|| format!("{} in round {round}", step.name))?;
                let made = (allocations::so_far().calls - before) as f64;
                // A method may be called twice in a script: the mean of all is what it costs.
                *card.row(step.name).allocations[which].get_or_insert_default() += made;
            }
        }
    }
    let times = |name: &str| scripts.iter().flatten().filter(|step| step.name == name).count() * rounds;
    for row in &mut card.rows {
        for made in &mut row.allocations {
            // Zero throughout: the allocator is not the counting one.
            *made = made
                .filter(|all| *all > 0.0 || allocations::so_far().calls > 0)
                .map(|all| all / times(&row.name) as f64);
        }
    }
    Ok(())
}

/// Of each method alone: its script is run, and counted where its turn is.
async fn count_system_calls(
    settings: &Settings,
    sides: &[Side; 3],
    scripts: &[Script],
    [own, other]: [i32; 2],
    card: &mut Card,
) -> anyhow::Result<()> {
    let rounds = settings.pick(COUNTED, 3);
    for (which, side) in sides.iter().enumerate() {
        let pids = if which == 0 { vec![own, other] } else { vec![own] };
        let base = kernel::base(&pids)?;
        for (index, script) in scripts.iter().enumerate() {
            (settings.tell)(
                "system calls of ports",
                (which * scripts.len() + index) as f64 / (3 * scripts.len()) as f64,
            );
            let all = !settings.quick;
            for counted in script.iter().filter(|step| all || SHOWN.contains(&step.name)) {
                let mut counter = Counter::attach(&pids)?;
                let mut times = 0;
                for _ in 0..rounds {
                    for step in script {
                        let call = (step.call)(side.core.clone());
                        if step.name != counted.name {
                            call.await?;
                            continue;
                        }
                        counter.count(true)?;
                        let answer = call.await;
                        counter.count(false)?;
                        answer?;
                        times += 1;
                    }
                }
                card.row(counted.name).kernel[which] = Some(counter.finish()?.each(base, times));
            }
        }
    }
    Ok(())
}

fn plots(card: &Card) -> Vec<Part> {
    let shown = card.rows.iter().filter(|row| SHOWN.contains(&row.name.as_str()));
    let plot = shown.map(|row| {
        let series = WIRINGS
            .iter()
            .zip(&row.times)
            .map(|(wiring, times)| Series::new(wiring.name(), &crate::report::rounded(times)));
        Part::Distributions(Distributions { title: row.name.clone(), unit: card.unit.into(), series: series.collect() })
    });
    plot.collect()
}
