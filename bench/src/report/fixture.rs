//! A small report with one part of each kind, for the tests of whoever renders it.

use super::*;

pub fn report() -> Report {
    let samples = [12.5, 13.25, 14.0, 99.0];
    let series = ["split", "loopback", "merged", "containerd"].map(|side| Series::new(side, &samples));
    let rows = [("split - merged", [2.1, 2.0, 2.2, 1.9]), ("loopback - merged", [0.3, -0.2, 0.1, -0.4])];
    let rows = rows.iter().filter_map(|(name, pairs)| Difference::new(name, pairs, &[0.0; 4])).collect();
    let stage = |name: &str, place, start_ms, ms| Stage { name: name.into(), place, start_ms, ms };
    let lane = Lane {
        name: "split".into(),
        total_ms: 41.5,
        hop_ms: 1.75,
        hops: vec![(1.5, 0.5), (3.25, 1.25)],
        stages: vec![
            stage("RunPodSandbox", Place::Request, 0.0, 41.5),
            stage("record", Place::Cri, 1.5, 3.25),
            stage("Containers.create", Place::Seam, 1.5, 3.0),
            stage("Containers.create", Place::Core, 2.0, 1.25),
        ],
    };
    let parts = vec![
        Part::Table(Table {
            title: "What a <call> costs & why".into(),
            columns: ["method", "p50, µs", "bytes"].map(String::from).into(),
            rows: vec![
                Row { name: "Tasks.get".into(), cells: vec![Some(152.25), Some(64.0)] },
                Row { name: "Version.version".into(), cells: vec![Some(0.875), None] },
            ],
        }),
        Part::Differences(Differences { title: "The hop".into(), unit: "ms".into(), rows }),
        Part::Distributions(Distributions { title: "Pods".into(), unit: "ms".into(), series: series.into() }),
        Part::Lines(Lines {
            title: "Memory".into(),
            x: "pods".into(),
            y: "MB".into(),
            series: vec![Curve { name: "split core".into(), points: vec![(1.0, 7.5), (10.0, 8.25), (100.0, 17.5)] }],
        }),
        Part::Timelines(Timelines { title: "One start".into(), lanes: vec![lane] }),
    ];
    Report {
        facts: vec![Fact { name: "commit".into(), value: "abc123 <dirty>".into() }],
        reading: vec!["An interval holds the median with 95 % confidence.".into()],
        experiments: vec![
            Experiment {
                name: "calls".into(),
                title: "Calls".into(),
                question: "What does one call cost?".into(),
                seconds: 1.25,
                findings: vec!["A call costs \"something\".".into()],
                parts,
                notes: vec!["Nothing was disturbed.".into()],
                raw: BTreeMap::from([("split/Tasks.get".into(), vec![150.0, 152.25])]),
                error: None,
            },
            Experiment { name: "scale".into(), error: Some("no room & no time".into()), ..Experiment::default() },
        ],
    }
}
