//! The page: one file without scripts, that asks for nothing else, in which every tag is closed.

use std::fmt::Write as _;

use super::svg::escape;
use super::{Experiment, Part, Report, Row, Table, plot, show};

const STYLE: &str = include_str!("style.css");

pub fn render(report: &Report) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>Seam: what the hop costs</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Seam: what the hop between CRI and core costs</h1>\n"
    );
    for sentence in &report.reading {
        let _ = writeln!(out, "<p class=\"soft\">{}</p>", escape(sentence));
    }
    out.push_str("<div class=\"scroll\"><table class=\"facts\"><tbody>\n");
    for fact in &report.facts {
        let _ = writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(&fact.name), escape(&fact.value));
    }
    out.push_str("</tbody></table></div>\n");
    for experiment in &report.experiments {
        section(&mut out, experiment);
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn section(out: &mut String, experiment: &Experiment) {
    let Experiment { name, title, question, seconds, findings, parts, notes, error, .. } = experiment;
    let _ = writeln!(out, "<section id=\"{}\">\n<h2>{}</h2>", escape(name), escape(title));
    let _ = writeln!(out, "<p class=\"question\">{}</p>", escape(question));
    if let Some(error) = error {
        let _ = writeln!(out, "<p class=\"error\">It ended early: {}</p>", escape(error));
    }
    list(out, "findings", findings);
    let (tables, plots): (Vec<&Part>, Vec<&Part>) = parts.iter().partition(|part| matches!(part, Part::Table(_)));
    out.push_str("<div class=\"plots\">\n");
    for part in plots {
        drawn(out, part);
    }
    out.push_str("</div>\n");
    for part in tables {
        drawn(out, part);
    }
    list(out, "soft", notes);
    let _ = writeln!(out, "<p class=\"soft\">This took {} s.</p>\n</section>", show(*seconds));
}

fn list(out: &mut String, class: &str, sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    let _ = writeln!(out, "<ul class=\"{class}\">");
    for sentence in sentences {
        let _ = writeln!(out, "<li>{}</li>", escape(sentence));
    }
    out.push_str("</ul>\n");
}

fn drawn(out: &mut String, part: &Part) {
    match part {
        Part::Table(table) => tabulated(out, table),
        Part::Distributions(drawn) => figure(out, &drawn.title, &plot::distributions(drawn)),
        Part::Lines(drawn) => figure(out, &drawn.title, &plot::lines(drawn)),
        Part::Differences(drawn) => figure(out, &drawn.title, &plot::differences(drawn)),
        Part::Timelines(drawn) => {
            for picture in plot::timelines(drawn) {
                figure(out, &drawn.title, &picture);
            }
        }
    }
}

fn figure(out: &mut String, title: &str, picture: &str) {
    let _ = writeln!(out, "<figure><figcaption>{}</figcaption>\n{picture}</figure>", escape(title));
}

fn tabulated(out: &mut String, table: &Table) {
    let _ = writeln!(out, "<h3>{}</h3>\n<div class=\"scroll\"><table><thead><tr>", escape(&table.title));
    for column in &table.columns {
        let _ = write!(out, "<th>{}</th>", escape(column));
    }
    out.push_str("</tr></thead><tbody>\n");
    for Row { name, cells } in &table.rows {
        let _ = write!(out, "<tr><th>{}</th>", escape(name));
        for cell in cells {
            let _ = write!(out, "<td>{}</td>", cell.map_or_else(|| "–".to_owned(), show));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::fixture;

    /// Tags and texts in turn; panics where a tag is not closed, or another is.
    fn texts(page: &str) -> Vec<(String, String)> {
        let (mut open, mut texts, mut rest) = (Vec::<String>::new(), Vec::new(), page);
        while let Some((text, after)) = rest.split_once('<') {
            let within = open.last().cloned().unwrap_or_default();
            if !text.trim().is_empty() {
                texts.push((within, text.to_owned()));
            }
            let (tag, after) = after.split_once('>').expect("a tag ends");
            rest = after;
            match tag.strip_prefix('/') {
                Some(name) => {
                    let last = open.pop().expect("something is open");
                    assert_eq!(last.split_whitespace().next(), Some(name), "is closed by </{name}>");
                }
                None if tag.starts_with('!') || tag.ends_with('/') => {}
                None => open.push(tag.to_owned()),
            }
        }
        assert!(open.is_empty(), "not closed: {open:?}");
        texts
    }

    /// What of a text looks like a number, as far as [`show`] would write it.
    fn numbers(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
        let words = words.map(|word| word.trim_matches('.'));
        words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
    }

    fn known(value: &serde_json::Value, all: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Number(number) => {
                all.insert(show(number.as_f64().expect("a number")).trim_start_matches('-').to_owned());
            }
            serde_json::Value::String(text) => all.extend(numbers(text)),
            serde_json::Value::Array(values) => values.iter().for_each(|value| known(value, all)),
            serde_json::Value::Object(map) => map.values().for_each(|value| known(value, all)),
            serde_json::Value::Null | serde_json::Value::Bool(_) => {}
        }
    }

    #[test]
    fn the_page_is_well_formed_and_says_nothing_that_is_not_in_the_json() {
        let report = fixture::report();
        let page = render(&report);
        let mut all = BTreeSet::new();
        known(&serde_json::to_value(&report).unwrap(), &mut all);
        let mut seen = 0;
        for (tag, text) in texts(&page) {
            if tag.starts_with("style") || tag.contains("class=\"tick\"") {
                continue;
            }
            for number in numbers(&text) {
                seen += 1;
                assert!(all.contains(&number), "{number} of {text:?} in <{tag}> is not in the JSON: {all:?}");
            }
        }
        assert!(seen > 20, "the page shows {seen} numbers");
    }

    #[test]
    fn the_page_asks_for_nothing() {
        let page = render(&fixture::report());
        for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link", "<iframe"] {
            assert!(!page.contains(outside), "{outside} is in the page");
        }
        assert!(page.contains("What a &lt;call&gt; costs &amp; why") && page.contains("no room &amp; no time"));
    }

    #[test]
    fn light_dark_and_phones_are_thought_of() {
        let page = render(&fixture::report());
        for what in ["prefers-color-scheme: dark", "width=device-width", "min(100%", "overflow-x: auto"] {
            assert!(page.contains(what), "{what} is missing");
        }
    }
}
