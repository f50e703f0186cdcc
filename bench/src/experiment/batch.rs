//! Experiment: many pods at once, in each wiring and in Debian's containerd; what follows in the same worlds is at rest
//! ([`super::steady`]) and then loses a daemon ([`super::failure`]).
//!
//! Each side has a world of its own, one after the other, so that no side's processes run beside another's. A side has
//! one batch, so the pods of a batch are all there is: no interval over batches is given, and no difference.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::World;

use super::{Settings, failure, steady};
use crate::engine::Engine;
use crate::report::{Distributions, Experiment, Part, Row, Series, Table, rounded, show};
use crate::sides::{ALL, Side};
use crate::stats::percentile;
use crate::{load, node};

/// The announcement's number.
const PODS: usize = 105;

/// What one side's batch was.
struct Batch {
    side: &'static str,
    pod_millis: Vec<f64>,
    seconds: f64,
    cpu_seconds: f64,
    /// What else ran on the machine before, in cores.
    noise_cores: f64,
    end_seconds: f64,
}

pub async fn run(settings: &Settings) -> anyhow::Result<Vec<Experiment>> {
    let engine = Engine::Runc.binary()?;
    let pods = settings.pick(PODS, 6);
    let began = Instant::now();
    let (mut batches, mut rests, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    let (mut at_rest, mut failing) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..ALL.len() {
        let side = &ALL[(turn + settings.seed as usize) % ALL.len()];
        let tell = |what: &str, part: f64| {
            (settings.tell)(&format!("{}: {what}", side.name), (turn as f64 + part) / ALL.len() as f64)
        };
        tell("pods at once", 0.0);
        let mut world = side.world(&engine).await;
        let (mut batch, started) = start(side, &world, pods).await?;
        tell("at rest", 0.25);
        let clock = Instant::now();
        rests.push(steady::measure(side.name, &world, settings.pick(20, 3)).await?);
        at_rest += clock.elapsed();
        if side.wiring().is_some() {
            tell("daemons killed", 0.6);
            let clock = Instant::now();
            failures.extend(
                failure::measure(&mut world, &started).await.with_context(|| format!("failures in {}", side.name))?,
            );
            failing += clock.elapsed();
        }
        tell("the end of the pods", 0.8);
        let clock = Instant::now();
        load::end_all(&world.cri(), &started, 10).await;
        batch.end_seconds = clock.elapsed().as_secs_f64();
        batches.push(batch);
    }
    let own = began.elapsed() - at_rest - failing;
    Ok(vec![
        batch(&batches, pods, own),
        steady::describe(&rests, pods, at_rest),
        failure::describe(&failures, pods, failing),
    ])
}

async fn start(side: &Side, world: &World, pods: usize) -> anyhow::Result<(Batch, Vec<load::Pod>)> {
    let settle = || tokio::time::sleep(Duration::from_secs(1));
    world.pull(e2e::fixtures::PAUSE).await;
    world.pull(e2e::fixtures::BUSYBOX).await;
    let (clock, before) = (Instant::now(), node::others_seconds()?);
    settle().await;
    let noise_cores = (node::others_seconds()? - before) / clock.elapsed().as_secs_f64();
    let (clock, before) = (Instant::now(), node::others_seconds()?);
    let started = load::start_all(world, pods, pods).await;
    let batch = Batch {
        side: side.name,
        pod_millis: started.iter().map(load::Pod::millis).collect(),
        seconds: clock.elapsed().as_secs_f64(),
        cpu_seconds: node::others_seconds()? - before,
        noise_cores,
        end_seconds: 0.0,
    };
    settle().await;
    Ok((batch, started))
}

fn batch(batches: &[Batch], pods: usize, took: Duration) -> Experiment {
    let series = batches.iter().map(|batch| Series::new(batch.side, &rounded(&batch.pod_millis))).collect();
    let columns = [
        "side",
        "all, s",
        "CPU of the machine, s",
        "one pod p50, ms",
        "one pod p99, ms",
        "stop and remove all, s",
        "busy before, cores",
    ];
    let row = |batch: &Batch| Row {
        name: batch.side.to_owned(),
        cells: [
            batch.seconds,
            batch.cpu_seconds,
            percentile(&batch.pod_millis, 0.5),
            percentile(&batch.pod_millis, 0.99),
            batch.end_seconds,
            batch.noise_cores,
        ]
        .map(Some)
        .into(),
    };
    let found = |batch: &Batch| {
        format!(
            "{}: {pods} pods at once took {} s, and {} s of CPU.",
            batch.side,
            show(batch.seconds),
            show(batch.cpu_seconds)
        )
    };
    Experiment {
        name: "batch".into(),
        title: format!("{pods} pods at once"),
        question: "How long do pods take that are all asked for at the same time?".into(),
        seconds: took.as_secs_f64(),
        findings: batches.iter().map(found).collect(),
        parts: vec![
            Part::Distributions(Distributions { title: "Start of each pod".into(), unit: "ms".into(), series }),
            Part::Table(Table {
                title: "The batch".into(),
                columns: columns.map(String::from).into(),
                rows: batches.iter().map(row).collect(),
            }),
        ],
        notes: vec![
            "One batch a side: pods of one batch wait for each other, so they are no independent samples, and there is no \
             interval. The same runc, images and CNI network for all."
                .into(),
        ],
        raw: batches.iter().map(|batch| (format!("{}/pod, ms", batch.side), rounded(&batch.pod_millis))).collect(),
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_told() {
        let one = Batch {
            side: "split",
            pod_millis: vec![100.0, 200.0, 300.0],
            seconds: 0.5,
            cpu_seconds: 0.75,
            noise_cores: 0.0,
            end_seconds: 0.25,
        };
        let told = batch(&[one], 3, Duration::from_secs(2));
        assert_eq!(told.findings, ["split: 3 pods at once took 0.5 s, and 0.75 s of CPU."]);
        assert_eq!((told.parts.len(), told.raw["split/pod, ms"].len()), (2, 3));
    }
}
