//! Names of images, as Docker and the kubelet write them: `busybox` is `docker.io/library/busybox:latest`.
//!
//! A reference with both tag and digest means the digest; the tag is dropped, as containerd does, so that no tag is
//! recorded that may point elsewhere in the registry.

use std::fmt;

use super::ImageError;

/// A normalised reference: a name with a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Version {
    Tag(String),
    Digest(String),
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if text.is_empty() {
            return Err(ImageError::Unnamed);
        }
        let malformed = |reason: &str| ImageError::Reference { reference: text.to_owned(), reason: reason.to_owned() };
        let parsed: oci_spec::distribution::Reference =
            text.parse().map_err(|e: oci_spec::distribution::ParseError| malformed(&e.to_string()))?;
        let version = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => Version::Digest(digest.to_owned()),
            (None, Some(tag)) => Version::Tag(tag.to_owned()),
            (None, None) => return Err(malformed("neither a tag nor a digest")),
        };
        Ok(Self { registry: parsed.registry().to_owned(), repository: parsed.repository().to_owned(), version })
    }

    /// The registry's host, with its port: `registry.k8s.io`, `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Whether it names a tag.
    pub fn is_tag(&self) -> bool {
        matches!(self.version, Version::Tag(_))
    }

    /// The same image by its content: `NAME@DIGEST`.
    pub fn at(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}/{}:{tag}", self.registry, self.repository),
            Version::Digest(digest) => write!(f, "{}/{}@{digest}", self.registry, self.repository),
        }
    }
}

/// Whether `text` is a whole image id: `sha256:` and 64 hex digits.
pub fn is_id(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && is_hex(hex))
}

/// The hex digits of what may be the beginning of an image id, with or without `sha256:`.
pub fn id_prefix(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    (!hex.is_empty() && hex.len() <= 64 && is_hex(hex)).then_some(hex)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("docker.io/busybox:1", "docker.io/library/busybox:1".to_owned()),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9".to_owned()),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest".to_owned()),
            ("localhost:5000/a", "localhost:5000/a:latest".to_owned()),
            (&format!("busybox@{digest}"), format!("docker.io/library/busybox@{digest}")),
            (&format!("busybox:1@{digest}"), format!("docker.io/library/busybox@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "A", "a b", "a:", "a@sha256:1", "a//b"] {
            let e = Reference::parse(text).unwrap_err().to_string();
            assert!(text.is_empty() || e.contains(&format!("{text:?}")), "{text:?}: {e}");
        }
    }

    #[test]
    fn ids_and_their_beginnings() {
        let id = format!("sha256:{}", "0a".repeat(32));
        assert!(is_id(&id) && !is_id(&id[..70]) && !is_id(&id[7..]));
        assert_eq!(id_prefix("sha256:0a0"), Some("0a0"));
        assert_eq!(id_prefix("0a0"), Some("0a0"));
        assert_eq!(id_prefix("busybox"), None);
        assert_eq!(id_prefix("sha256:"), None);
    }
}
