//! Kubernetes quantities: `100m`, `0.5`, `64Mi`, `1.5G`, `129e6`.

/// Reads a quantity into thousandths, rounded up: `100m` is 100, `1` is 1000.
pub fn thousandths(text: &str) -> Result<i64, String> {
    let bad = |why: &str| Err(format!("{text:?} is no quantity: {why}; write for example 500m, 2, 64Mi or 1.5G"));
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return bad("it does not start with a number");
    }
    let Some((factor, divisor)) = scale(suffix) else { return bad(&format!("unknown suffix {suffix:?}")) };

    // NUMBER * factor / divisor in thousandths, exactly: digits as one integer over a power of ten.
    let digits: String = [whole, fraction].concat();
    let Ok(digits) = digits.parse::<u128>() else { return bad("it is too long") };
    let Some(below) = u32::try_from(fraction.len()).ok().and_then(|n| 10u128.checked_pow(n)) else {
        return bad("it is too long");
    };
    let above = digits.checked_mul(factor).and_then(|n| n.checked_mul(1000));
    let Some(value) = above.map(|n| n.div_ceil(below * divisor)) else { return bad("it is too large") };
    i64::try_from(value).or_else(|_| bad("it is too large"))
}

/// Reads a quantity into units, rounded up: bytes, for memory.
pub fn units(text: &str) -> Result<i64, String> {
    thousandths(text).map(|n| n / 1000 + i64::from(n % 1000 > 0))
}

/// Factor and divisor of a suffix.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let factor = match suffix {
        "" => 1,
        "m" => return Some((1, 1000)),
        "k" => 1000,
        "M" => 1000u128.pow(2),
        "G" => 1000u128.pow(3),
        "T" => 1000u128.pow(4),
        "P" => 1000u128.pow(5),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        exponent => 10u128.checked_pow(exponent.strip_prefix(['e', 'E'])?.parse().ok()?)?,
    };
    Some((factor, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact() {
        for (text, thousandth) in [
            ("100m", 100),
            ("0.1", 100),
            (".5", 500),
            ("2", 2000),
            ("1.", 1000),
            ("0.0001", 1),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("1.5G", 1_500_000_000_000),
            ("129e6", 129_000_000_000),
            ("1k", 1_000_000),
        ] {
            assert_eq!(thousandths(text), Ok(thousandth), "{text}");
        }
        assert_eq!(units("1.5Ki"), Ok(1536));
        assert_eq!(units("100m"), Ok(1));
    }

    #[test]
    fn nonsense_is_quoted() {
        for text in ["", "lots", "1.2.3", "-1", "1X", "1ei", "9999999P", "1e99", "1mi"] {
            let e = thousandths(text).unwrap_err();
            assert!(e.contains(&format!("{text:?}")), "{text}: {e}");
        }
    }
}
