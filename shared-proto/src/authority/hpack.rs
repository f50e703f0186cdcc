//! A walk over one HPACK header block (RFC 7541), for the one field that matters here.
//!
//! The walk needs no dynamic table: it only has to find where each field ends, and a name is `:authority` when it is
//! the static table's first entry or spelled out. (Encoders look into the static table first, so no client refers to
//! that name through the dynamic table.)
//!
//! A bad value is replaced by one that is **not longer once decoded**. The receiver's dynamic table then holds entries
//! that are at most as large as the sender's copy of them, so it evicts an entry never earlier than the sender does,
//! and as entries are counted from the newest one, every index that the sender may still use means the same entry.
//! The representation (indexed or not) stays as it was for the same reason.

use std::ops::Range;

use super::huffman;

/// A host that no server takes for a path. A prefix of it replaces a bad value.
const HOST: &[u8] = b"localhost";

/// Whether the `:authority` of a block can be read by a strict server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can, or there is nothing that we could mend: pass the block on as it is.
    Fine,
    /// It can't: pass on this block in its place.
    Mended(Vec<u8>),
}

/// Judges a whole block. A malformed block is `Fine`: the server's own decoder says it better.
pub(super) fn mend(block: &[u8]) -> Verdict {
    let mut reader = Reader { block, at: 0 };
    let mut mended = Vec::new();
    let mut copied = 0;
    while let Some(field) = reader.field() {
        let Some((span, length)) = field.bad_authority else { continue };
        let host = &HOST[..HOST.len().min(length)];
        mended.extend_from_slice(&block[copied..span.start]);
        mended.push(host.len() as u8);
        mended.extend_from_slice(host);
        copied = span.end;
    }
    if copied == 0 || reader.at < block.len() {
        return Verdict::Fine;
    }
    mended.extend_from_slice(&block[copied..]);
    Verdict::Mended(mended)
}

struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

/// One representation in the block.
struct Field {
    /// Where the value of an unreadable `:authority` is, and how long it is once decoded.
    bad_authority: Option<(Range<usize>, usize)>,
}

/// A string literal.
struct Text<'a> {
    huffman: bool,
    raw: &'a [u8],
    span: Range<usize>,
}

impl Text<'_> {
    fn decoded(&self) -> Option<Vec<u8>> {
        if self.huffman { huffman::decode(self.raw) } else { Some(self.raw.to_vec()) }
    }
}

impl<'a> Reader<'a> {
    /// The next representation; nothing at the end of the block, or where it makes no sense.
    fn field(&mut self) -> Option<Field> {
        let start = self.at;
        let field = self.representation();
        if field.is_none() {
            self.at = start;
        }
        field
    }

    fn representation(&mut self) -> Option<Field> {
        let first = *self.block.get(self.at)?;
        let in_table = matches!(first, 0x40..0x80);
        let name_bits = match first {
            0x80.. => {
                self.integer(7)?;
                return Some(Field { bad_authority: None });
            }
            0x20..0x40 => {
                self.integer(5)?;
                return Some(Field { bad_authority: None });
            }
            0x40..0x80 => 6,
            0x00..0x20 => 4,
        };
        let is_authority = match self.integer(name_bits)? {
            0 => self.text()?.decoded()? == b":authority",
            index => index == 1,
        };
        let value = self.text()?;
        let mut bad_authority = None;
        if is_authority {
            let decoded = value.decoded()?;
            // An empty value that goes into the table can't be replaced by one that is not longer; one that stays out
            // of it may become as long as it likes.
            if decoded.is_empty() && !in_table {
                bad_authority = Some((value.span, HOST.len()));
            } else if !decoded.is_empty() && http::uri::Authority::try_from(decoded.as_slice()).is_err() {
                bad_authority = Some((value.span, decoded.len()));
            }
        }
        Some(Field { bad_authority })
    }

    /// An integer with a prefix of `bits` bits.
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let mask = (1usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Some(value);
        }
        // Four more bytes are more than any header block needs.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Text<'a>> {
        let start = self.at;
        let huffman = self.block.get(start)? & 0x80 != 0;
        let length = self.integer(7)?;
        let end = self.at.checked_add(length)?;
        let raw = self.block.get(self.at..end)?;
        self.at = end;
        Some(Text { huffman, raw, span: start..end })
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.block.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &[u8] = b"/run/containerd/containerd.sock";

    /// `:method POST`, `:scheme http`, then `:authority` after `representation`, then `:path /`.
    fn block(representation: &[u8], value: &[u8]) -> Vec<u8> {
        [&[0x83, 0x86], representation, &[value.len() as u8], value, &[0x84]].concat()
    }

    #[test]
    fn replaces_a_path_and_keeps_the_representation() {
        for representation in [&[0x41][..], &[0x01], &[0x11], b"\x40\x0a:authority", b"\x00\x0a:authority"] {
            let mended = mend(&block(representation, PATH));
            assert_eq!(mended, Verdict::Mended(block(representation, b"localhost")), "{representation:x?}");
        }
    }

    #[test]
    fn a_replacement_is_never_longer() {
        assert_eq!(mend(&block(&[0x41], b"/a")), Verdict::Mended(block(&[0x41], b"lo")));
        assert_eq!(mend(&block(&[0x41], b"")), Verdict::Fine);
    }

    #[test]
    fn judges_what_huffman_strings_say() {
        // "localhost" and "/run/cri-daemon/cri.sock", as Go's encoder writes them.
        assert_eq!(mend(&[0x83, 0x41, 0x86, 0xa0, 0xe4, 0x1d, 0x13, 0x9d, 0x09]), Verdict::Fine);
        let path = b"\x62\xcb\x6a\x60\x96\x19\x69\x06\x5a\x4f\x53\x04\xb0\xcb\xa0\xe4\xeb";
        let huffman = [&[0x83, 0x41, 0x80 | path.len() as u8], &path[..], &[0x84]].concat();
        assert_eq!(mend(&huffman), Verdict::Mended(b"\x83\x41\x09localhost\x84".to_vec()));
        let malformed = [0x83, 0x41, 0x82, 0x00, 0x00];
        assert_eq!(mend(&malformed), Verdict::Fine, "malformed strings are the server's to refuse");
    }

    #[test]
    fn size_updates_indexed_fields_and_long_integers_are_stepped_over() {
        let long = vec![b'x'; 300];
        let filler = [&[0x40, 0x01, b'k', 0x7f, 0xad, 0x01][..], &long].concat();
        let block = [&[0x3f, 0xe1, 0x1f, 0xbe, 0x82][..], &filler, &[0x01, 0x02, b'/', b'x', 0xc5]].concat();
        let Verdict::Mended(mended) = mend(&block) else { panic!("not mended") };
        assert_eq!(mended, [&[0x3f, 0xe1, 0x1f, 0xbe, 0x82][..], &filler, b"\x01\x02lo\xc5"].concat());
    }

    #[test]
    fn whatever_does_not_parse_is_left_alone() {
        let whole = block(&[0x41], PATH);
        for cut in 0..whole.len() - 1 {
            assert_eq!(mend(&whole[..cut]), Verdict::Fine, "cut at {cut}");
        }
        assert_eq!(mend(&[0x41, 0x02, b'/', b'x', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]), Verdict::Fine);
    }
}
