//! Decoding of HPACK's Huffman strings (RFC 7541, appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols, and shorter codes come
//! first. So the lengths alone define it, and the decoder is a walk over the lengths.

/// Length in bits of each symbol's code; the last one is the end-of-string symbol, which no string may contain.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22,
    23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22,
    22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26,
    26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27,
    27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27,
    27, 27, 27, 27, 26, 30,
];
const LONGEST: usize = 30;

/// The codes of one length: `count` symbols from `symbols[start..]`, with consecutive codes from `first`.
#[derive(Clone, Copy)]
struct Row {
    first: u32,
    count: u32,
    start: u32,
}

struct Code {
    symbols: [u16; 257],
    rows: [Row; LONGEST + 1],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code { symbols: [0; 257], rows: [Row { first: 0, count: 0, start: 0 }; LONGEST + 1] };
    let (mut next, mut filled, mut length) = (0u32, 0u32, 1);
    while length <= LONGEST {
        next <<= 1;
        code.rows[length] = Row { first: next, count: 0, start: filled };
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[filled as usize] = symbol as u16;
                code.rows[length].count += 1;
                filled += 1;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}

/// The decoded string, or nothing if `encoded` is malformed.
pub(super) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len() * 8 / 5);
    let (mut bits, mut length) = (0u32, 0);
    for byte in encoded {
        for shift in (0..8).rev() {
            bits = bits << 1 | u32::from(byte >> shift & 1);
            length += 1;
            let row = CODE.rows.get(length)?;
            if bits.wrapping_sub(row.first) < row.count {
                let symbol = CODE.symbols[(row.start + bits - row.first) as usize];
                decoded.push(u8::try_from(symbol).ok()?);
                (bits, length) = (0, 0);
            }
        }
    }
    // What is left is padding: less than a byte, all ones.
    (length < 8 && bits == (1 << length) - 1).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_examples_of_the_rfc() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&www).unwrap(), b"www.example.com");
        let date = hex("d07abe941054d444a8200595040b8166e082a62d1bff");
        assert_eq!(decode(&date).unwrap(), b"Mon, 21 Oct 2013 20:13:21 GMT");
        let url = hex("9d29ad171863c78f0b97c8e9ae82ae43d3");
        assert_eq!(decode(&url).unwrap(), b"https://www.example.com");
        assert_eq!(decode(b"").unwrap(), b"");
    }

    #[test]
    fn refuses_padding_that_is_too_long_or_not_of_ones_and_the_end_symbol() {
        assert_eq!(decode(&[0xff]), None);
        assert_eq!(decode(&[0x00, 0x00]), None);
        assert_eq!(decode(&[0xff; 5]), None);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
