//! Image references: `[registry/]repository[:tag][@digest]`, read as Docker and containerd read them.
//!
//! The first component is the registry when it has a dot, a colon, a capital letter or is `localhost`; otherwise the
//! image is Docker Hub's, and a name of one component is below `library/`. Without tag and digest the tag is `latest`.

use std::fmt;
use std::str::FromStr;

use super::ImageError;
use crate::domain::Digest;

/// The longest repository, bytes.
const MAX_REPOSITORY: usize = 255;
/// The longest tag, bytes.
const MAX_TAG: usize = 128;

/// A reference, taken apart. At least one of `tag` and `digest` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host and port as written, for example `registry.k8s.io` or `localhost:5000`.
    pub registry: String,
    /// For example `library/busybox`.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// The registry without its port.
    pub fn host(&self) -> &str {
        match self.registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => self.registry.split(':').next().unwrap_or_default(),
        }
    }

    /// What a registry calls the wanted manifest: the digest if there is one, else the tag.
    pub fn object(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        parse(text).map_err(|reason| ImageError::Reference { reference: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(Digest::parse(digest).map_err(|e| e.0)?)),
        None => (text, None),
    };
    // A colon behind the last slash starts the tag; one before it is a port's.
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match name[slash..].find(':') {
        Some(at) => (&name[..slash + at], Some(&name[slash + at + 1..])),
        None => (name, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let path = if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
    check_registry(registry)?;
    check_repository(&path)?;
    let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(Reference { registry: registry.to_owned(), repository: path, tag, digest })
}

fn is_registry(component: &str) -> bool {
    component == "localhost" || component.contains(['.', ':']) || component.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), String> {
    let bad = || format!("{registry:?} is no registry host");
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            ("ip", rest)
        }
        None => registry.find(':').map_or((registry, ""), |at| registry.split_at(at)),
    };
    let port_is_fine = match port.strip_prefix(':') {
        Some(number) => number.parse::<u16>().is_ok_and(|n| n != 0),
        None => port.is_empty(),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if port_is_fine && host.split('.').all(label) { Ok(()) } else { Err(bad()) }
}

fn check_repository(path: &str) -> Result<(), String> {
    if path.len() > MAX_REPOSITORY {
        return Err(format!("the repository is longer than {MAX_REPOSITORY} characters"));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be lower case".into());
    }
    match path.split('/').find(|component| !is_component(component)) {
        None => Ok(()),
        Some("") => Err("a component of the repository is empty".into()),
        Some(bad) => Err(format!("{bad:?} is no component of a repository")),
    }
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let legal = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    if legal { Ok(()) } else { Err(format!("{tag:?} is no tag")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("docker.io/busybox:1", "docker.io/library/busybox:1".to_owned()),
            ("index.docker.io/a/b", "docker.io/a/b:latest".to_owned()),
            ("a/b:v1", "docker.io/a/b:v1".to_owned()),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("127.0.0.1:5000/x/y__z/a--b:T_1.2-x", "127.0.0.1:5000/x/y__z/a--b:T_1.2-x".to_owned()),
            ("[::1]:5000/x", "[::1]:5000/x:latest".to_owned()),
            (&format!("a.b/c@{digest}"), format!("a.b/c@{digest}")),
            (&format!("a.b/c:t@{digest}"), format!("a.b/c:t@{digest}")),
        ] {
            let parsed: Reference = text.parse().unwrap();
            assert_eq!(parsed.to_string(), want, "{text}");
            assert_eq!(want.parse::<Reference>().unwrap(), parsed, "{text}");
        }
    }

    #[test]
    fn hosts_have_no_port() {
        for (text, host) in [("a.b/c", "a.b"), ("localhost:5000/c", "localhost"), ("[::1]:5000/c", "::1")] {
            assert_eq!(text.parse::<Reference>().unwrap().host(), host);
        }
    }

    #[test]
    fn refuses_and_says_why() {
        for (text, why) in [
            ("", "empty"),
            ("a.b/", "empty"),
            ("a.b/C", "lower case"),
            ("a.b/c:", "no tag"),
            ("a.b/c:-x", "no tag"),
            ("a.b/../c", "no component"),
            ("a.b/x..y", "no component"),
            ("a.b/c?x", "no component"),
            ("a.b:99999/c", "no registry host"),
            ("a.b:/c", "no registry host"),
            ("-a.b/c", "no registry host"),
            ("[::x]:1/c", "no registry host"),
            ("a.b/c@sha512:00", "not sha256"),
            ("a.b/c@sha256:zz", "malformed digest"),
        ] {
            let e = text.parse::<Reference>().unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
        let long = format!("a.b/{}", "x".repeat(MAX_REPOSITORY + 1));
        assert!(long.parse::<Reference>().is_err());
    }
}
