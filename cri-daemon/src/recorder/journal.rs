//! From calls to the file: a bounded queue, and one thread that turns what it gets into lines.
//!
//! The side of the calls never waits: [`Journal::tell`] puts an event into the queue or drops and counts it. Decoding,
//! redacting and writing happen on the thread. A file that can't be written (a full disk) is cut back to its last whole
//! line and tried again with the next batch; what was lost meanwhile is counted in a line of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;

use super::event::Event;
use super::format::{Dropped, Footer, Header, Line};
use super::frames::Room;
use super::lines::Lines;

/// Events that may wait for the thread, and bytes of messages in them and in calls under way.
const QUEUE: usize = 16 << 10;
const ROOM: usize = 64 << 20;
/// Bytes that are written at once, at most and about.
const BATCH: usize = 256 << 10;

/// Where calls are told. Cheap to clone; the thread ends when the last clone is gone.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    queue: mpsc::Sender<Event>,
    room: Room,
    started: Instant,
    next: AtomicU64,
    ending: AtomicBool,
    lost: Arc<Lost>,
}

/// What was dropped since it was last written down.
#[derive(Debug, Default)]
struct Lost {
    lines: AtomicU64,
    bytes: AtomicU64,
}

/// What a recording was, in the end.
#[derive(Debug, Clone, Copy)]
pub struct Total {
    pub calls: u64,
    pub dropped: Dropped,
}

impl Journal {
    /// Begins a recording in `file`, which is empty.
    pub fn begin(file: File, path: &Path, header: Header, lines: Lines) -> io::Result<(Self, JoinHandle<Total>)> {
        let lost = Arc::new(Lost::default());
        let mut writer = Writer {
            file,
            path: path.to_owned(),
            good: 0,
            complained: false,
            batch: Vec::new(),
            waiting: 0,
            lost: lost.clone(),
        };
        writer.add(&Line::Header(header));
        writer.write()?;
        let (queue, events) = mpsc::channel(QUEUE);
        let started = Instant::now();
        let thread =
            std::thread::Builder::new().name("recorder".into()).spawn(move || writer.run(events, lines, started))?;
        let shared = Shared {
            queue,
            room: Room::new(ROOM),
            started,
            next: AtomicU64::new(1),
            ending: AtomicBool::new(false),
            lost,
        };
        Ok((Self(Arc::new(shared)), thread))
    }

    /// The number of a call that begins now, and when that is.
    pub fn next(&self) -> (u64, u64) {
        (self.0.next.fetch_add(1, Ordering::Relaxed), self.now())
    }

    /// Nanoseconds since the recording began.
    pub fn now(&self) -> u64 {
        self.0.started.elapsed().as_nanos() as u64
    }

    pub fn room(&self) -> Room {
        self.0.room.clone()
    }

    /// Calls that are cut from now on are cut by the recorder.
    pub fn ends(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
    }

    pub fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Relaxed)
    }

    /// Hands an event to the thread, or counts it.
    pub fn tell(&self, event: Event) {
        if let Err(refused) = self.0.queue.try_send(event) {
            self.0.lost.add(1, refused.into_inner().bytes());
        }
    }
}

impl Lost {
    fn add(&self, lines: u64, bytes: u64) {
        self.lines.fetch_add(lines, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self) -> Dropped {
        Dropped { lines: self.lines.swap(0, Ordering::Relaxed), bytes: self.bytes.swap(0, Ordering::Relaxed) }
    }
}

/// The thread's side.
struct Writer {
    file: File,
    path: PathBuf,
    /// The file's length up to its last whole line.
    good: u64,
    complained: bool,
    batch: Vec<u8>,
    /// Lines of calls in the batch.
    waiting: u64,
    lost: Arc<Lost>,
}

impl Writer {
    fn run(mut self, mut events: mpsc::Receiver<Event>, mut lines: Lines, started: Instant) -> Total {
        let mut total = Total { calls: 0, dropped: Dropped::default() };
        while let Some(event) = events.blocking_recv() {
            let mut next = Some(event);
            while let Some(event) = next {
                total.calls += u64::from(matches!(event, Event::Ended(_)));
                let line = lines.of(event);
                self.add(&line);
                self.waiting += 1;
                next = if self.batch.len() < BATCH { events.try_recv().ok() } else { None };
            }
            self.flush(&mut total.dropped);
        }
        let ended_ns = started.elapsed().as_nanos() as u64;
        // What the footer says is known before it is written.
        self.flush(&mut total.dropped);
        self.add(&Line::Footer(Footer { ended_ns, calls: total.calls, dropped: total.dropped }));
        self.flush(&mut total.dropped);
        // Lines that could not be written to the last.
        let lost = self.lost.take();
        total.dropped.lines += lost.lines;
        total.dropped.bytes += lost.bytes;
        total
    }

    /// Writes the batch, and before it what is missing.
    fn flush(&mut self, dropped: &mut Dropped) {
        let lost = self.lost.take();
        if lost != Dropped::default() {
            (dropped.lines, dropped.bytes) = (dropped.lines + lost.lines, dropped.bytes + lost.bytes);
            let batch = std::mem::take(&mut self.batch);
            self.add(&Line::Dropped(lost));
            self.batch.extend_from_slice(&batch);
        }
        let (lines, bytes) = (std::mem::take(&mut self.waiting), self.batch.len() as u64);
        match self.write() {
            Ok(()) => self.complained = false,
            Err(error) => {
                // Told again when a line can be written.
                self.lost.add(lost.lines + lines, lost.bytes + bytes);
                (dropped.lines, dropped.bytes) = (dropped.lines - lost.lines, dropped.bytes - lost.bytes);
                if !std::mem::replace(&mut self.complained, true) {
                    eprintln!(
                        "cri-daemon: write {}: {error}; calls go on, what is not written is counted",
                        self.path.display()
                    );
                }
            }
        }
    }

    fn add(&mut self, line: &Line) {
        // Nothing in a line can fail to be JSON.
        let _ = serde_json::to_writer(&mut self.batch, line);
        self.batch.push(b'\n');
    }

    fn write(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let outcome = self.file.write_all_at(&batch, self.good);
        match &outcome {
            Ok(()) => self.good += batch.len() as u64,
            Err(_) => drop(self.file.set_len(self.good)),
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
