//! The sequence as text: a line an arrow, and below it the message in full.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::report::time;
use super::sequence::{Kind, Sequence};

/// Where the messages begin.
const INDENT: &str = "             │ ";

pub fn render(sequence: &Sequence) -> String {
    let mut out = format!("{}, wiring {}\n{}\n", sequence.title, sequence.wiring, sequence.id);
    for remark in &sequence.remarks {
        let _ = writeln!(out, "{remark}");
    }
    out.push('\n');
    for arrow in &sequence.arrows {
        let (from, to) = (arrow.from.name(), arrow.to.name());
        let between = match arrow.kind {
            Kind::Own => from.to_owned(),
            Kind::Message | Kind::Plain => format!("{from} ──▶ {to}"),
            Kind::Unseen => format!("{from} ··▶ {to}"),
            Kind::Answer => format!("{to} ◀── {from}"),
        };
        let _ = writeln!(out, "{:>11}  {between:<21}  {}", time(arrow.at_us), arrow.text);
        for line in arrow.message.iter().flat_map(|message| full(&message.text)) {
            let _ = writeln!(out, "{INDENT}{line}");
        }
    }
    out
}

/// A message with a line a field; none of an empty one.
fn full(text: &str) -> Vec<String> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) if fields.is_empty() => Vec::new(),
        Ok(value) => format!("{value:#}").lines().map(str::to_owned).collect(),
        Err(_) => vec![text.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequence::tests::told;
    use super::*;

    #[test]
    fn each_arrow_has_a_line_and_its_message_below() {
        let out = render(&Sequence::of(&told("split")));
        assert!(out.starts_with("shop/web, ready, wiring split\nab\n\n     0.0 ms  kubelet ──▶ CRI "), "{out}");
        assert!(out.contains("CRI ◀── core           60.0 ms, of it 2.0 ms on the way (2 B)\n"), "{out}");
        assert!(out.contains("│ {\n") && out.contains("│   \"container_id\": \"ab\",\n"), "{out}");
        assert!(out.contains("shim ··▶ runc "), "{out}");
    }
}
