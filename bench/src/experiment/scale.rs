//! Experiment: from one pod to many: how the start of one more, memory, lists and stats grow.
//!
//! One wiring after the other, since pods of one would slow down those of another. The runtime is real; CNI is stubbed,
//! which has neither enough addresses nor room on a bridge for so many. A wiring stops growing when its time is over.

use std::time::{Duration, Instant};

use e2e::World;
use e2e::config::Options;
use futures::StreamExt as _;
use shared_proto::cri::v1::{ListContainerStatsRequest, ListContainersRequest, ListPodSandboxStatsRequest};

use super::Settings;
use crate::engine::Engine;
use crate::node::{self, MB};
use crate::report::{Curve, Experiment, Lines, Part, Row, Table, show};
use crate::stats::percentile;
use crate::trio::{self, WIRINGS};
use crate::{load, stub};

const SIZES: [usize; 8] = [1, 10, 25, 50, 100, 200, 350, 500];
const QUICK: [usize; 3] = [1, 3, 6];
/// Of one wiring.
const LIMIT: Duration = Duration::from_secs(45);
/// Pods that are started one by one at each size, and questions that are asked.
const ALONE: usize = 3;
const ASKED: usize = 5;

/// A node with so many pods.
#[derive(Clone, Copy)]
struct Size {
    pods: f64,
    start_ms: f64,
    daemons_mb: f64,
    shims_mb: f64,
    lists_ms: f64,
    stats_ms: f64,
}

/// What is drawn of a [`Size`].
type Drawn = (&'static str, &'static str, fn(&Size) -> f64);
const DRAWN: [Drawn; 5] = [
    ("Start of one more pod, alone", "ms", |size| size.start_ms),
    ("Daemons", "MB (PSS)", |size| size.daemons_mb),
    ("Shims", "MB (PSS)", |size| size.shims_mb),
    ("Both lists", "ms", |size| size.lists_ms),
    ("All stats", "ms", |size| size.stats_ms),
];

pub async fn run(settings: &Settings) -> anyhow::Result<Experiment> {
    let engine = Engine::Runc.binary()?;
    let sizes: &[usize] = if settings.quick { &QUICK } else { &SIZES };
    let mut grown: [Vec<Size>; 3] = Default::default();
    for (turn, which) in settings.turns(0).into_iter().enumerate() {
        let wiring = WIRINGS[which];
        let mut world = World::prepare(wiring, Options { engine: Some(engine.clone()), ..trio::options(wiring) });
        stub::network(&mut world);
        world.run().await;
        world.pull(e2e::fixtures::PAUSE).await;
        world.pull(e2e::fixtures::BUSYBOX).await;
        let (began, mut pods) = (Instant::now(), 0);
        for (index, size) in sizes.iter().enumerate() {
            (settings.tell)(
                &format!("{}: {size} pods", wiring.name()),
                (turn as f64 + index as f64 / sizes.len() as f64) / 3.0,
            );
            if began.elapsed() > LIMIT {
                break;
            }
            grown[which].push(grow(&world, &mut pods, *size).await?);
        }
    }
    Ok(describe(&grown))
}

/// Starts what lacks to `size` pods, the last ones alone, and asks.
async fn grow(world: &World, pods: &mut usize, size: usize) -> anyhow::Result<Size> {
    let cri = world.cri();
    let together = *pods..size.saturating_sub(ALONE).max(*pods);
    let start = |index: usize| async move { load::start(world, &format!("s{index}")).await };
    futures::stream::iter(together.clone()).map(start).buffer_unordered(10).for_each(|_| std::future::ready(())).await;
    let mut alone = Vec::new();
    for index in together.end..size {
        alone.push(start(index).await.millis());
    }
    *pods = size;
    // What the starts have left to do is not what is asked for.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut lists, mut stats) = (Vec::new(), Vec::new());
    for _ in 0..ASKED {
        let clock = Instant::now();
        cri.list_pods(Default::default()).await;
        cri.list_containers(ListContainersRequest::default()).await;
        lists.push(load::millis(clock));
        let clock = Instant::now();
        cri.list_container_stats(ListContainerStatsRequest::default()).await;
        cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await;
        stats.push(load::millis(clock));
    }
    Ok(Size {
        pods: size as f64,
        start_ms: percentile(&alone, 0.5),
        daemons_mb: node::daemons(world)?.pss / MB,
        shims_mb: node::shims(world)?.pss / MB,
        lists_ms: percentile(&lists, 0.5),
        stats_ms: percentile(&stats, 0.5),
    })
}

fn describe(grown: &[Vec<Size>; 3]) -> Experiment {
    let mut experiment = Experiment {
        name: "scale".into(),
        title: "From one pod to many".into(),
        question: "How do the start of one more pod, memory, lists and stats grow with the pods that are there?".into(),
        notes: vec![format!(
            "Starts are the median of {ALONE} that were alone, answers the median of {ASKED}; one run a wiring: no interval is \
                 given. CNI is stubbed, runc is real. A wiring stops growing after {} s.",
            LIMIT.as_secs()
        )],
        ..Experiment::default()
    };
    let round = |value: f64| (value * 1e3).round() / 1e3;
    let sides = || WIRINGS.iter().zip(grown).filter(|(_, sizes)| !sizes.is_empty());
    for (title, unit, of) in DRAWN {
        let curve = |name: &str, sizes: &[Size]| Curve {
            name: name.to_owned(),
            points: sizes.iter().map(|size| (size.pods, round(of(size)))).collect(),
        };
        let series = sides().map(|(wiring, sizes)| curve(wiring.name(), sizes)).collect();
        experiment.parts.push(Part::Lines(Lines { title: title.into(), x: "pods".into(), y: unit.into(), series }));
    }
    let mut columns = vec!["wiring, pods".to_owned()];
    columns.extend(DRAWN.map(|(title, unit, _)| format!("{title}, {unit}")));
    let mut rows = Vec::new();
    for (wiring, sizes) in sides() {
        let row = |size: &Size| Row {
            name: format!("{}, {}", wiring.name(), size.pods),
            cells: DRAWN.iter().map(|(_, _, of)| Some(of(size))).collect(),
        };
        rows.extend(sizes.iter().map(row));
        let (first, last) = (sizes[0], sizes[sizes.len() - 1]);
        experiment.findings.push(format!(
            "{}: from {} to {} pods the start of one more goes from {} to {} ms, daemons from {} to {} MB, both lists from {} to {} ms.",
            wiring.name(),
            show(first.pods),
            show(last.pods),
            show(first.start_ms),
            show(last.start_ms),
            show(first.daemons_mb),
            show(last.daemons_mb),
            show(first.lists_ms),
            show(last.lists_ms),
        ));
    }
    experiment.parts.push(Part::Table(Table { title: "All sizes".into(), columns, rows }));
    experiment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_drawn_as_far_as_it_came() {
        let size = |pods: f64| Size {
            pods,
            start_ms: pods + 50.0,
            daemons_mb: 8.0,
            shims_mb: pods,
            lists_ms: 1.0,
            stats_ms: 2.0,
        };
        let told = describe(&[vec![size(1.0), size(10.0)], vec![size(1.0)], vec![]]);
        assert_eq!(told.parts.len(), DRAWN.len() + 1);
        let Part::Lines(starts) = &told.parts[0] else { panic!("{:?}", told.parts[0]) };
        assert_eq!(starts.series.len(), 2);
        assert_eq!(starts.series[0].points, [(1.0, 51.0), (10.0, 60.0)]);
        assert!(told.findings[0].starts_with("split: from 1 to 10 pods the start of one more goes from 51 to 60 ms"));
    }
}
