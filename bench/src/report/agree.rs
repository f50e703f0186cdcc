//! Whether two runs say the same: their intervals of a difference have something in common.

use std::fmt;

use super::{Difference, Part, Report};

/// One difference, as both runs saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Of which experiment and which plot.
    pub of: String,
    pub unit: String,
    pub seen: [Difference; 2],
}

impl Agreement {
    pub fn agrees(&self) -> bool {
        let [one, other] = &self.seen;
        one.low <= other.high && other.low <= one.high
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [one, other] = self.seen.each_ref().map(|seen| seen.words(&self.unit));
        let verdict = if self.agrees() { "agree" } else { "DON'T AGREE" };
        write!(f, "{}, {}: {one} and {other}: {verdict}", self.of, self.seen[0].name)
    }
}

/// All differences that both have, in the order of the first.
pub fn agree(one: &Report, other: &Report) -> Vec<Agreement> {
    let others = all(other);
    let pair = |(of, unit, seen): (String, String, Difference)| {
        let same = others.iter().find(|(their, _, theirs)| *their == of && theirs.name == seen.name)?;
        Some(Agreement { of, unit, seen: [seen, same.2.clone()] })
    };
    all(one).into_iter().filter_map(pair).collect()
}

fn all(report: &Report) -> Vec<(String, String, Difference)> {
    let mut all = Vec::new();
    for experiment in &report.experiments {
        for part in &experiment.parts {
            if let Part::Differences(plot) = part {
                let of = format!("{}: {}", experiment.name, plot.title);
                all.extend(plot.rows.iter().map(|row| (of.clone(), plot.unit.clone(), row.clone())));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn intervals_that_touch_agree() {
        let one = fixture::report();
        let mut other = one.clone();
        for part in &mut other.experiments[0].parts {
            if let Part::Differences(plot) = part {
                plot.rows[0].low += 5.0;
                plot.rows[0].high += 5.0;
            }
        }
        let found = agree(&one, &other);
        assert_eq!(found.iter().map(Agreement::agrees).collect::<Vec<_>>(), [false, true]);
        let line = found[0].to_string();
        assert!(line.starts_with("calls: The hop, split - merged: ") && line.ends_with("DON'T AGREE"), "{line}");
        assert!(agree(&one, &one).iter().all(Agreement::agrees));
    }
}
