//! What is asked of ours beside the peer, and the table that shows whether it is met.
//!
//! A figure is the median over the rounds. The bars are made for 105 pods on a machine that does nothing else.

use crate::stats::percentile;
use serde::Serialize;

/// One round of one side. Seconds, milliseconds and bytes, as the names say.
#[derive(Default, Serialize)]
pub struct Sample {
    pub idle_rss_bytes: f64,
    pub idle_with_images_rss_bytes: f64,
    /// What else ran on the machine before the batch, in cores.
    pub noise_cores: f64,
    pub batch_seconds: f64,
    pub batch_cpu_seconds: f64,
    pub pod_millis: Vec<f64>,
    pub daemons_pss_bytes: f64,
    pub daemons_rss_bytes: f64,
    pub shims: usize,
    pub shims_pss_bytes: f64,
    pub steady_cpu_percent: f64,
    pub exec_millis: Vec<f64>,
    pub end_seconds: f64,
}

/// What a figure of ours has to be.
#[derive(Clone, Copy)]
enum Bar {
    /// It is only shown.
    None,
    /// At most this part of the peer's.
    Ratio(f64),
    /// At most this, in the row's unit: `merged`, `split`.
    AtMost(f64, f64),
}

struct Row {
    name: &'static str,
    unit: &'static str,
    of: fn(&Sample) -> f64,
    bar: Bar,
}

const fn row(name: &'static str, unit: &'static str, bar: Bar, of: fn(&Sample) -> f64) -> Row {
    Row { name, unit, of, bar }
}

const MB: f64 = crate::node::MB;

const ROWS: &[Row] = &[
    row("batch, wall time", "s", Bar::Ratio(0.6), |s| s.batch_seconds),
    row("batch, CPU of the machine", "s", Bar::Ratio(0.6), |s| s.batch_cpu_seconds),
    row("pod start, p50", "ms", Bar::None, |s| percentile(&s.pod_millis, 0.5)),
    row("pod start, p99", "ms", Bar::None, |s| percentile(&s.pod_millis, 0.99)),
    row("stop and remove all", "s", Bar::Ratio(0.5), |s| s.end_seconds),
    row("ExecSync, p50", "ms", Bar::Ratio(0.8), |s| percentile(&s.exec_millis, 0.5)),
    row("ExecSync, p90", "ms", Bar::None, |s| percentile(&s.exec_millis, 0.9)),
    row("daemons and shims, PSS", "MB", Bar::AtMost(90.0, 90.0), |s| (s.daemons_pss_bytes + s.shims_pss_bytes) / MB),
    row("daemons, PSS", "MB", Bar::None, |s| s.daemons_pss_bytes / MB),
    row("daemons, RSS", "MB", Bar::None, |s| s.daemons_rss_bytes / MB),
    row("shims, PSS", "MB", Bar::None, |s| s.shims_pss_bytes / MB),
    row("shims", "", Bar::None, |s| s.shims as f64),
    row("one shim, PSS", "MB", Bar::AtMost(0.8, 0.8), |s| s.shims_pss_bytes / MB / s.shims.max(1) as f64),
    row("daemons idle, RSS", "MB", Bar::AtMost(14.0, 20.0), |s| s.idle_rss_bytes / MB),
    row("the same after the pulls, RSS", "MB", Bar::None, |s| s.idle_with_images_rss_bytes / MB),
    row("polled, CPU", "% of a core", Bar::AtMost(3.0, 3.0), |s| s.steady_cpu_percent),
];

/// Prints the medians of `[merged, split, peer]`, ours as a part of the peer's, the bars, and whether they are met.
pub fn print(samples: [&[Sample]; 3], peer: &str) {
    println!(
        "{:<32}{:>10}{:>10}{:>12}{:>10}{:>10}  {:<10}{:>8}{:>8}",
        "medians; MB = 10^6 bytes", "merged", "split", peer, "merged/", "split/", "bar", "merged", "split"
    );
    for row in ROWS {
        let [merged, split, theirs] = samples.map(|rounds| median(row, rounds));
        let bar = match row.bar {
            Bar::None => "-".to_owned(),
            Bar::Ratio(part) => format!("<= {part}x"),
            Bar::AtMost(merged, split) if merged == split => format!("<= {merged}"),
            Bar::AtMost(merged, split) => format!("<= {merged}/{split}"),
        };
        let [met_merged, met_split] =
            [(merged, 0), (split, 1)].map(|(ours, which)| match is_met(row.bar, ours, theirs, which) {
                None => "",
                Some(true) => "met",
                Some(false) => "MISSED",
            });
        println!(
            "{:<32}{merged:>10.2}{split:>10.2}{theirs:>12.2}{:>10.2}{:>10.2}  {bar:<10}{met_merged:>8}{met_split:>8}",
            format!("{}{}{}", row.name, if row.unit.is_empty() { "" } else { ", " }, row.unit),
            merged / theirs,
            split / theirs,
        );
    }
}

fn median(row: &Row, rounds: &[Sample]) -> f64 {
    percentile(&rounds.iter().map(row.of).collect::<Vec<_>>(), 0.5)
}

/// Whether `ours` meets a bar; `which` is 0 for `merged` and 1 for `split`. None where there is no bar.
fn is_met(bar: Bar, ours: f64, theirs: f64, which: usize) -> Option<bool> {
    match bar {
        Bar::None => None,
        Bar::Ratio(part) => Some(ours <= part * theirs),
        Bar::AtMost(merged, split) => Some(ours <= [merged, split][which]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(is_met(Bar::Ratio(0.6), 6.0, 10.0, 0), Some(true));
        assert_eq!(is_met(Bar::Ratio(0.6), 6.1, 10.0, 1), Some(false));
        assert_eq!(is_met(Bar::AtMost(14.0, 20.0), 15.0, 90.0, 0), Some(false));
        assert_eq!(is_met(Bar::AtMost(14.0, 20.0), 15.0, 90.0, 1), Some(true));
        assert_eq!(is_met(Bar::None, 1.0, 1.0, 0), None);
    }

    #[test]
    fn a_row_is_the_median_of_the_rounds() {
        let rounds = [5.0, 1.0, 3.0].map(|batch_seconds| Sample { batch_seconds, ..Sample::default() });
        assert_eq!(median(&ROWS[0], &rounds), 3.0);
        let shims = Sample { shims: 4, shims_pss_bytes: 8e6, daemons_pss_bytes: 1e6, ..Sample::default() };
        let by_name = |name| median(ROWS.iter().find(|row| row.name == name).unwrap(), std::slice::from_ref(&shims));
        assert_eq!((by_name("one shim, PSS"), by_name("daemons and shims, PSS")), (2.0, 9.0));
    }
}
