//! Log entries as CRI defines them: `<RFC 3339 time> <stream> <P|F> <text>`.
//!
//! F ends a line; P is a part of one: a line longer than the limit, or output that ended without a newline. Pure:
//! the same bytes, time and limit give the same entries, on which recovery relies.

/// Whether more output may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Open,
    Closed,
}

/// Appends the entries for `text` to `out`; how many bytes of `text` they hold. The rest is an unfinished line.
pub(super) fn entries(text: &[u8], stream: &str, nanos: i64, max: usize, ending: Ending, out: &mut Vec<u8>) -> usize {
    let start = format!("{} {stream} ", rfc3339(nanos));
    let mut rest = text;
    loop {
        let window = &rest[..rest.len().min(max.saturating_add(1))];
        let (tag, length, skip) = match memchr::memchr(b'\n', window) {
            Some(end) => ('F', end, 1),
            None if rest.len() > max => ('P', max, 0),
            None if ending == Ending::Closed && !rest.is_empty() => ('P', rest.len(), 0),
            None => return text.len() - rest.len(),
        };
        out.extend_from_slice(start.as_bytes());
        out.extend_from_slice(&[tag as u8, b' ']);
        out.extend_from_slice(&rest[..length]);
        out.push(b'\n');
        rest = &rest[length + skip..];
    }
}

/// Unix time in nanoseconds as `2006-01-02T15:04:05.999999999Z`.
fn rfc3339(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years: the leap day is the last of a year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, max: usize, ending: Ending) -> (String, usize) {
        let mut out = Vec::new();
        let consumed = entries(text.as_bytes(), "stdout", 0, max, ending, &mut out);
        (String::from_utf8(out).unwrap().replace("1970-01-01T00:00:00.000000000Z stdout ", ""), consumed)
    }

    #[test]
    fn lines_and_parts() {
        use Ending::*;
        let cases = [
            ("a\nb\n", 10, Open, "F a\nF b\n", 4),
            ("\n\n", 10, Open, "F \nF \n", 2),
            ("a\nrest", 10, Open, "F a\n", 2),
            ("a\nrest", 10, Closed, "F a\nP rest\n", 6),
            ("", 10, Closed, "", 0),
            ("1234\n", 4, Open, "F 1234\n", 5),
            ("1234", 4, Open, "", 0),
            ("12345\n", 4, Open, "P 1234\nF 5\n", 6),
            ("123456789", 4, Open, "P 1234\nP 5678\n", 8),
            ("123456789", 4, Closed, "P 1234\nP 5678\nP 9\n", 9),
            ("a\r\n", 10, Open, "F a\r\n", 3),
        ];
        for (text, max, ending, expected, consumed) in cases {
            assert_eq!(of(text, max, ending), (expected.to_owned(), consumed), "{text:?} {max}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(1_709_251_199_999_999_999), "2024-02-29T23:59:59.999999999Z");
        assert_eq!(rfc3339(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
