//! The block of 512 bytes in front of an entry.

/// The unit of an archive, bytes.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header([u8; BLOCK]);

type Parsed<T> = Result<T, &'static str>;

impl Header {
    pub fn check(block: [u8; BLOCK]) -> Parsed<Self> {
        let wrong = "this is no header: its checksum is wrong";
        let expected = number(&block[148..156]).map_err(|_| wrong)?;
        // The sum counts its own field as spaces. Some old programs add up signed bytes.
        let others = || block[..148].iter().chain(&block[156..]);
        let is_sum = |sum: i64| sum + 8 * i64::from(b' ') == expected;
        if is_sum(others().map(|b| i64::from(*b)).sum()) || is_sum(others().map(|b| i64::from(*b as i8)).sum()) {
            Ok(Self(block))
        } else {
            Err(wrong)
        }
    }

    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    pub fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        if &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub fn mode(&self) -> Parsed<u32> {
        Ok((number(&self.0[100..108])? & 0o7777) as u32)
    }

    pub fn uid(&self) -> Parsed<u32> {
        id(&self.0[108..116])
    }

    pub fn gid(&self) -> Parsed<u32> {
        id(&self.0[116..124])
    }

    pub fn size(&self) -> Parsed<u64> {
        u64::try_from(number(&self.0[124..136])?).map_err(super::not_a_number)
    }

    pub fn mtime(&self) -> Parsed<i64> {
        number(&self.0[136..148])
    }

    pub fn major(&self) -> Parsed<u32> {
        id(&self.0[329..337])
    }

    pub fn minor(&self) -> Parsed<u32> {
        id(&self.0[337..345])
    }

    /// Of a GNU sparse file: its size, offsets and lengths, and whether more of those follow.
    pub fn sparse(&self) -> Parsed<(u64, Vec<u64>, bool)> {
        let size = u64::try_from(number(&self.0[483..495])?).map_err(super::not_a_number)?;
        Ok((size, pairs(&self.0[386..482])?, self.0[482] != 0))
    }
}

/// A block with more of a GNU sparse file's map.
pub(super) fn more_sparse(block: &[u8; BLOCK]) -> Parsed<(Vec<u64>, bool)> {
    Ok((pairs(&block[..504])?, block[504] != 0))
}

fn pairs(fields: &[u8]) -> Parsed<Vec<u64>> {
    let mut numbers = Vec::new();
    for pair in fields.chunks_exact(24).take_while(|pair| pair[0] != 0) {
        for field in [&pair[..12], &pair[12..]] {
            numbers.push(u64::try_from(number(field)?).map_err(super::not_a_number)?);
        }
    }
    Ok(numbers)
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

fn id(field: &[u8]) -> Parsed<u32> {
    u32::try_from(number(field)?).map_err(super::not_a_number)
}

/// Octal text, or a large or negative number in binary. An empty field is 0.
fn number(field: &[u8]) -> Parsed<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0] | 0x80) - 256 } else { i128::from(field[0] & 0x3f) };
        let mut value = first;
        for byte in &field[1..] {
            value = (value << 8) | i128::from(*byte);
        }
        return i64::try_from(value).map_err(super::not_a_number);
    }
    let digits = text(field).trim_ascii();
    let mut value = 0i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err("a number in a header is malformed");
        }
        value = value.checked_mul(8).ok_or("a number in a header is too large")? + i64::from(digit - b'0');
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_kinds() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), Ok(2 << 32));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert!(number(b"12x45678").is_err());
        assert!(number(&[0xbf; 12]).is_err());
    }
}
