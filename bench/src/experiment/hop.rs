//! Experiment: what the hop adds to the start of a pod.
//!
//! First with CNI and the OCI runtime stubbed and all data in memory, where little but our own work is left; then with
//! the real ones, where the question is whether the hop can be seen at all. Stubbed rounds go on until the interval is
//! narrower than [`WANTED`], or time is over.

use std::time::{Duration, Instant};

use e2e::World;

use super::Settings;
use crate::delay::Delay;
use crate::engine::Engine;
use crate::load::{self, STEPS};
use crate::report::{Difference, Differences, Distributions, Experiment, Part, Row, Series, Table, rounded, show};
use crate::stats::percentile;
use crate::stub;
use crate::trio::{self, Seam, WIRINGS};

/// How long rounds go on, with the stubs and without.
const LIMIT_STUBBED: Duration = Duration::from_secs(240);
const LIMIT: Duration = Duration::from_secs(60);
/// The width of the interval that stubbed rounds aim at, milliseconds.
const WANTED: f64 = 0.9;

/// By wiring, by step, one entry a pod; and what crossed the seam for all of them.
struct Measured {
    millis: [[Vec<f64>; 4]; 3],
    crossed: [Seam; 3],
}

pub async fn run(settings: &Settings) -> anyhow::Result<Experiment> {
    let mut experiment = Experiment {
        name: "hop".into(),
        title: "The hop per pod".into(),
        question: "How much longer does a pod with one container take to start when CRI reaches the core over gRPC?"
            .into(),
        ..Experiment::default()
    };
    let began = Instant::now();
    stubbed(settings, &mut experiment).await?;
    let engine = Engine::Runc.binary()?;
    let real = {
        let options = |wiring| e2e::config::Options { engine: Some(engine.clone()), ..trio::options(wiring) };
        let worlds = trio::start(options).await;
        measure(settings, worlds, "pods, runc and CNI", settings.pick([20, 50], [4, 4]), LIMIT).await?
    };
    for found in describe("real", &real, &mut experiment) {
        let whole = percentile(&real.millis[2][3], 0.5);
        let seen = match found.distinguishable {
            true => format!("can be seen: {} of a start of {} ms in merged", found.words("ms"), show(whole)),
            false => format!("can not be seen in a start of {} ms: {}", show(whole), found.words("ms")),
        };
        experiment.findings.push(format!("With runc and CNI, the hop of {} {seen}.", found.name));
    }
    experiment.notes = vec![
        "Stubbed: the OCI runtime leaves a process that sleeps, in no namespace; the CNI plugin answers one address for all; \
         data lies in memory where /dev/shm is there. Network namespaces, mounts, shims and the database are real."
            .into(),
        "A pair is one pod in each of both wirings, in the same round.".into(),
    ];
    experiment.seconds = began.elapsed().as_secs_f64();
    Ok(experiment)
}

/// The first half; answers what the hop adds.
pub async fn stubbed(settings: &Settings, experiment: &mut Experiment) -> anyhow::Result<Vec<Difference>> {
    let worlds = trio::start_with(stub::options, stub::all).await;
    let measured = measure(settings, worlds, "pods, stubbed", settings.pick([60, 1500], [6, 8]), LIMIT_STUBBED).await?;
    let found = describe("stubbed", &measured, experiment);
    experiment.parts.push(Part::Table(widths(&found)));
    Ok(found)
}

async fn measure(
    settings: &Settings,
    mut worlds: Vec<World>,
    what: &str,
    [least, most]: [usize; 2],
    limit: Duration,
) -> anyhow::Result<Measured> {
    // In front of the core of `split`, which comes first.
    let mut delayed = None;
    if let Some(delay) = settings.delay {
        let world = &mut worlds[0];
        delayed = Some(Delay::in_front_of(&world.paths.core_socket, delay)?);
        world.kill_cri();
        world.run().await;
    }
    for round in 0..settings.pick(4, 1) {
        for world in &worlds {
            load::once(world, &format!("warm-{round}")).await;
        }
    }
    let mut measured = Measured { millis: Default::default(), crossed: Default::default() };
    for (crossed, world) in measured.crossed.iter_mut().zip(&worlds) {
        *crossed = trio::seam(world).await?;
    }
    for round in settings.rounds(what, most, least, limit) {
        for which in settings.turns(round) {
            let millis = load::once(&worlds[which], &format!("pod-{round}")).await;
            for (all, one) in measured.millis[which].iter_mut().zip(millis) {
                all.push(one);
            }
        }
        // Each look costs a bootstrap.
        if round + 1 >= least && round % 10 == 9 && is_narrow(&measured) {
            break;
        }
    }
    let pods = measured.millis[0][3].len() as f64;
    for (crossed, world) in measured.crossed.iter_mut().zip(&worlds) {
        let after = trio::seam(world).await?;
        let each = |of: fn(&Seam) -> f64| (of(&after) - of(crossed)) / pods;
        *crossed = Seam { calls: each(|s| s.calls), bytes: each(|s| s.bytes), millis: each(|s| s.millis) };
    }
    drop(delayed);
    Ok(measured)
}

