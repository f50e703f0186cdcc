//! Names of images, as Docker and the kubelet write them: `busybox` is `docker.io/library/busybox:latest`.
//!
//! A reference with both tag and digest means the digest; the tag is dropped, as containerd does, so that no tag is
//! recorded that may point elsewhere in the registry.

use std::fmt;

use super::ImageError;

/// Where a name without a registry is looked for.
const HUB: &str = "docker.io";
/// The longest name with its registry, bytes.
const MAX_NAME: usize = 255;

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
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is that of a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            Some(_) | None => (rest, None),
        };
        let (registry, repository) = split_registry(name);
        check_name(registry, &repository).map_err(malformed)?;
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(malformed("the tag is not of 1 to 128 letters, digits, \"_\", \".\" and \"-\""));
        }
        let version = match (digest, tag) {
            (Some(digest), _) => {
                check_digest(digest).map_err(malformed)?;
                Version::Digest(digest.to_owned())
            }
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, version })
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

/// The registry and the repository of a name; Docker's hub and its folder `library` may be left out.
fn split_registry(name: &str) -> (&str, String) {
    let named = |first: &str| first.contains(['.', ':']) || first == "localhost" || first.contains(char::is_uppercase);
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if named(first) => (if first == "index.docker.io" { HUB } else { first }, rest),
        Some(_) | None => (HUB, name),
    };
    let official = registry == HUB && !repository.contains('/');
    (registry, if official { format!("library/{repository}") } else { repository.to_owned() })
}

/// By hand: as a regular expression this grammar compiles to megabytes.
fn check_name(registry: &str, repository: &str) -> Result<(), &'static str> {
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err("the name has more than 255 bytes");
    }
    if !is_host(registry) {
        return Err("the registry is not a host with an optional port");
    }
    if repository.contains(|c: char| c.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    let fine = repository.split('/').all(is_component);
    if fine {
        Ok(())
    } else {
        Err("the repository is not of words of a-z, 0-9, joined by \".\", \"_\", \"__\" or \"-\"")
    }
}

/// `host`, `host:port`, `[IPv6]:port`.
fn is_host(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (registry, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label)
}

/// Words of lower case letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
    let joints = component.split(|c: char| c.is_ascii() && word(c as u8)).filter(|joint| !joint.is_empty());
    let joint = |joint: &str| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-');
    ends && joints.into_iter().all(joint)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn check_digest(digest: &str) -> Result<(), &'static str> {
    let (algorithm, hex) = digest.split_once(':').ok_or("the digest is not of the form ALGORITHM:HEX")?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("the digest is none of sha256, sha384 and sha512"),
    };
    match (hex.len() == length, is_hex(hex)) {
        (true, true) => Ok(()),
        (false, _) => Err("the digest has the wrong length for its algorithm"),
        (true, false) => Err("the digest is not of lower case hex digits"),
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
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("Upper/a", "Upper/a:latest".to_owned()),
            ("index.docker.io/a", "docker.io/library/a:latest".to_owned()),
            ("user/a-b--c.d__e_f:T_1.2-x", "docker.io/user/a-b--c.d__e_f:T_1.2-x".to_owned()),
            ("[::1]:5000/a:2", "[::1]:5000/a:2".to_owned()),
            (&format!("busybox@{digest}"), format!("docker.io/library/busybox@{digest}")),
            (&format!("busybox:1@{digest}"), format!("docker.io/library/busybox@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        let (hex, long) = ("a".repeat(64), "a".repeat(129));
        for text in [
            "",
            "A",
            "a b",
            "a:",
            "a@sha256:1",
            "a//b",
            "/a",
            "a/",
            "a/B",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "é",
            "a:é",
            "a:-x",
            "a.b:x/c",
            "a.b:/c",
            "-a.b/c",
            "a..b/c",
            "[::g]/a",
            "a@",
            "a@b",
            "a@md5:aa",
            "a:1:2",
            &format!("a@sha256:{}", hex.to_uppercase()),
            &format!("a@sha512:{hex}"),
            &format!("a@sha256:{hex}@sha256:{hex}"),
            &format!("a:{long}"),
            &format!("{long}{long}"),
        ] {
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
