//! The sequence as an SVG image that needs nothing else: no font, no script, no network.
//!
//! One row an arrow, from top to bottom in the order of time, not to scale; the time stands at the left. Below an arrow
//! the beginning of its message, in its tooltip (`<title>`) the whole. Light and dark by `prefers-color-scheme`.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::report::time;
use super::sequence::{Arrow, Kind, Sequence, Who, brief};

const WIDTH: usize = 1240;
/// The middle of the first lane, and from one to the next.
const FIRST_LANE: usize = 150;
const LANE: usize = 190;
/// Where frames and lanes begin, and the first arrow.
const TOP: usize = 84;
const FIRST_ROW: usize = 150;
/// Height of an arrow with its text, and of a line of its message.
const ROW: usize = 30;
const LINE: usize = 12;
/// Characters of a line, and lines, of a message.
const BRIEF: (usize, usize) = (96, 3);
/// Characters of a tooltip.
const TOOLTIP: usize = 16_000;

const STYLE: &str = "
svg { --paper: #ffffff; --ink: #1f2430; --faint: #8a91a0; --frame: #f0f2f6; --message: #b4500b; --plain: #1d5fb4; \
--bad: #c01c28; background: var(--paper); font: 13px system-ui, sans-serif; max-width: 100%; height: auto }
@media (prefers-color-scheme: dark) {
svg { --paper: #14171d; --ink: #e6e9ef; --faint: #7d8594; --frame: #1e232c; --message: #f5a35c; --plain: #7db4ff; \
--bad: #ff7b82 }
}
text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round }
.title { font-size: 18px; font-weight: 600 }
.lane { text-anchor: middle; font-weight: 600 }
.time { fill: var(--faint); text-anchor: end; font-size: 11px }
.small { fill: var(--faint); font-size: 11px }
.body { font: 10px ui-monospace, monospace; fill: var(--faint) }
.frame { fill: var(--frame) }
.life { stroke: var(--faint); stroke-dasharray: 2 4 }
.arrow { fill: none; stroke-width: 1.5 }
.message { stroke: var(--message); color: var(--message) }
.plain { stroke: var(--plain); color: var(--plain) }
.answer { stroke-dasharray: 6 4; stroke: var(--faint); color: var(--faint) }
.own { stroke: var(--faint); color: var(--faint) }
.unseen { stroke-dasharray: 1 4; stroke: var(--faint); color: var(--faint) }
.failed { stroke: var(--bad); color: var(--bad) }
";

pub fn render(sequence: &Sequence) -> String {
    let lanes = sequence.lanes();
    let mut rows = String::new();
    let mut y = FIRST_ROW;
    for arrow in &sequence.arrows {
        y += row(&mut rows, arrow, &lanes, y);
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         role=\"img\">\n<style>{STYLE}</style>\n"
    );
    let title = format!("{}, wiring {}", sequence.title, sequence.wiring);
    let _ = writeln!(out, "<title>{}</title>", escaped(&title));
    out.push_str(
        "<defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto\"><path d=\"M0 0 8 4 0 8Z\" fill=\"currentColor\" style=\"fill: context-stroke\"/></marker></defs>\n",
    );
    text(&mut out, "title", (20, 28), &title);
    text(&mut out, "small", (20, 48), &legend(sequence));
    text(&mut out, "small", (20, 66), &sequence.remarks.join(" "));
    for (name, first, last) in frames(sequence, &lanes) {
        let (x, width) = (first - LANE / 2 + 6, last - first + LANE - 12);
        let _ = writeln!(
            out,
            "<rect class=\"frame\" x=\"{x}\" y=\"{TOP}\" width=\"{width}\" height=\"{}\" rx=\"8\"/>",
            y - TOP
        );
        text(&mut out, "small", (x + 8, TOP + 16), name);
    }
    for (at, who) in lanes.iter().enumerate() {
        let x = lane_x(at);
        let _ = writeln!(out, "<path class=\"life\" d=\"M{x} {}V{y}\"/>", TOP + 44);
        text(&mut out, "lane", (x, TOP + 36), who.name());
    }
    out + &rows + "</svg>\n"
}

/// What the arrows are.
fn legend(sequence: &Sequence) -> String {
    let hop = match sequence.wiring.as_str() {
        "merged" => "CRI and core are one process: between them a plain call (blue)",
        "loopback" => "CRI and core are one process, with gRPC through a pipe between them (orange)",
        _ => "between CRI and core gRPC through a socket (orange)",
    };
    format!(
        "{hop}. Orange: an encoded message; blue: a call or a program; dashed: an answer. Point at one to see all of it."
    )
}

/// Processes: name, and the middle of their first and last lane.
fn frames(sequence: &Sequence, lanes: &[Who]) -> Vec<(&'static str, usize, usize)> {
    let x = |who: Who| lanes.iter().position(|lane| *lane == who).map(lane_x);
    match (x(Who::Cri), x(Who::Core)) {
        (Some(cri), Some(core)) if sequence.one_process() => vec![("core-daemon, one process", cri, core)],
        (cri, core) => [("cri-daemon", cri), ("core-daemon", core)]
            .into_iter()
            .filter_map(|(name, x)| Some((name, x?, x?)))
            .collect(),
    }
}

fn lane_x(at: usize) -> usize {
    FIRST_LANE + at * LANE
}

/// Draws an arrow; the height that it takes.
fn row(out: &mut String, arrow: &Arrow, lanes: &[Who], y: usize) -> usize {
    let x = |who: Who| lane_x(lanes.iter().position(|lane| *lane == who).unwrap_or_default());
    let (from, to) = (x(arrow.from), x(arrow.to));
    let class = match (arrow.kind, arrow.failed) {
        (Kind::Answer, true) => "answer failed",
        (_, true) => "failed",
        (Kind::Message, _) => "message",
        (Kind::Plain, _) => "plain",
        (Kind::Answer, _) => "answer",
        (Kind::Own, _) => "own",
        (Kind::Unseen, _) => "unseen",
    };
    out.push_str("<g>");
    if let Some(message) = &arrow.message {
        let whole = serde_json::from_str::<Value>(&message.text).map_or(message.text.clone(), |v| format!("{v:#}"));
        let whole: String = whole.chars().take(TOOLTIP).collect();
        let _ = write!(out, "<title>{}</title>", escaped(&format!("{}\n{whole}", message.r#type)));
    }
    text(out, "time", (74, y), &time(arrow.at_us));
    let path = match arrow.kind {
        Kind::Own => format!("M{from} {} h14 v8 h-13", y - 8),
        Kind::Message | Kind::Plain | Kind::Answer | Kind::Unseen => format!("M{from} {y}H{to}"),
    };
    let _ = writeln!(out, "<path class=\"arrow {class}\" d=\"{path}\" marker-end=\"url(#head)\"/>");
    let left = from.min(to) + 10;
    let at = if arrow.kind == Kind::Own { (left + 12, y) } else { (left, y - 5) };
    text(out, "", at, &arrow.text);
    let lines = match &arrow.message {
        Some(message) if message.text != "{}" => brief(message, BRIEF.0, BRIEF.1),
        Some(_) | None => Vec::new(),
    };
    for (at, line) in lines.iter().enumerate() {
        text(out, "body", (left, y + LINE * (at + 1)), line);
    }
    out.push_str("</g>\n");
    ROW + lines.len() * LINE
}

fn text(out: &mut String, class: &str, (x, y): (usize, usize), text: &str) {
    if !text.is_empty() {
        let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
    }
}

/// Text in XML, without characters that XML does not have.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::super::sequence::tests::told;
    use super::*;

    #[test]
    fn every_arrow_is_a_row_and_text_is_escaped() {
        let sequence = Sequence::of(&told("split"));
        let out = render(&sequence);
        assert_eq!(out.matches("<path class=\"arrow").count(), sequence.arrows.len());
        assert_eq!(out.matches("class=\"frame\"").count(), 2);
        assert!(out.contains("{container_id: ab, note: &lt;a &amp; b&gt;}") && !out.contains("<a & b>"), "{out}");
        assert!(out.contains("prefers-color-scheme: dark") && out.ends_with("</svg>\n"));
        assert_eq!(escaped("a\u{1}\"b\n"), "a\u{fffd}&quot;b\n");
    }

    #[test]
    fn one_process_is_one_frame() {
        let out = render(&Sequence::of(&told("merged")));
        assert!(out.matches("class=\"frame\"").count() == 1 && out.contains("core-daemon, one process"), "{out}");
    }
}