fn hops(measured: &Measured, step: usize) -> Vec<Difference> {
    let of = |side: usize| &measured.millis[side][step];
    let named = |side: usize| Difference::new(&format!("{} - merged", WIRINGS[side].name()), of(side), of(2));
    [0, 1].into_iter().filter_map(named).collect()
}

fn is_narrow(measured: &Measured) -> bool {
    hops(measured, 3).iter().all(|found| found.high - found.low <= WANTED)
}

/// Adds plots, tables and samples; answers the differences of whole starts.
fn describe(how: &str, measured: &Measured, experiment: &mut Experiment) -> Vec<Difference> {
    let words = if how == "stubbed" { "with CNI and runtime stubbed" } else { "with runc and CNI" };
    let series = WIRINGS.iter().zip(&measured.millis);
    let series = series.map(|(wiring, millis)| Series::new(wiring.name(), &rounded(&millis[3]))).collect();
    let title = format!("Start of a pod, {words}");
    experiment.parts.push(Part::Distributions(Distributions { title, unit: "ms".into(), series }));
    let found = hops(measured, 3);
    let title = format!("What the hop adds, {words}");
    experiment.parts.push(Part::Differences(Differences { title, unit: "ms".into(), rows: found.clone() }));
    experiment.parts.push(Part::Table(steps(&format!("By call, {words}"), measured)));
    experiment
        .parts
        .push(Part::Table(crossed(&format!("Between CRI and core, a pod started and removed, {words}"), measured)));
    if how == "stubbed" {
        let sentence =
            |found: &Difference| format!("With CNI and runtime stubbed, {}: {}.", found.name, found.words("ms"));
        experiment.findings.extend(found.iter().map(sentence));
    }
    for (wiring, millis) in WIRINGS.iter().zip(&measured.millis) {
        for (step, values) in STEPS.iter().zip(millis) {
            experiment.raw.insert(format!("{how}/{}/{step}, ms", wiring.name()), rounded(values));
        }
    }
    found
}

/// How sure the differences are.
fn widths(found: &[Difference]) -> Table {
    let row = |found: &Difference| Row {
        name: found.name.clone(),
        cells: vec![Some(found.high - found.low), Some(found.pairs as f64)],
    };
    Table {
        title: "Widths of the intervals, with CNI and runtime stubbed".into(),
        columns: ["difference", "width, ms", "pairs"].map(String::from).into(),
        rows: found.iter().map(row).collect(),
    }
}

fn steps(title: &str, measured: &Measured) -> Table {
    let mut columns = vec!["call".to_owned()];
    columns.extend(WIRINGS.map(|wiring| format!("{} p50, ms", wiring.name())));
    columns.extend(["split - merged, ms", "from", "to", "loopback - merged, ms", "from", "to"].map(String::from));
    let rows = STEPS.iter().enumerate().map(|(step, name)| {
        let mut cells: Vec<Option<f64>> =
            measured.millis.iter().map(|side| Some(percentile(&side[step], 0.5))).collect();
        cells.extend(hops(measured, step).iter().flat_map(|d| [d.median, d.low, d.high].map(Some)));
        Row { name: (*name).to_owned(), cells }
    });
    Table { title: title.to_owned(), columns, rows: rows.collect() }
}

fn crossed(title: &str, measured: &Measured) -> Table {
    let columns = ["wiring", "calls", "encoded bytes", "ms inside calls"].map(String::from).into();
    let rows = WIRINGS.iter().zip(&measured.crossed).map(|(wiring, seam)| Row {
        name: wiring.name().to_owned(),
        cells: [seam.calls, seam.bytes, seam.millis].map(Some).into(),
    });
    Table { title: title.to_owned(), columns, rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hop_is_told_by_pairs() {
        let starts = |more: f64| [[0.0, 5.0, 9.0, 3.0].map(|mood| 50.0 + mood + more).to_vec(), vec![], vec![], vec![]];
        let mut measured = Measured { millis: [starts(2.0), starts(0.5), starts(0.0)], crossed: Default::default() };
        for side in &mut measured.millis {
            side[3] = side[0].clone();
        }
        assert!(is_narrow(&measured));
        let mut experiment = Experiment::default();
        let found = describe("stubbed", &measured, &mut experiment);
        assert_eq!((found[0].median, found[1].median), (2.0, 0.5));
        assert_eq!(experiment.findings[0], "With CNI and runtime stubbed, split - merged: +2 ms [+2, +2].");
        assert_eq!((experiment.parts.len(), experiment.raw.len()), (4, 12));
    }
}
