//! The cost card: what one call of each method costs in each wiring.

use std::collections::BTreeMap;

use crate::kernel::Counts;
use crate::report::{Difference, Differences, Row, Table, rounded};
use crate::stats::percentile;
use crate::trio::WIRINGS;

/// One method; by wiring, in the order of [`WIRINGS`].
#[derive(Default)]
pub struct Costs {
    pub name: String,
    /// In the card's unit.
    pub times: [Vec<f64>; 3],
    pub kernel: [Option<Counts>; 3],
    /// Calls of the allocator.
    pub allocations: [Option<f64>; 3],
    /// Encoded bytes towards the core, and back.
    pub bytes: [Option<[f64; 2]>; 3],
    /// Calls on the core that one call makes, and their encoded bytes both ways.
    pub crossings: [Option<f64>; 3],
    pub seam_bytes: [Option<f64>; 3],
}

/// The methods in the order in which they were called first.
pub struct Card {
    pub unit: &'static str,
    pub rows: Vec<Costs>,
}

impl Card {
    pub fn row(&mut self, name: &str) -> &mut Costs {
        let found = self.rows.iter().position(|row| row.name == name);
        let index = found.unwrap_or_else(|| {
            self.rows.push(Costs { name: name.to_owned(), ..Costs::default() });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    pub fn latency(&self, title: &str) -> Table {
        let mut columns = vec!["method".to_owned()];
        for p in ["p50", "p99"] {
            columns.extend(WIRINGS.map(|wiring| format!("{} {p}, {}", wiring.name(), self.unit)));
        }
        for other in ["split", "loopback"] {
            columns.push(format!("{other} - merged, {}", self.unit));
            columns.extend(["from", "to"].map(String::from));
        }
        let rows = self.rows.iter().map(|row| {
            let mut cells: Vec<Option<f64>> = Vec::new();
            for p in [0.5, 0.99] {
                cells.extend(row.times.each_ref().map(|times| Some(percentile(times, p))));
            }
            for side in 0..2 {
                let found = Difference::new("", &row.times[side], &row.times[2]);
                cells.extend(found.map_or([None; 3], |d| [d.median, d.low, d.high].map(Some)));
            }
            Row { name: row.name.clone(), cells }
        });
        Table { title: title.to_owned(), columns, rows: rows.collect() }
    }

    /// What but time it costs. What was measured of no method has no column.
    pub fn costs(&self, title: &str) -> Table {
        type Of = fn(&Costs, usize) -> Option<f64>;
        let kinds: [(&str, Of); 8] = [
            ("calls on the core", |row, side| row.crossings[side]),
            ("bytes over the seam", |row, side| row.seam_bytes[side]),
            ("bytes to the core", |row, side| Some(row.bytes[side]?[0])),
            ("bytes back", |row, side| Some(row.bytes[side]?[1])),
            ("allocations", |row, side| row.allocations[side]),
            ("system calls", |row, side| Some(row.kernel[side]?.syscalls)),
            ("context switches", |row, side| Some(row.kernel[side]?.switches)),
            ("fsyncs", |row, side| Some(row.kernel[side]?.syncs)),
        ];
        let mut columns = vec!["method".to_owned()];
        let mut used: Vec<(usize, Of)> = Vec::new();
        for (what, of) in kinds {
            for side in (0..3).filter(|side| self.rows.iter().any(|row| of(row, *side).is_some())) {
                columns.push(format!("{what}, {}", WIRINGS[side].name()));
                used.push((side, of));
            }
        }
        let rows = self.rows.iter().map(|row| {
            let cells = used.iter().map(|(side, of)| of(row, *side)).collect();
            Row { name: row.name.clone(), cells }
        });
        Table { title: title.to_owned(), columns, rows: rows.collect() }
    }

    /// What `split` and `loopback` add to some of the methods.
    pub fn differences(&self, title: &str, methods: &[&str]) -> Differences {
        let chosen = self.rows.iter().filter(|row| methods.contains(&row.name.as_str()));
        let rows = chosen.flat_map(|row| {
            [0, 1].map(|side| {
                let name = format!("{} {}", WIRINGS[side].name(), row.name);
                Difference::new(&name, &row.times[side], &row.times[2])
            })
        });
        Differences { title: title.to_owned(), unit: self.unit.to_owned(), rows: rows.flatten().collect() }
    }

    pub fn raw(&self) -> BTreeMap<String, Vec<f64>> {
        let mut raw = BTreeMap::new();
        for row in &self.rows {
            for (wiring, times) in WIRINGS.iter().zip(&row.times) {
                raw.insert(format!("{}/{}, {}", wiring.name(), row.name, self.unit), rounded(times));
            }
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_shows_what_was_measured_and_no_more() {
        let mut card = Card { unit: "µs", rows: Vec::new() };
        for (side, times) in [[5.0, 6.0, 7.0], [2.0, 3.0, 4.0], [1.0, 2.0, 3.0]].into_iter().enumerate() {
            card.row("Tasks.get").times[side] = times.to_vec();
        }
        card.row("Tasks.get").bytes[0] = Some([10.0, 20.0]);
        assert_eq!(card.rows.len(), 1);
        let latency = card.latency("t");
        assert_eq!(latency.columns.len(), 1 + latency.rows[0].cells.len());
        assert_eq!((latency.rows[0].cells[0], latency.rows[0].cells[6]), (Some(6.0), Some(4.0)));
        let costs = card.costs("t");
        assert_eq!(costs.columns, ["method", "bytes to the core, split", "bytes back, split"]);
        assert_eq!(costs.rows[0].cells, [Some(10.0), Some(20.0)]);
        assert_eq!(card.differences("d", &["Tasks.get"]).rows.len(), 2);
        assert_eq!(card.raw()["merged/Tasks.get, µs"], [1.0, 2.0, 3.0]);
    }
}
