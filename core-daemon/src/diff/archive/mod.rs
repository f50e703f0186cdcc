//! Reads tar archives: ustar, GNU (long names, sparse files, large numbers) and PAX.
//!
//! The reading is our own because layers are hostile: headers have a bounded size, and PAX records are taken by their
//! stated length, so that a value can hold any byte and nothing in it can pass for a record.

mod header;
mod pax;
mod sparse;

use super::DiffError;
use super::chunks::Chunks;
use header::{BLOCK, Header};
use pax::Extended;
pub(super) use sparse::Piece;

/// The longest extended header or long name, bytes.
const MAX_EXTENDED: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// A file of `size` bytes, of which the archive has only these pieces.
    Sparse {
        pieces: Vec<Piece>,
        size: u64,
    },
    Dir,
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// One entry, its data aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// As written: may be absolute or have `..`.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, with set-user-id and its like.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive being read.
pub(super) struct Archive {
    chunks: Chunks,
    /// Data of the current entry that is still unread, bytes.
    left: u64,
    /// Behind it, up to the next block.
    padding: u64,
}

impl Archive {
    pub fn new(chunks: Chunks) -> Self {
        Self { chunks, left: 0, padding: 0 }
    }

    /// The next entry; what is left of the current one's data is skipped. `None` = the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, DiffError> {
        let mut long_path = None;
        let mut long_link = None;
        let mut extended = Extended::default();
        let mut announced = false;
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                return if announced {
                    Err(self.malformed("the entry that a header announces is missing"))
                } else {
                    Ok(None)
                };
            };
            match header.kind() {
                b'L' => long_path = Some(self.name(&header)?),
                b'K' => long_link = Some(self.name(&header)?),
                b'x' => extended = self.extended(&header)?,
                // Records for the whole archive: comments, in practice.
                b'g' => {
                    self.left = self.number(header.size())?;
                    self.padding = padding(self.left);
                    continue;
                }
                _ => return self.entry(&header, long_path, long_link, extended).map(Some),
            }
            announced = true;
        }
    }

    /// Gives the current entry's data piece by piece.
    pub fn data(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), DiffError>) -> Result<(), DiffError> {
        self.some_data(self.left, &mut each)
    }

    /// Gives the next `length` bytes of the current entry's data.
    pub fn some_data(
        &mut self,
        length: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), DiffError>,
    ) -> Result<(), DiffError> {
        if length > self.left {
            return Err(self.malformed("a sparse file has less data than it lists"));
        }
        let mut wanted = length;
        while wanted > 0 {
            let at_hand = self.chunks.peek().map_err(DiffError::Read)?;
            if at_hand.is_empty() {
                return Err(self.malformed("the archive ends inside an entry"));
            }
            let length = at_hand.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
            each(&at_hand[..length])?;
            self.chunks.consume(length);
            wanted -= length as u64;
            self.left -= length as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream, beyond the end of the archive.
    pub fn drain(&mut self) -> Result<(), DiffError> {
        self.chunks.drain().map_err(DiffError::Read)
    }

    pub fn malformed(&self, reason: impl Into<String>) -> DiffError {
        DiffError::Malformed { position: self.chunks.position(), reason: reason.into() }
    }

    fn number<T>(&self, parsed: Result<T, &'static str>) -> Result<T, DiffError> {
        parsed.map_err(|reason| self.malformed(reason))
    }

    fn skip_data(&mut self) -> Result<(), DiffError> {
        self.left = self.left.saturating_add(std::mem::take(&mut self.padding));
        self.data(|_| Ok(()))
    }

    fn header(&mut self) -> Result<Option<Header>, DiffError> {
        let mut block = [0; BLOCK];
        match self.chunks.fill(&mut block).map_err(DiffError::Read)? {
            BLOCK => {}
            0 => return Ok(None),
            _ => return Err(self.malformed("the archive ends inside a header")),
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        self.number(Header::check(block)).map(Some)
    }

    /// The data of a header that describes the next one, whole.
    fn announcement(&mut self, header: &Header) -> Result<Vec<u8>, DiffError> {
        let size = self.number(header.size())?;
        if size > MAX_EXTENDED {
            return Err(self.malformed(format!("an extended header of {size} bytes is too long")));
        }
        self.left = size;
        self.padding = padding(size);
        let mut content = Vec::with_capacity(size as usize);
        self.data(|bytes| {
            content.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(content)
    }

    fn name(&mut self, header: &Header) -> Result<Vec<u8>, DiffError> {
        let mut name = self.announcement(header)?;
        if let Some(end) = name.iter().position(|b| *b == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn extended(&mut self, header: &Header) -> Result<Extended, DiffError> {
        let records = self.announcement(header)?;
        self.number(Extended::parse(&records))
    }

    fn entry(
        &mut self,
        header: &Header,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        extended: Extended,
    ) -> Result<Entry, DiffError> {
        let path = long_path.or(extended.path).unwrap_or_else(|| header.path());
        let link = long_link.or(extended.link).unwrap_or_else(|| header.link());
        let devices = (header.major(), header.minor());
        let mut size = match extended.size {
            Some(size) => size,
            None => self.number(header.size())?,
        };
        let kind = match header.kind() {
            b'\0' if path.ends_with(b"/") => Kind::Dir,
            b'0' | b'\0' | b'7' => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::CharDevice { major: self.number(devices.0)?, minor: self.number(devices.1)? },
            b'4' => Kind::BlockDevice { major: self.number(devices.0)?, minor: self.number(devices.1)? },
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'S' => self.gnu_sparse(header)?,
            other => return Err(self.malformed(format!("entries of type {:?} are not known", char::from(other)))),
        };
        // These have no data, whatever the size says.
        let bare = !matches!(kind, Kind::File | Kind::Sparse { .. } | Kind::Dir);
        if bare || header.kind() == b'5' {
            size = 0;
        }
        self.left = size;
        self.padding = padding(size);
        let kind = match (kind, extended.sparse) {
            (Kind::File, Some(sparse)) => self.pax_sparse(sparse)?,
            (kind, _) => kind,
        };
        Ok(Entry {
            path,
            kind,
            mode: self.number(header.mode())?,
            uid: extended.uid.map_or_else(|| self.number(header.uid()), Ok)?,
            gid: extended.gid.map_or_else(|| self.number(header.gid()), Ok)?,
            mtime: extended.mtime.map_or_else(|| self.number(header.mtime()).map(|seconds| (seconds, 0)), Ok)?,
            xattrs: extended.xattrs,
        })
    }

    /// The map of an old GNU sparse file: in its header and in blocks of their own behind it.
    fn gnu_sparse(&mut self, header: &Header) -> Result<Kind, DiffError> {
        let (size, mut numbers, mut more) = self.number(header.sparse())?;
        while more {
            let mut block = [0; BLOCK];
            if self.chunks.fill(&mut block).map_err(DiffError::Read)? < BLOCK {
                return Err(self.malformed("the archive ends inside the map of a sparse file"));
            }
            let added = header::more_sparse(&block);
            more = self.number(added.map(|(pieces, more)| {
                numbers.extend(pieces);
                more
            }))?;
            if numbers.len() > 2 * sparse::MAX_PIECES {
                return Err(self.malformed("a sparse file has too many pieces"));
            }
        }
        let pieces = self.number(sparse::pieces(&numbers, size))?;
        Ok(Kind::Sparse { pieces, size })
    }

    /// The map of a sparse file in PAX: in records, or (version 1.0) in front of its data.
    fn pax_sparse(&mut self, found: pax::Sparse) -> Result<Kind, DiffError> {
        let numbers = match found.map {
            Some(numbers) => numbers,
            None => {
                let mut reader = sparse::MapReader::default();
                while !reader.is_whole() {
                    let mut block = Vec::with_capacity(BLOCK);
                    self.some_data(BLOCK as u64, &mut |bytes| {
                        block.extend_from_slice(bytes);
                        Ok(())
                    })?;
                    self.number(reader.add(&block))?;
                }
                reader.numbers()
            }
        };
        let pieces = self.number(sparse::pieces(&numbers, found.size))?;
        Ok(Kind::Sparse { pieces, size: found.size })
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// For `map_err` of what can only be a wrong number.
fn not_a_number<E>(_: E) -> &'static str {
    "a number is malformed"
}
