//! Experiment: SIGKILL of a daemon under many pods: what stops answering, for how long, and what survives.
//!
//! In `split` the CRI side and the core are killed in turn, otherwise the one process that there is. It is started again
//! after [`DOWN`], which stands for whoever does that on a node. A container ends by itself meanwhile: its exit code
//! and each line that it wrote must be there afterwards.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::cri::Cri;
use e2e::pod::counter;
use e2e::{Wiring, World};
use shared_proto::cri::v1::{ContainerState, ListContainersRequest};

use super::probe::{ASKED, Asked, Probes};
use crate::load::Pod;
use crate::report::{Experiment, Part, Row, Table, show};

/// How long the daemon is away.
const DOWN: Duration = Duration::from_millis(2500);
/// Lines of the container that ends meanwhile, about one every two milliseconds, and its code.
const LINES: u64 = 600;
const CODE: i32 = 7;

/// What became of one kind of question.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Outage {
    /// From the kill to the first answer after a failure, seconds; zero: every question was answered; none: there was no
    /// answer any more.
    stopped: Option<f64>,
    /// From the restart to the same, milliseconds.
    back: Option<f64>,
}

pub struct Failure {
    what: String,
    outages: [Outage; 3],
    running_before: usize,
    running_after: usize,
    code_kept: bool,
    lines_lost: u64,
}

