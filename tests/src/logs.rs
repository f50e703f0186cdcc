//! The CRI log format: `<RFC3339Nano> stdout|stderr P|F <text>`.

use std::path::Path;

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub time: String,
    pub stream: String,
    /// `F`: the text's line is complete; `P`: it goes on.
    pub tag: String,
    pub text: String,
}

/// Reads a log file; every line must be well formed, and the times must not go back within a stream.
pub fn read(path: &Path) -> Vec<Line> {
    let text = load(path);
    assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a line", path.display());
    check(path, &text)
}

/// Like [`read`], while somebody still writes: a last line without its end is left out.
pub fn read_live(path: &Path) -> Vec<Line> {
    let text = load(path);
    check(path, &text[..text.rfind('\n').map_or(0, |end| end + 1)])
}

fn load(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

fn check(path: &Path, text: &str) -> Vec<Line> {
    let lines: Vec<Line> = text.lines().map(|line| parse(path, line)).collect();
    for stream in ["stdout", "stderr"] {
        let times: Vec<&str> = lines.iter().filter(|l| l.stream == stream).map(|l| l.time.as_str()).collect();
        assert!(times.is_sorted_by_key(|t| instant(t)), "{}: times of {stream} go back", path.display());
    }
    lines
}

fn parse(path: &Path, line: &str) -> Line {
    let mut words = line.splitn(4, ' ');
    let mut next = || words.next().unwrap_or_else(|| panic!("{}: not a CRI log line: {line:?}", path.display()));
    let parsed = Line { time: next().into(), stream: next().into(), tag: next().into(), text: next().into() };
    assert!(["stdout", "stderr"].contains(&parsed.stream.as_str()), "{}: stream in {line:?}", path.display());
    assert!(["P", "F"].contains(&parsed.tag.as_str()), "{}: tag in {line:?}", path.display());
    let time = &parsed.time;
    assert!(time.len() >= 20 && &time[10..11] == "T" && time.is_ascii(), "{}: time in {line:?}", path.display());
    parsed
}

/// A time as something that sorts: seconds as text, nanoseconds as a number. All times of one log have one zone.
fn instant(time: &str) -> (String, u32) {
    let fraction: String =
        time[19..].strip_prefix('.').unwrap_or("").chars().take_while(char::is_ascii_digit).collect();
    (time[..19].to_owned(), format!("{fraction:0<9}").parse().expect("digits"))
}

/// The text of a stream, partial lines joined.
pub fn text(lines: &[Line], stream: &str) -> String {
    let mut out = String::new();
    for line in lines.iter().filter(|l| l.stream == stream) {
        out += &line.text;
        if line.tag == "F" {
            out.push('\n');
        }
    }
    out
}

/// Checks that the numbers 1, 2, 3, … follow each other on `stdout` without a gap, a repeat or a break; answers the last.
#[track_caller]
pub fn assert_sequence(lines: &[Line]) -> u64 {
    let mut last = 0;
    for line in text(lines, "stdout").lines() {
        let number: u64 = line.trim().parse().unwrap_or_else(|_| panic!("after {last} comes {line:?}"));
        assert_eq!(number, last + 1, "after {last} comes {number}");
        last = number;
    }
    last
}
