//! PAX extended headers: records `LENGTH KEY=VALUE\n`, taken by their length.

use super::sparse::MAX_PIECES;

/// What a PAX header says about the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<Sparse>,
}

/// A sparse file, as GNU tar writes it in PAX archives.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    /// The size of the file itself.
    pub size: u64,
    /// Offsets and lengths; `None` = in front of the data.
    pub map: Option<Vec<u64>>,
}

type Parsed<T> = Result<T, &'static str>;

impl Extended {
    pub fn parse(mut records: &[u8]) -> Parsed<Self> {
        let mut extended = Self::default();
        let mut gnu = Gnu::default();
        while !records.is_empty() && records[0] != 0 {
            let (key, value, rest) = record(records)?;
            records = rest;
            match key {
                // Takes a record of a global header back; the plain header holds.
                b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
                b"path" => extended.path = Some(name(value)?),
                b"linkpath" => extended.link = Some(name(value)?),
                b"size" => extended.size = Some(number(value)?),
                b"uid" => extended.uid = Some(number(value)?),
                b"gid" => extended.gid = Some(number(value)?),
                b"mtime" => extended.mtime = Some(time(value)?),
                _ => {
                    if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                        extended.xattrs.push((name(attribute)?, value.to_vec()));
                    } else if let Some(field) = key.strip_prefix(b"GNU.sparse.") {
                        gnu.add(field, value)?;
                    }
                }
            }
        }
        if let Some(path) = &gnu.name {
            extended.path = Some(path.clone());
        }
        extended.sparse = gnu.finish()?;
        Ok(extended)
    }
}

/// What GNU tar says about a sparse file, in any of its three ways.
#[derive(Default)]
struct Gnu {
    one_point_zero: bool,
    seen: bool,
    name: Option<Vec<u8>>,
    size: u64,
    map: Vec<u64>,
}

impl Gnu {
    fn add(&mut self, field: &[u8], value: &[u8]) -> Parsed<()> {
        self.seen = true;
        match field {
            b"major" => self.one_point_zero = value == b"1",
            b"name" => self.name = Some(name(value)?),
            b"size" | b"realsize" => self.size = number(value)?,
            b"offset" | b"numbytes" => self.map.push(number(value)?),
            b"map" if !value.is_empty() => {
                self.map = value.split(|b| *b == b',').map(number).collect::<Parsed<_>>()?;
            }
            _ => {}
        }
        if self.map.len() > 2 * MAX_PIECES { Err("a sparse file has too many pieces") } else { Ok(()) }
    }

    fn finish(self) -> Parsed<Option<Sparse>> {
        if !self.seen {
            return Ok(None);
        }
        Ok(Some(Sparse { size: self.size, map: (!self.one_point_zero).then_some(self.map) }))
    }
}

/// Key, value and what follows the first record.
fn record(records: &[u8]) -> Parsed<(&[u8], &[u8], &[u8])> {
    let malformed = "an extended header is malformed";
    let space = records.iter().take(20).position(|b| *b == b' ').ok_or(malformed)?;
    let length: usize = number(&records[..space])?;
    if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
        return Err(malformed);
    }
    let pair = &records[space + 1..length - 1];
    let equals = pair.iter().position(|b| *b == b'=').ok_or(malformed)?;
    Ok((&pair[..equals], &pair[equals + 1..], &records[length..]))
}

fn name(value: &[u8]) -> Parsed<Vec<u8>> {
    if value.contains(&0) { Err("a name in an extended header has a zero byte") } else { Ok(value.to_vec()) }
}

pub(super) fn number<T: std::str::FromStr>(value: &[u8]) -> Parsed<T> {
    let text = std::str::from_utf8(value).map_err(super::not_a_number)?;
    text.parse().map_err(super::not_a_number)
}

/// Seconds with a fraction, maybe negative.
fn time(value: &[u8]) -> Parsed<(i64, u32)> {
    let dot = value.iter().position(|b| *b == b'.').unwrap_or(value.len());
    let seconds: i64 = number(&value[..dot])?;
    let fraction = value.get(dot + 1..).unwrap_or_default();
    let mut nanos: u32 = 0;
    for at in 0..9 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err("a time is malformed");
        }
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    // -1.25 is 0.75 after -2.
    if value.starts_with(b"-") && nanos > 0 {
        return Ok((seconds.checked_sub(1).ok_or("a time is malformed")?, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let length = (rest.len()..).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
        [length.to_string().as_bytes(), &rest].concat()
    }

    #[test]
    fn a_value_may_hold_what_looks_like_a_record() {
        let hidden = b"\x01\n14 path=evil\n\0";
        let records = [record_of("SCHILY.xattr.user.x", hidden), record_of("path", b"good")].concat();
        let parsed = Extended::parse(&records).unwrap();
        assert_eq!(parsed.path.as_deref(), Some(&b"good"[..]));
        assert_eq!(parsed.xattrs, [(b"user.x".to_vec(), hidden.to_vec())]);
    }

    #[test]
    fn times_have_fractions() {
        assert_eq!(time(b"12.5"), Ok((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Ok((-2, 750_000_000)));
        assert_eq!(time(b"7.1234567899"), Ok((7, 123_456_789)));
        assert!(time(b"7.x").is_err());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bad in [&b"5 a=b\n"[..], b"99 path=x\n", b"3 \n", b"x path=y\n", b"10 pathxyz\n"] {
            assert!(Extended::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
