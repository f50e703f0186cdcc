//! What is written, what is counted, and what a full disk does.

use std::fs::{File, OpenOptions};

use super::*;
use crate::recorder::event::Ended;

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).write(true).truncate(true).open(path).unwrap()
}

fn lines(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn ended(seq: u64) -> Event {
    Event::Ended(Ended { seq, method: "/runtime.v1.RuntimeService/Version".into(), ..Default::default() })
}

#[test]
fn every_call_is_a_line_between_header_and_footer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    let (journal, thread) = Journal::begin(open(&path), &path, Header::default(), Lines::new(false)).unwrap();
    for _ in 0..100 {
        let (seq, _) = journal.next();
        journal.tell(ended(seq));
    }
    drop(journal);
    let total = thread.join().unwrap();
    assert_eq!((total.calls, total.dropped), (100, Dropped::default()));
    let lines = lines(&path);
    assert_eq!(lines.len(), 102);
    assert!(matches!((&lines[0], &lines[101]), (Line::Header(_), Line::Footer(Footer { calls: 100, .. }))));
    let Line::Call(call) = &lines[100] else { panic!("{:?}", lines[100]) };
    assert_eq!(call.seq, 100);
}

#[test]
fn a_full_disk_costs_lines_and_leaves_whole_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    let lost = Arc::new(Lost::default());
    let mut writer = Writer {
        file: open(&path),
        path: path.clone(),
        good: 0,
        complained: false,
        batch: Vec::new(),
        waiting: 0,
        lost: lost.clone(),
    };
    let (mut lines_of, mut dropped) = (Lines::new(false), Dropped::default());
    let mut write = |writer: &mut Writer, seq| {
        let line = lines_of.of(ended(seq));
        writer.add(&line);
        writer.waiting += 1;
        writer.flush(&mut dropped);
    };
    write(&mut writer, 1);
    writer.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    write(&mut writer, 2);
    write(&mut writer, 3);
    assert!(writer.complained);
    // Half a line, as a disk that becomes full leaves it behind.
    std::fs::write(&path, [std::fs::read(&path).unwrap(), b"{\"kind\":".to_vec()].concat()).unwrap();
    writer.file = OpenOptions::new().write(true).open(&path).unwrap();
    lost.add(5, 50);
    write(&mut writer, 4);
    let lines = lines(&path);
    let [Line::Call(first), Line::Dropped(gap), Line::Call(last)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((first.seq, gap.lines, last.seq), (1, 7, 4));
    assert_eq!((dropped, writer.complained), (*gap, false));
}

#[test]
fn a_queue_that_is_full_is_no_reason_to_wait() {
    let (queue, _events) = mpsc::channel(1);
    let (next, ending, lost) = (AtomicU64::new(1), AtomicBool::new(false), Arc::new(Lost::default()));
    let shared = Shared { queue, room: Room::new(0), started: Instant::now(), next, ending, lost: lost.clone() };
    let journal = Journal(Arc::new(shared));
    for seq in 0..3 {
        journal.tell(ended(seq));
    }
    assert_eq!(lost.take(), Dropped { lines: 2, bytes: 0 });
}
