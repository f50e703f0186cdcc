//! The blocking half of a log: moves bytes from FIFOs over spools into the log file.
//!
//! See the parent module for the protocol. Every public step leaves files from which [`Pump::open`] can go on, whatever
//! step a kill hits.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::LogInput;
use super::file::LogFile;
use super::format::{Ending, entries};
use super::journal::{Batch, Journal, Record};
use super::stream::{Stream, Writer, with_suffix};
use super::tap::{Feed, Output};

/// Bytes that one turn moves before others get theirs.
const TURN: usize = 1 << 20;
/// Bytes that are formatted at a time.
const BATCH: u64 = 256 << 10;
/// A spool smaller than this is not worth the calls that empty it.
const KEEP: u64 = 4 << 10;
/// Space of a busy spool that is given back at a time.
const TRIM: u64 = 1 << 20;
/// Limit of lines without a limit: what is held of an unfinished line must end somewhere.
const NO_LIMIT: usize = 16 << 20;

const NAMES: [&str; 2] = ["stdout", "stderr"];
const OUTPUTS: [Output; 2] = [Output::Stdout, Output::Stderr];

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// All FIFOs are empty. So many bytes were moved.
    Idle(usize),
    /// There may be more.
    More,
    /// The log takes nothing; the batch waits.
    Stuck(String),
}

pub(super) struct Pump {
    id: String,
    max: usize,
    streams: [Option<Stream>; 2],
    journal: (PathBuf, Journal),
    log: Option<LogFile>,
    /// Who else reads the output.
    feed: Feed,
    pending: Option<Pending>,
    /// Bytes given up since the log last took any.
    lost: u64,
    /// Whether the journal names a batch that is in the log already.
    stale: bool,
}

/// A batch on its way.
struct Pending {
    stream: usize,
    end: u64,
    text: Vec<u8>,
    written: usize,
    /// Length of the log before.
    length: u64,
}

impl Pump {
    /// Opens everything, and finishes the batch that was on its way when a former pump died.
    pub fn open(input: &LogInput, feed: Feed) -> io::Result<Self> {
        let paths = [input.stdout.as_deref(), input.stderr.as_deref()];
        let first = paths.iter().flatten().next().ok_or_else(|| io::Error::other("a log without a stream"))?;
        let journal_path = with_suffix(first, ".journal");
        let (journal, record) = Journal::open(&journal_path)?;
        let mut streams = [None, None];
        for (index, path) in paths.iter().enumerate() {
            if let Some(path) = path {
                streams[index] = Some(Stream::open(path, record.done[index], record.emptying[index])?);
            }
        }
        let mut pump = Self {
            id: input.id.clone(),
            max: usize::try_from(input.max_line).ok().filter(|max| (1..NO_LIMIT).contains(max)).unwrap_or(NO_LIMIT),
            streams,
            journal: (journal_path, journal),
            log: input.log_path.as_deref().map(LogFile::open).transpose()?,
            feed,
            pending: None,
            lost: 0,
            stale: true,
        };
        if let Some(batch) = record.batch {
            pump.finish(batch)?;
        }
        // What the disk refuses now is tried again with the first turn.
        let _ = pump.flush();
        pump.settle()?;
        Ok(pump)
    }

    /// The FIFOs, to wait for.
    pub fn fifos(&self) -> [Option<Arc<File>>; 2] {
        self.streams.each_ref().map(|stream| stream.as_ref().map(|stream| stream.fifo.clone()))
    }

    /// Takes what has been read for all there is.
    pub fn close(&mut self) {
        for stream in self.streams.iter_mut().flatten() {
            stream.state = Writer::Closed;
        }
    }

    pub fn closed(&self, stream: usize) -> bool {
        self.streams[stream].as_ref().is_none_or(|stream| stream.state == Writer::Closed)
    }

