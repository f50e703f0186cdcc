//! Reads a recording: calls in the order of their begins, streams put together again.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::recorder::format::{Call, Cut, Dropped, FORMAT, Header, Line, Message, VERSION};

/// What a file holds.
#[derive(Debug, Default)]
pub struct Recording {
    pub header: Header,
    /// By the time of their begin.
    pub calls: Vec<Recorded>,
    /// What the recorder could not write.
    pub dropped: Dropped,
    /// Things that the reader should be told of.
    pub warnings: Vec<String>,
}

/// A call, with the messages of its stream.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    pub call: Call,
    pub messages: Vec<Message>,
}

impl Recorded {
    pub fn end_ns(&self) -> u64 {
        self.call.start_ns + self.call.took_ns
    }

    /// Whether its end was waited for by nobody: a stream that went on until somebody cut it.
    pub fn is_watch(&self) -> bool {
        self.call.cut.is_some() && crate::recorder::messages::method(&self.call.method).is_some_and(|m| m.streams)
    }
}

impl Recording {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        Self::read(BufReader::new(file)).with_context(|| format!("read {}", path.display()))
    }

    fn read(reader: impl std::io::BufRead) -> anyhow::Result<Self> {
        let mut lines = reader.lines().enumerate().peekable();
        let header = match lines.next() {
            Some((_, Ok(line))) => serde_json::from_str(&line).ok(),
            Some((_, Err(e))) => return Err(e.into()),
            None => None,
        };
        let Some(Line::Header(header)) = header else { bail!("this is no recording: its first line is no header") };
        if header.format != FORMAT {
            bail!("this is no recording: its format is {:?}", header.format);
        }
        if header.version > VERSION {
            bail!("it has version {} of the format; this program reads up to {VERSION}", header.version);
        }
        let mut read = Self { header, ..Default::default() };
        let (mut calls, mut whole) = (BTreeMap::new(), false);
        while let Some((at, line)) = lines.next() {
            let line = line?;
            match serde_json::from_str(&line) {
                Ok(line) => whole |= read.take(line, &mut calls),
                Err(_) if lines.peek().is_none() => read.warnings.push(format!("line {} is cut off", at + 1)),
                Err(e) => bail!("line {}: {e}", at + 1),
            }
        }
        if !whole {
            read.warnings.push("it has no footer: the recorder did not end in order".into());
        }
        if read.dropped.lines > 0 {
            read.warnings.push(format!("{} lines are missing in it", read.dropped.lines));
        }
        read.calls = calls.into_values().filter(|recorded: &Recorded| !recorded.call.method.is_empty()).collect();
        read.calls.sort_by_key(|recorded| (recorded.call.start_ns, recorded.call.seq));
        Ok(read)
    }

    /// Adds a line; whether it is the last one.
    fn take(&mut self, line: Line, calls: &mut BTreeMap<u64, Recorded>) -> bool {
        match line {
            Line::Header(_) => {}
            Line::Open(open) => {
                let call = &mut calls.entry(open.seq).or_default().call;
                (call.seq, call.method, call.start_ns) = (open.seq, open.method, open.start_ns);
                (call.request, call.request_bytes, call.deadline_ms) =
                    (open.request, open.request_bytes, open.deadline_ms);
                // Until its end is read.
                call.cut = Some(Cut::Recorder);
            }
            Line::Message(message) => {
                let recorded = calls.entry(message.seq).or_default();
                recorded.call.took_ns = message.at_ns.saturating_sub(recorded.call.start_ns);
                recorded.messages.push(message);
            }
            Line::Call(mut call) => {
                let recorded = calls.entry(call.seq).or_default();
                if call.request.is_empty() {
                    call.request = std::mem::take(&mut recorded.call.request);
                }
                recorded.call = call;
            }
            Line::Dropped(dropped) => {
                self.dropped.lines += dropped.lines;
                self.dropped.bytes += dropped.bytes;
            }
            Line::Footer(_) => return true,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        r#"{"kind":"header","format":"seam-flight-recording","version":1,"started":"","recorder":"","target":{}}"#;

    fn read(lines: &[&str]) -> anyhow::Result<Recording> {
        Recording::read(lines.join("\n").as_bytes())
    }

    #[test]
    fn calls_are_in_the_order_of_their_begins_and_streams_whole() {
        let watch = "/runtime.v1.RuntimeService/GetContainerEvents";
        let read = read(&[
            HEADER,
            &format!(r#"{{"kind":"open","seq":1,"method":"{watch}","start_ns":5,"request":{{"json":{{}}}}}}"#),
            r#"{"kind":"call","seq":3,"method":"/b","start_ns":20,"took_ns":1}"#,
            r#"{"kind":"message","seq":1,"at_ns":30,"response":{"json":{"container_id":"a"}}}"#,
            r#"{"kind":"call","seq":2,"method":"/a","start_ns":10,"took_ns":40}"#,
            r#"{"kind":"dropped","lines":2,"bytes":9}"#,
            &format!(r#"{{"kind":"call","seq":1,"method":"{watch}","start_ns":5,"took_ns":50,"cut":"client"}}"#),
            r#"{"kind":"footer","calls":3}"#,
        ])
        .unwrap();
        let order: Vec<u64> = read.calls.iter().map(|recorded| recorded.call.seq).collect();
        assert_eq!(order, [1, 2, 3]);
        let first = &read.calls[0];
        assert_eq!((first.messages.len(), first.end_ns(), first.call.cut), (1, 55, Some(Cut::Client)));
        assert!(first.is_watch() && first.call.request.json.is_some());
        assert_eq!((read.warnings.len(), read.dropped.lines), (1, 2));
    }

    #[test]
    fn what_is_no_recording_is_refused_and_what_was_cut_off_is_told() {
        for (lines, says) in [
            (vec![], "no header"),
            (vec!["{}"], "no header"),
            (vec![r#"{"kind":"call"}"#], "no header"),
            (vec![HEADER, "nonsense", r#"{"kind":"footer"}"#], "line 2"),
        ] {
            let error = read(&lines).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let newer = HEADER.replace("\"version\":1", "\"version\":2");
        assert!(read(&[&newer]).unwrap_err().to_string().contains("version 2"));
        let cut = read(&[HEADER, r#"{"kind":"call","seq":1,"method":"/a"}"#, r#"{"kind":"ca"#]).unwrap();
        assert_eq!((cut.calls.len(), cut.warnings.len()), (1, 2), "{:?}", cut.warnings);
    }
}
