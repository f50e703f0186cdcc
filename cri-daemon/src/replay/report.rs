//! What a replay has found: differences by their reasons, and how long calls took on both sides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::compare::shortened;
use super::known::Known;
use super::session::Outcome;
use crate::recorder::format::Target;
use crate::recorder::messages::short;

/// Lines of one reason that are shown; the rest is counted.
const SHOWN: usize = 5;
/// Characters of a value that are shown.
const WIDTH: usize = 120;

/// See the [module](self).
pub struct Report {
    pub recorded: Target,
    pub endpoint: Target,
    pub speed: Option<f64>,
    pub took: Duration,
    pub warnings: Vec<String>,
    pub outcomes: Vec<Outcome>,
}

/// One difference as it is told.
struct Told<'a> {
    seq: u64,
    method: &'a str,
    path: &'a str,
    recorded: &'a Option<Value>,
    replayed: &'a Option<Value>,
    known: Option<&'static Known>,
}

impl Told<'_> {
    fn line(&self) -> String {
        let (recorded, replayed) = (shown(self.recorded), shown(self.replayed));
        format!("#{} {} {}: recorded {recorded}, replayed {replayed}", self.seq, self.method, self.path)
    }
}

fn shown(value: &Option<Value>) -> String {
    let text = match value {
        None => return "nothing".into(),
        Some(Value::String(text)) => text.replace('\n', "\\n"),
        Some(value) => value.to_string(),
    };
    match text.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => shortened(&text).to_owned(),
    }
}

/// The times of one method.
#[derive(Default)]
struct Times {
    recorded: Vec<Duration>,
    replayed: Vec<Duration>,
}

/// The value that `percent` of the sorted `times` are not above.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