/// The kills of one world, which runs afterwards.
pub async fn measure(world: &mut World, pods: &[Pod]) -> anyhow::Result<Vec<Failure>> {
    type Kill = (&'static str, fn(&mut World));
    let victims: &[Kill] = match world.wiring() {
        Wiring::Split => &[("split, CRI killed", World::kill_cri), ("split, core killed", World::kill_core)],
        Wiring::Loopback => &[("loopback, all killed", World::kill_core)],
        Wiring::Merged => &[("merged, all killed", World::kill_core)],
    };
    let mut failures = Vec::new();
    for (index, (what, kill)) in victims.iter().enumerate() {
        failures.push(one(world, pods, what, *kill, index).await.with_context(|| (*what).to_owned())?);
    }
    Ok(failures)
}

async fn one(
    world: &mut World,
    pods: &[Pod],
    what: &str,
    kill: fn(&mut World),
    index: usize,
) -> anyhow::Result<Failure> {
    let cri = world.cri();
    let (name, pod) = (format!("writer-{index}"), &pods[0]);
    let config = world.pod(&pod.name);
    let writer = cri.create(&pod.id, &config, &counter(&name, LINES, CODE)).await;
    let running_before = running(&cri).await?;
    let probes = Probes::start(world, &pod.container);
    tokio::time::sleep(Duration::from_millis(300)).await;
    cri.try_start(&writer).await.context("start the container that ends meanwhile")?;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let killed = Instant::now();
    kill(world);
    tokio::time::sleep(DOWN).await;
    let restarted = Instant::now();
    world.spawn();
    let answers = probes.until_all_answer(restarted).await;
    world.ready().await;

    let exited = cri.exited(&writer).await;
    let log = world.log(&pod.name, &name);
    let outages = answers.map(|answers| outage(&answers, killed, restarted));
    let running_after = running(&cri).await?;
    let lines_lost =
        LINES.saturating_sub(whole(&std::fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?));
    cri.try_remove(&writer).await.context("remove the container that has ended")?;
    let code_kept = exited.exit_code == CODE;
    Ok(Failure { what: what.to_owned(), outages, running_before, running_after, code_kept, lines_lost })
}

async fn running(cri: &Cri) -> anyhow::Result<usize> {
    let all = cri.try_list_containers(ListContainersRequest::default()).await.context("ListContainers")?.containers;
    Ok(all.iter().filter(|container| container.state() == ContainerState::ContainerRunning).count())
}

/// How many of the lines 1, 2, 3, … of a log follow each other from its beginning.
fn whole(log: &str) -> u64 {
    let numbers = log.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    numbers.zip(1..).take_while(|(number, expected)| number == expected).count() as u64
}

fn outage(asked: &[Asked], killed: Instant, restarted: Instant) -> Outage {
    // What was under way when the kill came counts as well.
    let failed = asked.iter().position(|(_, over, answered)| *over > killed && !answered);
    let back = failed.and_then(|at| asked[at..].iter().find(|(.., answered)| *answered)).map(|(_, over, _)| *over);
    match (failed, back) {
        (None, _) => Outage { stopped: Some(0.0), back: Some(0.0) },
        (Some(_), None) => Outage { stopped: None, back: None },
        (Some(_), Some(over)) => Outage {
            stopped: Some((over - killed).as_secs_f64()),
            back: Some(over.saturating_duration_since(restarted).as_secs_f64() * 1e3),
        },
    }
}

pub fn describe(failures: &[Failure], pods: usize, took: Duration) -> Experiment {
    let columns = |words: &str| {
        let mut columns = vec!["killed".to_owned()];
        columns.extend(ASKED.map(|what| format!("{what}, {words}")));
        columns
    };
    let table = |title: &str, words: &str, of: fn(&Outage) -> Option<f64>| {
        let row =
            |failure: &Failure| Row { name: failure.what.clone(), cells: failure.outages.each_ref().map(of).into() };
        Part::Table(Table { title: title.into(), columns: columns(words), rows: failures.iter().map(row).collect() })
    };
    let survived = |failure: &Failure| Row {
        name: failure.what.clone(),
        cells: [
            failure.running_before as f64,
            failure.running_after as f64,
            f64::from(u8::from(failure.code_kept)),
            failure.lines_lost as f64,
        ]
        .map(Some)
        .into(),
    };
    let survivors = ["killed", "containers running before", "and after", "exit codes kept, of one", "log lines lost"];
    Experiment {
        name: "failure".into(),
        title: format!("A daemon killed under {pods} pods"),
        question: "What stops answering when a daemon gets SIGKILL, for how long, and what survives?".into(),
        seconds: took.as_secs_f64(),
        findings: failures.iter().map(sentence).collect(),
        parts: vec![
            table("Without an answer, from the kill on", "s", |outage| outage.stopped),
            table("The first answer, from the restart on", "ms", |outage| outage.back),
            Part::Table(Table {
                title: "What survives".into(),
                columns: survivors.map(String::from).into(),
                rows: failures.iter().map(survived).collect(),
            }),
        ],
        notes: vec![
            format!(
                "The daemon is started again {} s after it was killed. Lists and the core are asked every 20 ms, ExecSync every \
                 100 ms: what is shorter than that is not seen. Zero: every question was answered.",
                show(DOWN.as_secs_f64())
            ),
            format!("A container writes {LINES} lines and exits with {CODE} while the daemon is away."),
            "Each was killed once: no interval is given.".into(),
        ],
        raw: Default::default(),
        error: None,
    }
}

fn sentence(failure: &Failure) -> String {
    let told = ASKED.iter().zip(&failure.outages).map(|(what, outage)| match outage.stopped {
        Some(0.0) => format!("{what} kept answering"),
        Some(seconds) => format!("{what} stopped for {} s", show(seconds)),
        None => format!("{what} did not come back"),
    });
    let lost = failure.running_before.saturating_sub(failure.running_after);
    format!("{}: {}; {lost} containers lost.", failure.what, told.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_begin_with_a_failure_and_end_with_an_answer() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let asked = |ms: u64, answered| (at(ms), at(ms + 1), answered);
        let broken = [asked(0, true), asked(10, false), asked(20, false), asked(2520, true), asked(2530, false)];
        let found = outage(&broken, at(5), at(2500));
        assert_eq!(found, Outage { stopped: Some(2.516), back: Some(21.0) });
        let whole = [asked(0, false), asked(10, true), asked(20, true)];
        assert_eq!(outage(&whole, at(5), at(15)).stopped, Some(0.0));
        assert_eq!(outage(&broken[..2], at(5), at(15)).stopped, None);
    }

    #[test]
    fn a_lost_line_is_seen() {
        let line = |n: u32| format!("2026-01-01T00:00:00Z stdout F {n}\n");
        let log = |numbers: &[u32]| numbers.iter().map(|n| line(*n)).collect::<String>();
        assert_eq!(whole(&log(&[1, 2, 3])), 3);
        assert_eq!(whole(&log(&[1, 3, 4])), 1);
    }
}
