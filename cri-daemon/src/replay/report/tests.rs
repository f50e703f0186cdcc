//! What is shown of many differences, and of times.

use super::*;
use crate::replay::compare::Difference;
use crate::replay::known::TABLE;
use crate::replay::session::Found;

fn outcome(seq: u64, ms: u64, known: Option<&'static Known>) -> Outcome {
    let (recorded, replayed) = (Some(json!(seq)), Some(json!("x".repeat(200))));
    let difference = Difference { path: "a.b".into(), object: None, recorded, replayed };
    Outcome {
        seq,
        method: "/runtime.v1.RuntimeService/Version".into(),
        recorded: Duration::from_millis(1),
        replayed: Duration::from_millis(ms),
        late: Duration::from_millis(seq),
        found: vec![Found { difference, known }],
        answered: true,
        ..Default::default()
    }
}

#[test]
fn differences_are_grouped_and_times_are_a_table() {
    let mut outcomes: Vec<Outcome> = (1..=100).map(|seq| outcome(seq, seq, Some(&TABLE[0]))).collect();
    outcomes.push(outcome(101, 1, None));
    outcomes.push(Outcome { seq: 102, method: "/a/B".into(), skipped: Some("no reason"), ..Default::default() });
    let report = Report {
        recorded: Target::default(),
        endpoint: Target::default(),
        speed: Some(2.0),
        took: Duration::from_secs(3),
        warnings: vec!["it is old".into()],
        outcomes,
    };
    let text = report.text();
    let line = |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {text}"));
    assert!(line("#101").starts_with("  #101 Version a.b: recorded 101, replayed xxx") && line("#101").ends_with('…'));
    assert!(text.contains(&format!("\n{} (100): ", TABLE[0].name)) && text.contains("and 95 more"), "{text}");
    assert!(text.contains("B (1): no reason") && text.contains("Note: it is old."), "{text}");
    let words: Vec<&str> = text.lines().find(|line| line.starts_with("Version")).unwrap().split_whitespace().collect();
    assert_eq!(words, ["Version", "101", "1.0", "50.0", "1.0", "99.0"]);
    assert!(text.contains("102 calls in 3.0 s: 101 differences, 1 of them unexplained."), "{text}");
    let json = report.json();
    assert_eq!((json["unexplained"].as_u64(), json["differences"].as_array().unwrap().len()), (Some(1), 101));
    assert_eq!(json["latencies"][0]["replayed"]["p99_ns"], 99_000_000);
    assert_eq!(json["late"]["max_ns"], 101_000_000);
}

#[test]
fn percentiles_are_values_that_were_measured() {
    let of = |count: u64| -> Vec<Duration> { (1..=count).map(Duration::from_millis).collect() };
    let ms = |times: &[Duration], percent| percentile(times, percent).as_millis();
    assert_eq!([ms(&of(1), 50), ms(&of(1), 99), ms(&of(2), 50), ms(&of(200), 99)], [1, 1, 1, 198]);
    assert_eq!(ms(&[], 50), 0);
}
