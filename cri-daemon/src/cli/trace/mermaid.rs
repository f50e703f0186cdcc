//! The sequence as a Mermaid `sequenceDiagram`: <https://mermaid.js.org/syntax/sequenceDiagram.html>.
//!
//! Messages stand in notes, shortened: Mermaid draws whatever it is given, at any size.

use std::fmt::Write as _;

use super::sequence::{Kind, Sequence, Who, brief};

/// Size of a note.
const WIDTH: usize = 72;
const LINES: usize = 4;

pub fn render(sequence: &Sequence) -> String {
    let mut out = String::from("sequenceDiagram\n");
    let _ = writeln!(out, "    title {}", escaped(&format!("{}, wiring {}", sequence.title, sequence.wiring)));
    let lanes = sequence.lanes();
    for who in &lanes {
        let boxed = sequence.one_process() && lanes.contains(&Who::Core);
        if boxed && *who == Who::Cri {
            out.push_str("    box transparent core-daemon, one process\n");
        }
        let _ = match who.name() {
            name if name == id(*who) => writeln!(out, "    participant {name}"),
            name => writeln!(out, "    participant {} as {name}", id(*who)),
        };
        if boxed && *who == Who::Core {
            out.push_str("    end\n");
        }
    }
    for remark in &sequence.remarks {
        if let Some(first) = lanes.first() {
            let _ = writeln!(out, "    Note over {}: {}", id(*first), escaped(remark));
        }
    }
    for arrow in &sequence.arrows {
        let line = match (arrow.kind, arrow.failed) {
            (_, true) => "--x",
            (Kind::Message | Kind::Plain | Kind::Own, _) => "->>",
            (Kind::Answer, _) => "-->>",
            (Kind::Unseen, _) => "--)",
        };
        let (from, to) = (id(arrow.from), id(arrow.to));
        let _ = writeln!(out, "    {from}{line}{to}: {}", escaped(&arrow.text));
        let Some(message) = &arrow.message else { continue };
        let lines: Vec<String> = brief(message, WIDTH, LINES).iter().map(|line| escaped(line)).collect();
        if message.text != "{}" {
            let (left, right) = if arrow.from < arrow.to { (from, to) } else { (to, from) };
            let _ = writeln!(out, "    Note over {left},{right}: {}", lines.join("<br/>"));
        }
    }
    out
}

/// The name within the diagram: one word.
fn id(who: Who) -> &'static str {
    match who {
        Who::Plugins => "CNI",
        Who::Kubelet | Who::Cri | Who::Core | Who::Shim | Who::Engine => who.name(),
    }
}

/// What Mermaid would take for its own is written as an entity, in its form.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '#' | ';' | '<' | '>' | '%' | '&' | '"' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c if c.is_control() => out.push(' '),
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
    fn participants_come_first_and_calls_in_order() {
        let out = render(&Sequence::of(&told("split")));
        let lines: Vec<&str> = out.lines().map(str::trim).collect();
        assert_eq!(lines[..3], ["sequenceDiagram", "title shop/web, ready, wiring split", "participant kubelet"]);
        assert_eq!(lines[7], "participant CNI as CNI plugins");
        assert_eq!(lines[8], "kubelet->>CRI: gRPC RunPodSandbox");
        assert_eq!(lines[10], "CRI->>core: gRPC Tasks.create (1.5 KiB)");
        assert_eq!(lines[11], "Note over CRI,core: {container_id: ab, note: #60;a #38; b#62;}");
        assert_eq!(lines.last(), Some(&"CRI--xkubelet: StartContainer failed after 5.0 ms: no such file"));
        assert!(!out.contains("box transparent"), "{out}");
    }

    #[test]
    fn one_process_is_one_box() {
        let out = render(&Sequence::of(&told("merged")));
        let boxed =
            "    box transparent core-daemon, one process\n    participant CRI\n    participant core\n    end\n";
        assert!(out.contains(boxed), "{out}");
    }
}
