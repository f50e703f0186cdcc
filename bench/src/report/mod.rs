//! A report: what was measured, in a form that a page and a text are made from.
//!
//! Everything that is shown is in here, and so in the JSON beside the page: the renderers calculate nothing. They turn a
//! number into text in one way, [`show`]. Only the ticks of axes are made while drawing.

pub mod agree;
pub mod facts;
pub mod html;
pub mod markdown;
pub mod plot;
pub mod svg;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it was measured on, and how.
    pub facts: Vec<Fact>,
    /// How it is to be read, in sentences.
    pub reading: Vec<String>,
    pub experiments: Vec<Experiment>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

/// One question and its answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    pub name: String,
    pub title: String,
    pub question: String,
    pub seconds: f64,
    /// What was found, in sentences.
    pub findings: Vec<String>,
    pub parts: Vec<Part>,
    /// What the figures don't say.
    pub notes: Vec<String>,
    /// All samples, by what they are of, in the order in which they were taken.
    pub raw: BTreeMap<String, Vec<f64>>,
    /// Why it has ended early.
    pub error: Option<String>,
}

/// A table or a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Part {
    Table(Table),
    Differences(Differences),
    Distributions(Distributions),
    Lines(Lines),
    Timelines(Timelines),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    /// The first one is that of the rows' names.
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// Nothing: it was not measured.
    pub cells: Vec<Option<f64>>,
}

/// Medians of differences between pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Differences {
    pub title: String,
    pub unit: String,
    pub rows: Vec<Difference>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub name: String,
    pub pairs: usize,
    pub median: f64,
    /// The ends of the 95 % interval.
    pub low: f64,
    pub high: f64,
    pub distinguishable: bool,
}

impl Difference {
    /// `a[i] - b[i]`. None without pairs.
    pub fn new(name: &str, a: &[f64], b: &[f64]) -> Option<Self> {
        let pairs = a.len().min(b.len());
        if pairs == 0 {
            return None;
        }
        let d = stats::difference(a, b);
        let distinguishable = !d.is_indistinguishable();
        Some(Self { name: name.to_owned(), pairs, median: d.median, low: d.low, high: d.high, distinguishable })
    }

    /// `+1.2 ms [+0.9, +1.5]`, and what that means where it means nothing.
    pub fn words(&self, unit: &str) -> String {
        let [median, low, high] = [self.median, self.low, self.high].map(signed);
        let verdict = if self.distinguishable { "" } else { ", not distinguishable" };
        format!("{median} {unit} [{low}, {high}]{verdict}")
    }
}

/// The same thing measured at several sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distributions {
    pub title: String,
    pub unit: String,
    pub series: Vec<Series>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Begins with the name of a side, which is what colours go by.
    pub name: String,
    pub p50: f64,
    pub p99: f64,
    pub samples: Vec<f64>,
}

impl Series {
    pub fn new(name: &str, samples: &[f64]) -> Self {
        let [p50, p99] = [0.5, 0.99].map(|p| stats::percentile(samples, p));
        Self { name: name.to_owned(), p50, p99, samples: samples.to_vec() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lines {
    pub title: String,
    /// What the axes are, with units.
    pub x: String,
    pub y: String,
    pub series: Vec<Curve>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// See [`Series::name`].
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Starts of pods, milliseconds; all on one scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timelines {
    pub title: String,
    pub lanes: Vec<Lane>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    pub name: String,
    pub total_ms: f64,
    /// How much of it something was on its way between CRI and core and back.
    pub hop_ms: f64,
    /// When that was: starts and lengths, milliseconds.
    pub hops: Vec<(f64, f64)>,
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub name: String,
    pub place: Place,
    pub start_ms: f64,
    pub ms: f64,
}

/// Where a stage was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Request,
    Cri,
    Seam,
    Core,
}

/// A number as all of a report shows it: three digits that count, no more than three after the point.
pub fn show(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size >= 99.95 || value == 0.0 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    if text == "-0" { "0".to_owned() } else { text }
}

/// The same with its sign.
pub fn signed(value: f64) -> String {
    let text = show(value);
    if value > 0.0 && text != "0" { format!("+{text}") } else { text }
}

/// Samples as they are kept: to three digits after the point.
pub fn rounded(samples: &[f64]) -> Vec<f64> {
    samples.iter().map(|value| (value * 1e3).round() / 1e3).collect()
}

#[cfg(test)]
pub mod fixture;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.12345, -0.0001, 1.0, 9.999, 12.34, 99.99, 123.4, 12345.6, -3.5].map(show);
        assert_eq!(shown, ["0", "0.123", "0", "1", "10", "12.3", "100", "123", "12346", "-3.5"]);
        assert_eq!([2.5, -2.5, 0.0001].map(signed), ["+2.5", "-2.5", "0"]);
    }

    #[test]
    fn a_difference_says_when_it_says_nothing() {
        let (a, b) = ([3.0, 3.1, 2.9, 3.0], [1.0, 1.0, 1.0, 1.0]);
        let found = Difference::new("x", &a, &b).unwrap();
        assert!(found.distinguishable && found.pairs == 4, "{found:?}");
        assert_eq!(found.words("ms"), "+2 ms [+1.9, +2.1]");
        let none = Difference::new("x", &b, &b).unwrap();
        assert_eq!(none.words("ms"), "0 ms [0, 0], not distinguishable");
        assert_eq!(Difference::new("x", &[], &b), None);
    }

    #[test]
    fn json_there_and_back_is_the_same() {
        let report = fixture::report();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
