//! Content digests: `sha256:` and 64 lower-case hex digits. Other algorithms of the OCI specification are refused.

use std::fmt;

use super::Invalid;

/// The digest of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let hex =
            text.strip_prefix("sha256:").ok_or_else(|| Invalid(format!("unsupported digest {text:?}: not sha256")))?;
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid(format!("malformed digest {text:?}")))
        }
    }

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_hash(&sha2::Sha256::digest(bytes))
    }

    /// The digest with this SHA-256 value.
    pub fn from_hash(hash: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(hash)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind `sha256:`, which names the blob's file.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_refuses() {
        let empty = Digest::of(b"");
        assert_eq!(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(empty.as_str()).unwrap(), empty);
        for bad in ["", "sha256:", "sha512:00", "sha256:../../etc/passwd", &empty.as_str().to_uppercase()] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