    /// Moves what is there into the log, up to a limit. `last`: a FIFO without a writer will never get one again.
    pub fn turn(&mut self, last: bool) -> io::Result<Turn> {
        let mut moved = 0;
        loop {
            if let Err(e) = self.flush() {
                return Ok(Turn::Stuck(e.to_string()));
            }
            let before = moved;
            for index in 0..2 {
                moved += self.stage(index, last)?;
                let ending = if self.closed(index) { Ending::Closed } else { Ending::Open };
                if let Err(e) = self.write_out(index, ending) {
                    return Ok(Turn::Stuck(e.to_string()));
                }
                self.trim(index, false)?;
            }
            if moved == before {
                self.trim(0, true)?;
                self.trim(1, true)?;
                self.settle()?;
                return Ok(Turn::Idle(moved));
            }
            if moved >= TURN {
                return Ok(Turn::More);
            }
        }
    }

    /// Step 1: from the FIFO to the spool; how many bytes.
    fn stage(&mut self, index: usize, last: bool) -> io::Result<usize> {
        let Some(stream) = self.streams[index].as_mut() else { return Ok(0) };
        let moved = stream.stage(last)?;
        if moved > 0 {
            self.feed.give(OUTPUTS[index], || stream.read(stream.size - moved as u64..stream.size));
        }
        Ok(moved)
    }

    /// Steps 2 and 3, for all whole entries in the spool: announce a batch, append it.
    fn write_out(&mut self, index: usize, ending: Ending) -> io::Result<()> {
        while self.announce(index, ending)? {
            self.flush()?;
        }
        Ok(())
    }

    /// Step 2: forms the next batch and writes it into the journal. Whether there is one.
    fn announce(&mut self, index: usize, ending: Ending) -> io::Result<bool> {
        let max = self.max;
        let Some(stream) = self.streams[index].as_mut() else { return Ok(false) };
        let Some(log) = &self.log else {
            (stream.done, stream.scanned) = (stream.size, stream.size);
            return Ok(false);
        };
        if !stream.ripe(max, ending)? {
            return Ok(false);
        }
        let window = stream.done..stream.size.min(stream.done + BATCH.max(max as u64 + 2));
        let ending = if window.end == stream.size { ending } else { Ending::Open };
        let text = stream.read(window)?;
        let nanos = now();
        let mut out = Vec::with_capacity(text.len() + text.len() / 2);
        let consumed = entries(&text, NAMES[index], nanos, max, ending, &mut out);
        if consumed == 0 {
            return Ok(false);
        }
        let end = stream.done + consumed as u64;
        let length = log.length()?;
        let batch = Batch { stream: index, end, nanos, max: max as u64, device: log.device, inode: log.inode, length };
        self.journal.1.write(&self.record(Some(batch)))?;
        self.stale = true;
        self.pending = Some(Pending { stream: index, end, text: out, written: 0, length });
        Ok(true)
    }

