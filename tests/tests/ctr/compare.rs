//! What our core says beside what containerd says.

use regex::Regex;

use crate::differences::{DIFFERENCES, Difference, WORDINGS};
use crate::transcript::{Said, Script, Step, Transcript};

/// Every difference that the tables do not name, and every entry of the tables that is not true any more.
pub fn compare(scripts: &[Script], theirs: &[Transcript], ours: &[Transcript]) -> Vec<String> {
    let mut failures = Vec::new();
    let mut used = vec![false; DIFFERENCES.len()];
    let mut wordings = Wordings::new();
    let mut commands = 0;
    for ((script, theirs), ours) in scripts.iter().zip(theirs).zip(ours) {
        if let Some(command) = &script.lacks {
            note(&format!("ctr {}: skipped, `{command}` fails here", script.name));
            continue;
        }
        for ((step, theirs), ours) in script.steps.iter().zip(&theirs.0).zip(&ours.0) {
            commands += 1;
            let place = format!("{}.txt:{}: {}", script.name, step.line, step.command);
            if (theirs.code == 0) == step.refused {
                failures.push(format!("{place}\n  is no fair test: containerd says\n{}", indented(&theirs.lines())));
                continue;
            }
            let (theirs, ours) = wordings.translate(theirs, ours);
            let left = unexplained(script, step, &differing(&theirs, &ours), &mut used);
            if !left.is_empty() {
                failures.push(format!("{place}\n{}", indented(&left)));
            }
        }
    }
    let whole = scripts.len() > 1;
    for (difference, _) in DIFFERENCES.iter().zip(used).filter(|(_, used)| whole && !used) {
        let Difference { script, command, why, .. } = difference;
        failures.push(format!("{script}.txt: {command}: does not differ any more ({why})"));
    }
    if whole {
        failures.extend(wordings.unused());
    }
    note(&format!("ctr: {commands} commands compared, {} of them differ", failures.len()));
    failures
}

/// The table of sentences, compiled, and whether each was said by both.
struct Wordings(Vec<([Regex; 2], &'static str, [bool; 2])>);

impl Wordings {
    fn new() -> Self {
        let compile = |pattern: &str| Regex::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        let all = WORDINGS.iter().map(|w| ([compile(w.theirs), compile(w.ours)], w.meaning, [false; 2]));
        Self(all.collect())
    }

    /// What both said as lines, each sentence of the table replaced by its meaning.
    fn translate(&mut self, theirs: &Said, ours: &Said) -> (Vec<String>, Vec<String>) {
        let mut both = [theirs, ours].map(Said::lines);
        for (patterns, meaning, used) in &mut self.0 {
            for ((lines, pattern), used) in both.iter_mut().zip(patterns).zip(used) {
                for line in lines {
                    if pattern.is_match(line) {
                        *used = true;
                        *line = pattern.replace_all(line, format!("<{meaning}>")).into_owned();
                    }
                }
            }
        }
        let [theirs, ours] = both;
        (theirs, ours)
    }

    fn unused(self) -> impl Iterator<Item = String> {
        let unused = self.0.into_iter().filter(|(_, _, used)| *used != [true; 2]);
        unused.map(|(_, meaning, used)| format!("the words for {meaning:?} are not said by both: {used:?}"))
    }
}

/// A line for whoever reads the output of the tests, which the harness would keep to itself.
fn note(line: &str) {
    use std::io::Write as _;
    // Nothing is lost if it can't be written.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

/// The lines that only one side has: `- theirs`, `+ ours`. What both have in another order is a difference too.
fn differing(theirs: &[String], ours: &[String]) -> Vec<String> {
    // The length of the longest common part of what is left of both.
    let mut common = vec![vec![0usize; ours.len() + 1]; theirs.len() + 1];
    for i in (0..theirs.len()).rev() {
        for j in (0..ours.len()).rev() {
            common[i][j] = match theirs[i] == ours[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < theirs.len() || j < ours.len() {
        if i < theirs.len() && j < ours.len() && theirs[i] == ours[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == ours.len() || i < theirs.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(format!("- {}", theirs[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", ours[j]));
            j += 1;
        }
    }
    lines
}

/// The lines that no entry of the table allows.
fn unexplained(script: &Script, step: &Step, lines: &[String], used: &mut [bool]) -> Vec<String> {
    let mut left = lines.to_vec();
    for (difference, used) in DIFFERENCES.iter().zip(used) {
        if matches(difference.script, &script.name) && matches(difference.command, &step.command) {
            left.retain(|line| {
                let allowed = difference.lines.iter().any(|pattern| matches(pattern, line));
                *used |= allowed;
                !allowed
            });
        }
    }
    left
}

/// Whether `text` is `pattern`, in which each `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let (first, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
    let Some(mut text) = text.strip_prefix(first) else { return false };
    if !pattern.contains('*') {
        return text.is_empty();
    }
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}