impl Report {
    fn differences(&self) -> impl Iterator<Item = Told<'_>> {
        self.outcomes.iter().flat_map(|outcome| {
            outcome.found.iter().map(|found| Told {
                seq: outcome.seq,
                method: short(&outcome.method),
                path: &found.difference.path,
                recorded: &found.difference.recorded,
                replayed: &found.difference.replayed,
                known: found.known,
            })
        })
    }

    /// How many differences have no known reason.
    pub fn unexplained(&self) -> usize {
        self.differences().filter(|told| told.known.is_none()).count()
    }

    fn times(&self) -> BTreeMap<&str, Times> {
        let mut times: BTreeMap<&str, Times> = BTreeMap::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.answered && outcome.skipped.is_none()) {
            let of = times.entry(short(&outcome.method)).or_default();
            of.recorded.push(outcome.recorded);
            of.replayed.push(outcome.replayed);
        }
        for of in times.values_mut() {
            of.recorded.sort_unstable();
            of.replayed.sort_unstable();
        }
        times
    }

    fn lateness(&self) -> Vec<Duration> {
        let mut late: Vec<Duration> = self.outcomes.iter().map(|outcome| outcome.late).collect();
        late.sort_unstable();
        late
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let name = |target: &Target| format!("{} {}", target.runtime_name, target.runtime_version);
        let speed = self.speed.map_or("as fast as it went".to_owned(), |speed| format!("at {speed} times the speed"));
        let _ = writeln!(out, "Recorded from {}, replayed on {} {speed}.", name(&self.recorded), name(&self.endpoint));
        for warning in &self.warnings {
            let _ = writeln!(out, "Note: {warning}.");
        }
        self.differences_text(&mut out);
        self.skipped_text(&mut out);
        self.times_text(&mut out);
        let (all, unexplained) = (self.differences().count(), self.unexplained());
        let took = self.took.as_secs_f64();
        let _ = writeln!(
            out,
            "\n{} calls in {took:.1} s: {all} differences, {unexplained} of them unexplained.",
            self.outcomes.len()
        );
        out
    }

    fn differences_text(&self, out: &mut String) {
        let mut explained: BTreeMap<&str, (&'static str, Vec<String>)> = BTreeMap::new();
        let mut heading = "\nUnexplained:\n";
        for told in self.differences() {
            match told.known {
                Some(known) => explained.entry(known.name).or_insert((known.why, Vec::new())).1.push(told.line()),
                None => {
                    let _ = writeln!(out, "{heading}  {}", told.line());
                    heading = "";
                }
            }
        }
        for (name, (why, lines)) in explained {
            let _ = writeln!(out, "\n{name} ({}): {why}", lines.len());
            for line in lines.iter().take(SHOWN) {
                let _ = writeln!(out, "  {line}");
            }
            if lines.len() > SHOWN {
                let _ = writeln!(out, "  and {} more; --json has all", lines.len() - SHOWN);
            }
        }
    }

    fn skipped_text(&self, out: &mut String) {
        let mut skipped: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for outcome in &self.outcomes {
            if let Some(why) = outcome.skipped {
                *skipped.entry((short(&outcome.method), why)).or_default() += 1;
            }
        }
        if !skipped.is_empty() {
            let _ = writeln!(out, "\nNot compared:");
        }
        for ((method, why), count) in skipped {
            let _ = writeln!(out, "  {method} ({count}): {why}");
        }
    }

    fn times_text(&self, out: &mut String) {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let _ = writeln!(out, "\n{:<26} {:>6}   {:^19}   {:^19}", "ms", "", "p50", "p99");
        let (from, to) = ("recorded", "replayed");
        let _ = writeln!(out, "{:<26} {:>6}   {from:>9} {to:>9}   {from:>9} {to:>9}", "method", "calls");
        for (method, of) in self.times() {
            let at = |times: &[Duration], percent| ms(percentile(times, percent));
            let _ = writeln!(
                out,
                "{method:<26} {:>6}   {:>9} {:>9}   {:>9} {:>9}",
                of.recorded.len(),
                at(&of.recorded, 50),
                at(&of.replayed, 50),
                at(&of.recorded, 99),
                at(&of.replayed, 99),
            );
        }
        if self.speed.is_some() {
            let late = self.lateness();
            let _ = writeln!(
                out,
                "\nSent later than planned, ms: p50 {}, p99 {}, at most {}",
                ms(percentile(&late, 50)),
                ms(percentile(&late, 99)),
                ms(percentile(&late, 100)),
            );
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let ns = |time: Duration| time.as_nanos() as u64;
        let differences: Vec<Value> = self
            .differences()
            .map(|told| {
                json!({
                    "seq": told.seq, "method": told.method, "path": told.path,
                    "recorded": told.recorded, "replayed": told.replayed,
                    "class": told.known.map(|known| known.name), "why": told.known.map(|known| known.why),
                })
            })
            .collect();
        let latencies: Vec<Value> = self
            .times()
            .into_iter()
            .map(|(method, of)| {
                let at = |times: &[Duration]| json!({"p50_ns": ns(percentile(times, 50)), "p99_ns": ns(percentile(times, 99))});
                json!({"method": method, "calls": of.recorded.len(), "recorded": at(&of.recorded), "replayed": at(&of.replayed)})
            })
            .collect();
        let skipped: Vec<Value> = self
            .outcomes
            .iter()
            .filter_map(|outcome| {
                Some(json!({"seq": outcome.seq, "method": short(&outcome.method), "why": outcome.skipped?}))
            })
            .collect();
        let late = self.lateness();
        json!({
            "recorded": self.recorded, "endpoint": self.endpoint, "speed": self.speed, "took_ns": ns(self.took),
            "warnings": self.warnings, "calls": self.outcomes.len(), "unexplained": self.unexplained(),
            "differences": differences, "not_compared": skipped, "latencies": latencies,
            "late": {"p50_ns": ns(percentile(&late, 50)), "p99_ns": ns(percentile(&late, 99)), "max_ns": ns(percentile(&late, 100))},
        })
    }
}

#[cfg(test)]
mod tests;
