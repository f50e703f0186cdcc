//! The journal of one container's log: how far each stream is, and which batch is on its way into the log.
//!
//! One small record, replaced in place by one `pwrite` within a page, which a kill can't tear. A power cut may lose it:
//! the FIFOs are gone then as well.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;

const MAGIC: u64 = u64::from_le_bytes(*b"SEAMLOG1");
const WORDS: usize = 11;

/// A batch that was about to be appended to a log file of this identity and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    /// 0 or 1.
    pub stream: usize,
    /// The batch is the spool from the stream's `done` to here.
    pub end: u64,
    pub nanos: i64,
    pub max: u64,
    pub device: u64,
    pub inode: u64,
    pub length: u64,
}

/// What a restart must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Record {
    /// Bytes of each stream's spool that are in the log, without the batch.
    pub done: [u64; 2],
    /// Which spools are being emptied.
    pub emptying: [bool; 2],
    pub batch: Option<Batch>,
}

pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens or makes it, and makes sure that nobody else pumps this log. Blocks, for at most a second.
    pub fn open(path: &Path) -> io::Result<(Self, Record)> {
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut tries = 0;
        while let Err(e) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // One that was just dropped may still be finishing its last batch.
            if e != rustix::io::Errno::WOULDBLOCK || tries == 50 {
                return Err(io::Error::new(io::Error::from(e).kind(), format!("{} is in use: {e}", path.display())));
            }
            tries += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut bytes = [0; WORDS * 8];
        let record = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Record::decode(&bytes),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(e) => return Err(e),
        };
        Ok((Self { file }, record.unwrap_or_default()))
    }

    pub fn write(&self, record: &Record) -> io::Result<()> {
        self.file.write_all_at(&record.encode(), 0)
    }
}

impl Record {
    fn encode(&self) -> [u8; WORDS * 8] {
        let emptying = u64::from(self.emptying[0]) | u64::from(self.emptying[1]) << 1;
        let mut words = [0u64; WORDS];
        words[..4].copy_from_slice(&[MAGIC, self.done[0], self.done[1], emptying]);
        if let Some(batch) = &self.batch {
            let tail = [
                batch.stream as u64 + 1,
                batch.end,
                batch.nanos.cast_unsigned(),
                batch.max,
                batch.device,
                batch.inode,
                batch.length,
            ];
            words[4..].copy_from_slice(&tail);
        }
        let mut bytes = [0; WORDS * 8];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None`: no record of ours.
    fn decode(bytes: &[u8; WORDS * 8]) -> Option<Self> {
        let mut words = [0u64; WORDS];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(from.try_into().ok()?);
        }
        let batch = match words[4] {
            0 => None,
            stream @ (1 | 2) => Some(Batch {
                stream: stream as usize - 1,
                end: words[5],
                nanos: words[6].cast_signed(),
                max: words[7],
                device: words[8],
                inode: words[9],
                length: words[10],
            }),
            _ => return None,
        };
        let emptying = [words[3] & 1 != 0, words[3] & 2 != 0];
        (words[0] == MAGIC).then_some(Self { done: [words[1], words[2]], emptying, batch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_and_excludes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let (journal, empty) = Journal::open(&path).unwrap();
        assert_eq!(empty, Record::default());
        let (device, inode, length) = (7, 8, 9);
        let batch = Batch { stream: 1, end: 5, nanos: -3, max: 16384, device, inode, length };
        let record = Record { done: [1, 2], emptying: [false, true], batch: Some(batch) };
        journal.write(&record).unwrap();
        assert!(Journal::open(&path).is_err_and(|e| e.to_string().contains("in use")));
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1, record);
        std::fs::write(&path, [1; 200]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, Record::default());
    }
}