    /// Step 3: appends the announced batch. After an error it can be called again.
    fn flush(&mut self) -> io::Result<()> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        if let Some(log) = &mut self.log {
            while pending.written < pending.text.len() {
                match log.append(&pending.text[pending.written..]) {
                    Ok(0) => return self.keep(pending, io::ErrorKind::WriteZero.into()),
                    Ok(bytes) => pending.written += bytes,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return self.keep(pending, e),
                }
            }
        }
        if std::mem::take(&mut self.lost) > 0 {
            tracing::info!(container = self.id, "the log can be written again");
        }
        self.advance(pending.stream, pending.end);
        Ok(())
    }

    fn keep(&mut self, pending: Pending, error: io::Error) -> io::Result<()> {
        self.pending = Some(pending);
        Err(error)
    }

    fn advance(&mut self, index: usize, end: u64) {
        if let Some(stream) = &mut self.streams[index] {
            stream.done = end;
            stream.scanned = stream.scanned.max(end);
        }
    }

    /// Step 4: gives back the space of what is in the log. A busy spool becomes a hole from its beginning; an idle one
    /// that is wholly in the log begins anew.
    fn trim(&mut self, index: usize, idle: bool) -> io::Result<()> {
        let Some(stream) = &self.streams[index] else { return Ok(()) };
        let least = if idle { KEEP } else { TRIM };
        if stream.done == stream.size && stream.size >= least {
            let mut record = self.record(None);
            record.emptying[index] = true;
            self.journal.1.write(&record)?;
            if let Some(stream) = &mut self.streams[index] {
                stream.clear()?;
            }
            self.journal.1.write(&self.record(None))?;
            self.stale = false;
        } else if stream.done - stream.hole >= TRIM {
            // The journal must not name a batch whose bytes are gone.
            self.settle()?;
            if let Some(stream) = &mut self.streams[index] {
                stream.punch();
            }
        }
        Ok(())
    }

    /// Says in the journal that no batch is on its way.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.stale && self.pending.is_none() {
            self.journal.1.write(&self.record(None))?;
            self.stale = false;
        }
        Ok(())
    }

    fn record(&self, batch: Option<Batch>) -> Record {
        let done = self.streams.each_ref().map(|stream| stream.as_ref().map_or(0, |stream| stream.done));
        Record { done, emptying: [false; 2], batch }
    }

    /// Whether bytes are being given up.
    pub fn dropping(&self) -> bool {
        self.lost > 0
    }

    /// Gives up the batch that the log doesn't take, so that the container can go on. Reported once.
    pub fn give_up(&mut self, reason: &str) {
        let Some(pending) = self.pending.take() else { return };
        if let Some(log) = &self.log {
            // No torn line stays behind, if the disk lets us.
            if pending.written > 0 {
                let _ = log.cut(pending.length);
            }
            if self.lost == 0 {
                let path = log.path().display();
                tracing::error!(container = self.id, log = %path, error = reason, "the log can't be written: output is lost");
            }
        }
        self.lost += pending.text.len() as u64;
        self.advance(pending.stream, pending.end);
    }

    /// Goes on in a new file at the log's path. The old one ends with a whole entry.
    pub fn reopen(&mut self) -> io::Result<()> {
        if self.flush().is_err() {
            // The old file takes nothing more: its torn end goes, and the batch is written to the new one.
            if let (Some(pending), Some(log)) = (&mut self.pending, &self.log) {
                let _ = log.cut(pending.length);
                pending.written = 0;
            }
        }
        if let Some(log) = &mut self.log {
            log.reopen()?;
            if let Some(pending) = &mut self.pending {
                pending.length = log.length()?;
            }
        }
        self.stale = true;
        self.settle()
    }

    /// Deletes what only a restart would need. Call it when all is in the log.
    pub fn discard(self) {
        let spools = self.streams.iter().flatten().map(|stream| &stream.spool_path);
        for path in spools.chain([&self.journal.0]) {
            // The folder is removed with the container anyway.
            let _ = fs::remove_file(path);
        }
    }

    /// Finishes a batch of a former pump: whatever of it is missing at the end of its file is appended.
    fn finish(&mut self, batch: Batch) -> io::Result<()> {
        let (Some(stream), Some(current)) = (&self.streams[batch.stream], &self.log) else { return Ok(()) };
        if batch.end <= stream.done || batch.end > stream.size {
            return Ok(());
        }
        let text = stream.read(stream.done..batch.end)?;
        let max = usize::try_from(batch.max).unwrap_or(NO_LIMIT);
        let mut out = Vec::new();
        // A batch ends with an entry, be it a part of a line whose rest came later.
        entries(&text, NAMES[batch.stream], batch.nanos, max, Ending::Closed, &mut out);
        let mut pending = Pending { stream: batch.stream, end: batch.end, text: out, written: 0, length: batch.length };
        let present = current.length()?;
        match current.find(batch.device, batch.inode) {
            Some(file) => {
                let written = file.length()?.saturating_sub(batch.length);
                pending.written = usize::try_from(written).unwrap_or(usize::MAX).min(pending.text.len());
                let same = (file.device, file.inode) == (current.device, current.inode);
                let current = self.log.replace(file);
                self.pending = Some(pending);
                let failed = self.flush().is_err();
                self.log = current;
                if let Some(pending) = self.pending.as_mut().filter(|_| failed && !same) {
                    (pending.written, pending.length) = (0, present);
                }
            }
            // The file is gone, and nobody knows: rather twice than never.
            None => {
                pending.length = present;
                self.pending = Some(pending);
            }
        }
        Ok(())
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
