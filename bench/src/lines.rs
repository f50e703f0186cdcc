//! Output that shows whether any of it was lost, doubled or changed on its way into a CRI log.
//!
//! A chunk of numbered lines, written several times, and a last line. Chunks are made outside of the container, which
//! only copies them: making lines would cost more than what is measured.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

/// The last line.
pub const LAST: &str = "that is all";
/// Digits of a line's number.
const DIGITS: usize = 8;

#[derive(Debug, Clone, Copy)]
pub struct Lines {
    /// Bytes of a line, its newline included.
    pub length: usize,
    /// Lines in a chunk.
    pub lines: usize,
    pub chunks: usize,
}

impl Lines {
    /// About so many bytes of lines of this length; at least one line.
    pub fn new(bytes: usize, length: usize) -> Self {
        let lines = (bytes.min(10_000_000) / length).max(1);
        Self { length, lines, chunks: (bytes / (lines * length)).max(1) }
    }

    pub fn bytes(&self) -> usize {
        self.length * self.lines * self.chunks
    }

    pub fn chunk(&self) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(self.length * self.lines);
        for number in 0..self.lines {
            chunk.extend_from_slice(format!("{number:0DIGITS$}").as_bytes());
            chunk.resize(chunk.len() + self.length - DIGITS - 1, b'x');
            chunk.push(b'\n');
        }
        chunk
    }

    /// Reads a CRI log, which must hold all lines, and nothing else.
    pub fn check(&self, log: &Path) -> anyhow::Result<()> {
        let file = File::open(log).with_context(|| format!("open {}", log.display()))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut entry, mut line, mut seen) = (Vec::new(), Vec::new(), 0);
        while reader.read_until(b'\n', &mut entry)? > 0 {
            let whole = entry.strip_suffix(b"\n").context("the log ends within an entry")?;
            let mut words = whole.splitn(4, |byte| *byte == b' ').skip(1);
            ensure!(words.next() == Some(b"stdout".as_slice()), "line {seen}: not an entry of stdout");
            let (tag, text) = (words.next().context("no tag")?, words.next().context("no text")?);
            line.extend_from_slice(text);
            match tag {
                b"P" => (),
                b"F" => {
                    ensure!(self.is_line(seen, &line), "line {seen} is wrong: {} bytes", line.len());
                    seen += 1;
                    line.clear();
                }
                other => bail!("line {seen}: tag {other:?}"),
            }
            entry.clear();
        }
        let wanted = self.lines * self.chunks + 1;
        ensure!(seen == wanted && line.is_empty(), "the log has {seen} lines of {wanted}");
        Ok(())
    }

    fn is_line(&self, index: usize, line: &[u8]) -> bool {
        if index == self.lines * self.chunks {
            return line == LAST.as_bytes();
        }
        let number = format!("{:0DIGITS$}", index % self.lines);
        let filler = line.strip_prefix(number.as_bytes());
        line.len() == self.length - 1 && filler.is_some_and(|filler| filler.iter().all(|byte| *byte == b'x'))
    }
}

/// Whether the last line is in a CRI log.
pub fn is_whole(log: &Path) -> anyhow::Result<bool> {
    let end = format!(" stdout F {LAST}\n");
    let mut file = match File::open(log) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("open {}", log.display())),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(end.len() as u64)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail == end.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries for the text, of at most `max` bytes, and the last line.
    fn log(text: &[u8], max: usize) -> String {
        let mut log = String::new();
        for line in std::str::from_utf8(text).unwrap().lines().chain([LAST]) {
            let parts: Vec<&[u8]> = line.as_bytes().chunks(max).collect();
            for (index, part) in parts.iter().enumerate() {
                let tag = if index + 1 == parts.len() { 'F' } else { 'P' };
                log += &format!("2026-01-01T00:00:00Z stdout {tag} {}\n", std::str::from_utf8(part).unwrap());
            }
        }
        log
    }

    #[test]
    fn a_log_is_whole_or_told_what_it_lacks() {
        let lines = Lines::new(600, 100);
        assert_eq!((lines.lines, lines.chunks, lines.bytes()), (6, 1, 600));
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            lines.check(file.path()).map_err(|e| e.to_string())
        };
        let good = log(&lines.chunk(), 30);
        check(&good).unwrap();
        assert!(is_whole(file.path()).unwrap());
        check(&log(&lines.chunk()[..500], 30)).unwrap_err();
        assert_eq!(check(&log(&[lines.chunk(), lines.chunk()].concat(), 30)).unwrap_err(), "line 6 is wrong: 99 bytes");
        check(&good.replacen("x\n", "y\n", 1)).unwrap_err();
        check(&good[..good.len() - 1]).unwrap_err();
        assert!(!is_whole(file.path()).unwrap());
    }
}
