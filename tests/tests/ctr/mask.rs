//! What differs between any two daemons: times, paths, process numbers, made up names.

use std::borrow::Cow;

use e2e::World;
use regex::Regex;

/// Replaces them in what one world's `ctr` said.
#[derive(Debug)]
pub struct Mask {
    words: Vec<(String, &'static str)>,
    patterns: Vec<(Regex, &'static str)>,
}

/// Patterns and what stands for them, in this order.
const PATTERNS: &[(&str, &str)] = &[
    // Colours and movements of a terminal's cursor.
    (r"\x1b\[[0-9;]*[A-Za-z]", ""),
    // The progress of a transfer: it depends on the moment.
    (r"(?m)^.*\|[+-]*\|.*\n", ""),
    (r"(?m)^elapsed: .*\n", ""),
    // It was being asked for when the transfer ended.
    (r#"(?m)^.*msg="(active check failed|failed to get content info)" error="context canceled"\n"#, ""),
    // A size of a terminal that comes too late.
    (r"(?m)^.*resize pty error=.*\n", ""),
    // Times as JSON, Go and tables write them.
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( \+0000 UTC|Z|[+-]\d\d:\d\d)?", "TIME"),
    // Ids of daemons, and of leases as daemons and Go clients make them up.
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "MADE-UP"),
    (r"\b\d{1,9}-[A-Za-z0-9_-]{4}\b", "MADE-UP"),
    // A row of `tasks ls`, and one of `tasks ps`.
    (r"(?m)^(\S+ +)\d+( +(CREATED|RUNNING|STOPPED|PAUSED))", "${1}PID${2}"),
    (r"(?m)^\d+( +(-|&ProcessDetails))", "PID${1}"),
    (r#""pid":\d+"#, r#""pid":PID"#),
    (r"/snapshots/\d+/", "/snapshots/N/"),
    (r"/fifos?/\d+/", "/fifo/N/"),
    (r"/containerd-mount\d+", "/containerd-mountN"),
    (r"(?m)^done: [0-9.]+[mµ]?s", "done: TOOK"),
    // Ages of content.
    (r"\t(Less than a second|(About )?\w+ (second|minute)s?)\b", "\tAGE"),
    // Columns are as wide as their widest cell.
    (r"[ \t]+", " "),
    (r"(?m) $", ""),
];

impl Mask {
    pub fn of(world: &World) -> Self {
        let words = vec![
            (world.paths.dir.display().to_string(), "DIR"),
            (world.registry.address().to_string(), "REGISTRY"),
            (format!("{}-", world.slot.name()), ""),
        ];
        let compile = |(pattern, by): &(&str, &'static str)| (Regex::new(pattern).expect("a pattern"), *by);
        Self { words, patterns: PATTERNS.iter().map(compile).collect() }
    }

    pub fn apply(&self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        for (word, by) in &self.words {
            text = text.replace(word, by).into();
        }
        for (pattern, by) in &self.patterns {
            text = pattern.replace_all(&text, *by).into_owned().into();
        }
        text.into_owned()
    }
}
