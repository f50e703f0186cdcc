//! What a report must find, and what it must not: a delay that was put into the seam.

use std::time::Duration;

use seam_bench::experiment::{Settings, calls, hop};
use seam_bench::report::{Difference, Experiment, Part, Report, html};

/// Two measurements at a time would disturb each other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const DELAY: Duration = Duration::from_millis(2);

fn settings(delay: Option<Duration>) -> Settings {
    Settings { quick: true, seed: 1, delay, tell: Box::new(|_, _| {}) }
}

/// What a side adds to a call of the core in memory, microseconds.
fn added(experiment: &Experiment, name: &str) -> Difference {
    let rows = experiment.parts.iter().filter_map(|part| match part {
        Part::Differences(differences) => Some(&differences.rows),
        _ => None,
    });
    rows.flatten().find(|row| row.name == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_shows_in_every_call_of_split_and_in_no_other() {
    let _turn = TURN.lock().await;
    let (plain, delayed) =
        (calls::ports(&settings(None)).await.unwrap(), calls::ports(&settings(Some(DELAY))).await.unwrap());
    for call in ["version.version", "tasks.get", "containers.create"] {
        let name = format!("split {call}");
        let (before, after) = (added(&plain, &name), added(&delayed, &name));
        assert!(after.distinguishable && after.low > before.median + 1500.0, "{name}: {before:?}, {after:?}");
        let name = format!("loopback {call}");
        assert!(added(&delayed, &name).median < 2000.0, "{name}: {:?}", added(&delayed, &name));
    }
    let report = Report { facts: vec![], reading: vec![], experiments: vec![delayed] };
    let page = html::render(&report);
    assert!(page.contains("split version.version: +") && page.contains("<svg"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_shows_in_the_start_of_a_pod() {
    let _turn = TURN.lock().await;
    let mut experiment = Experiment::default();
    let found = hop::stubbed(&settings(Some(DELAY)), &mut experiment).await.unwrap();
    // A start waits for several calls, one after the other, and each of them is late.
    assert!(found[0].name.starts_with("split") && found[0].low > 2.0, "{found:?}");
    assert!(experiment.findings[0].contains("split - merged: +"), "{:?}", experiment.findings);
}
