//! Follows a container's log, which is in the CRI format: `TIME STREAM P|F TEXT`, where `P` means that the line goes
//! on in the next one.

use std::io::{self, Write};
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// Reads a log from its beginning, as far as it is written.
pub struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// What was read of a line that is not whole yet.
    pending: Vec<u8>,
    printer: Printer,
}

/// Prints what the container wrote, each line with a prefix.
struct Printer {
    prefix: String,
    /// The last line printed is not at its end.
    inside: bool,
}

impl Follower {
    /// `prefix` is printed in front of each line; empty for none.
    pub fn new(path: PathBuf, prefix: String) -> Self {
        Self { path, file: None, pending: Vec::new(), printer: Printer { prefix, inside: false } }
    }

    /// Prints what is new to `out`; whether there was anything. A log that isn't there yet is empty.
    pub async fn advance(&mut self, out: &mut impl Write) -> io::Result<bool> {
        if self.file.is_none() {
            match File::open(&self.path).await {
                Ok(file) => self.file = Some(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        let mut any = false;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = file.read(&mut chunk).await?;
            if n == 0 {
                break;
            }
            any = true;
            self.pending.extend_from_slice(&chunk[..n]);
            let mut lines = self.pending.split_inclusive(|b| *b == b'\n').peekable();
            let mut used = 0;
            while let Some(line) = lines.next_if(|line| line.ends_with(b"\n")) {
                self.printer.line(line, out)?;
                used += line.len();
            }
            self.pending.drain(..used);
        }
        out.flush()?;
        Ok(any)
    }
}

impl Printer {
    /// One line of the log, with its end. A line in another format is printed as it is.
    fn line(&mut self, line: &[u8], out: &mut impl Write) -> io::Result<()> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (_time, _stream, tag, text) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (partial, text) = match (tag, text) {
            (Some(b"P"), Some(text)) => (true, text.strip_suffix(b"\n").unwrap_or(text)),
            (Some(b"F"), Some(text)) => (false, text),
            _ => (false, line),
        };
        if !self.inside {
            out.write_all(self.prefix.as_bytes())?;
        }
        self.inside = partial;
        out.write_all(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_joined_and_half_written_ones_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut follower = Follower::new(path.clone(), "[c] ".into());
        let mut out = Vec::new();
        assert!(!follower.advance(&mut out).await.unwrap());

        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"t stdout F one\nt stderr P two \nt stderr F halves\nt stdout F th").unwrap();
        assert!(follower.advance(&mut out).await.unwrap());
        assert_eq!(String::from_utf8_lossy(&out), "[c] one\n[c] two halves\n");
        out.clear();
        file.write_all(b"ree  spaces\nt stdout F \n").unwrap();
        assert!(follower.advance(&mut out).await.unwrap());
        assert_eq!(String::from_utf8_lossy(&out), "[c] three  spaces\n[c] \n");
        assert!(!follower.advance(&mut out).await.unwrap());
    }
}
