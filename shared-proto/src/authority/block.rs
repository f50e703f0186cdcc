//! One header block on the wire: a HEADERS frame and the CONTINUATION frames that belong to it (RFC 9113, section 6).

pub(super) const HEAD: usize = 9;
/// What every peer accepts in one frame (RFC 9113, section 6.5.2).
const MAX_FRAME: usize = 16 << 10;

pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 0x01;
pub(super) const END_HEADERS: u8 = 0x04;
pub(super) const PADDED: u8 = 0x08;
pub(super) const PRIORITY: u8 = 0x20;

pub(super) struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    /// With the reserved bit, which is passed on as it came.
    pub stream: [u8; 4],
}

impl Head {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        Some(Self { length, kind, flags, stream: [s0, s1, s2, s3] })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream);
    }
}

/// One header block: HEADERS and the CONTINUATIONs that belong to it.
pub(super) struct Block {
    head: Head,
    /// The priority fields of HEADERS, if it has any.
    priority: Vec<u8>,
    pub fragments: Vec<u8>,
    /// Of all frames together, as received.
    pub length: usize,
}

pub(super) enum Parsed {
    NeedMore,
    Malformed,
    Whole(Block),
}

impl Block {
    /// Reads a block whose HEADERS frame starts at the first byte.
    pub fn parse(bytes: &[u8]) -> Parsed {
        let Some(head) = Head::parse(bytes) else { return Parsed::NeedMore };
        let Some(mut payload) = bytes.get(HEAD..HEAD + head.length) else { return Parsed::NeedMore };
        if head.flags & PADDED != 0 {
            let Some((&padding, rest)) = payload.split_first() else { return Parsed::Malformed };
            let Some(unpadded) = rest.len().checked_sub(padding.into()) else { return Parsed::Malformed };
            payload = &rest[..unpadded];
        }
        let priority = if head.flags & PRIORITY != 0 { 5 } else { 0 };
        let Some((priority, first)) = payload.split_at_checked(priority) else { return Parsed::Malformed };

        let mut fragments = first.to_vec();
        let mut length = HEAD + head.length;
        let mut ended = head.flags & END_HEADERS != 0;
        while !ended {
            let Some(next) = Head::parse(&bytes[length..]) else { return Parsed::NeedMore };
            if next.kind != CONTINUATION || next.stream != head.stream {
                return Parsed::Malformed;
            }
            let start = length + HEAD;
            let Some(fragment) = bytes.get(start..start + next.length) else { return Parsed::NeedMore };
            fragments.extend_from_slice(fragment);
            length = start + next.length;
            ended = next.flags & END_HEADERS != 0;
        }
        Parsed::Whole(Block { priority: priority.to_vec(), fragments, length, head })
    }

    /// Writes the block with other fragments: without padding, in as few frames as every peer accepts.
    pub fn write(&self, fragments: &[u8], out: &mut Vec<u8>) {
        let (first, mut rest) = fragments.split_at(fragments.len().min(MAX_FRAME - self.priority.len()));
        let end = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        let flags = self.head.flags & (END_STREAM | PRIORITY) | end(rest);
        let length = self.priority.len() + first.len();
        Head { length, kind: HEADERS, flags, stream: self.head.stream }.write(out);
        out.extend_from_slice(&self.priority);
        out.extend_from_slice(first);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(MAX_FRAME));
            Head { length: now.len(), kind: CONTINUATION, flags: end(later), stream: self.head.stream }.write(out);
            out.extend_from_slice(now);
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_blocks_are_cut_into_frames_that_every_peer_accepts() {
        let filler = vec![0x82; 20_000];
        let block = Block {
            head: Head { length: 0, kind: HEADERS, flags: 0, stream: [0; 4] },
            priority: Vec::new(),
            fragments: Vec::new(),
            length: 0,
        };
        let mut out = Vec::new();
        block.write(&filler, &mut out);
        let Parsed::Whole(read) = Block::parse(&out) else { panic!("not a block") };
        assert_eq!(read.fragments, filler);
        assert_eq!(read.length, 2 * HEAD + filler.len());
    }
}
