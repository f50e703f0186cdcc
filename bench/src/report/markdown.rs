//! The summary: sentences, tables and intervals; the plots are on the page.

use std::fmt::Write as _;

use super::{Distributions, Experiment, Part, Report, Table, Timelines, show};

pub fn render(report: &Report) -> String {
    let mut out = String::from("# What the hop between CRI and core costs\n\n");
    out.push_str(
        "Written by `make report`; the page with the plots and all samples lie beside each other in its folder.\n",
    );
    for sentence in &report.reading {
        let _ = writeln!(out, "{sentence}");
    }
    out.push_str("\n| what | |\n|---|---|\n");
    for fact in &report.facts {
        let _ = writeln!(out, "| {} | {} |", cell(&fact.name), cell(&fact.value));
    }
    for experiment in &report.experiments {
        section(&mut out, experiment);
    }
    out
}

fn section(out: &mut String, experiment: &Experiment) {
    let _ = writeln!(out, "\n## {}\n\n{}", experiment.title, experiment.question);
    if let Some(error) = &experiment.error {
        let _ = writeln!(out, "\n**It ended early:** {error}");
    }
    list(out, &experiment.findings);
    for part in &experiment.parts {
        match part {
            Part::Table(part) => table(out, part),
            Part::Distributions(part) => distributions(out, part),
            Part::Timelines(part) => timelines(out, part),
            Part::Differences(part) => {
                let rows: Vec<String> =
                    part.rows.iter().map(|row| format!("{}: {}", row.name, row.words(&part.unit))).collect();
                let _ = writeln!(out, "\n{}:", part.title);
                list(out, &rows);
            }
            Part::Lines(_) => {}
        }
    }
    if !experiment.notes.is_empty() {
        out.push_str("\nLimits:\n");
        list(out, &experiment.notes);
    }
    let _ = writeln!(out, "\nThis took {} s.", show(experiment.seconds));
}

fn list(out: &mut String, items: &[String]) {
    if !items.is_empty() {
        out.push('\n');
    }
    for item in items {
        let _ = writeln!(out, "- {item}");
    }
}

fn table(out: &mut String, table: &Table) {
    let columns: Vec<String> = table.columns.iter().map(|column| cell(column)).collect();
    let _ = writeln!(out, "\n{}:\n\n| {} |\n|{}", table.title, columns.join(" | "), "---|".repeat(columns.len()));
    for row in &table.rows {
        let cells: Vec<String> = row.cells.iter().map(|value| value.map_or_else(|| "–".to_owned(), show)).collect();
        let _ = writeln!(out, "| {} | {} |", cell(&row.name), cells.join(" | "));
    }
}

fn distributions(out: &mut String, part: &Distributions) {
    let _ = writeln!(out, "\n| {}, {} | samples | p50 | p99 |\n|---|---|---|---|", cell(&part.title), part.unit);
    for series in &part.series {
        let (p50, p99) = (show(series.p50), show(series.p99));
        let _ = writeln!(out, "| {} | {} | {p50} | {p99} |", cell(&series.name), series.samples.len());
    }
}

fn timelines(out: &mut String, part: &Timelines) {
    let _ = writeln!(out, "\n| {} | ms | of which on the way, ms |\n|---|---|---|", cell(&part.title));
    for lane in &part.lanes {
        let _ = writeln!(out, "| {} | {} | {} |", cell(&lane.name), show(lane.total_ms), show(lane.hop_ms));
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn all_but_curves_is_told() {
        let text = render(&fixture::report());
        for line in [
            "| commit | abc123 <dirty> |",
            "| method | p50, µs | bytes |\n|---|---|---|",
            "| Version.version | 0.875 | – |",
            "- split - merged: +2 ms [+1.9, +2.2]",
            "| Pods, ms | samples | p50 | p99 |",
            "| containerd | 4 | 13.2 | 99 |",
            "| split | 41.5 | 1.75 |",
            "**It ended early:** no room & no time",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(text.contains("not distinguishable"), "{text}");
    }
}
