//! Maps of sparse files: which pieces of the file the archive has.

use super::pax::number;

/// The most pieces of one file.
pub(super) const MAX_PIECES: usize = 65536;

/// A run of data in a sparse file, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diff) struct Piece {
    pub offset: u64,
    pub length: u64,
}

/// Pieces from offsets and lengths in turn: ascending, apart, within `size`.
pub(super) fn pieces(numbers: &[u64], size: u64) -> Result<Vec<Piece>, &'static str> {
    if !numbers.len().is_multiple_of(2) {
        return Err("the map of a sparse file is malformed");
    }
    let mut end = 0;
    let mut pieces = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks_exact(2) {
        let (offset, length) = (pair[0], pair[1]);
        if offset < end {
            return Err("the pieces of a sparse file overlap");
        }
        end = offset.checked_add(length).filter(|end| *end <= size).ok_or("a sparse file is larger than its size")?;
        pieces.push(Piece { offset, length });
    }
    Ok(pieces)
}

/// Reads the map in front of the data: numbers on lines of their own, the first their count of pairs.
#[derive(Default)]
pub(super) struct MapReader {
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl MapReader {
    pub fn add(&mut self, block: &[u8]) -> Result<(), &'static str> {
        for byte in block {
            if self.is_whole() {
                break;
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Err("the map of a sparse file is malformed");
                }
                continue;
            }
            self.numbers.push(number(&std::mem::take(&mut self.digits))?);
            if self.numbers[0] > MAX_PIECES as u64 {
                return Err("a sparse file has too many pieces");
            }
        }
        Ok(())
    }

    pub fn is_whole(&self) -> bool {
        self.numbers.first().is_some_and(|count| self.numbers.len() as u64 == 1 + 2 * count)
    }

    /// Offsets and lengths.
    pub fn numbers(self) -> Vec<u64> {
        self.numbers.into_iter().skip(1).collect()
    }
}
