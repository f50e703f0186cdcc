//! Where images go: names, labels, platforms, and the snapshotters that they are unpacked into.

use super::ImageError;
use super::manifest::{Descriptor, Platform};
use super::reference::Reference;
use crate::domain::Labels;

/// Annotation with an image's full name.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation with a tag, or a full name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The image store as the destination of a transfer.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The name that is asked for; may be empty for archives, which have names inside.
    pub name: String,
    /// For every image that is stored.
    pub labels: Labels,
    /// What is wanted of an index. Empty: what `unpacks` name; if they name nothing, all.
    pub platforms: Vec<Platform>,
    /// Snapshotter and platform.
    pub unpacks: Vec<(String, Platform)>,
    pub references: Vec<ExtraReference>,
}

/// One more name, or a rule that makes names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtraReference {
    pub name: String,
    /// `name` is the part before the tag or digest; the rest comes from the archive.
    pub is_prefix: bool,
    /// Names in the archive that don't begin with `name` are taken as well.
    pub allow_overwrite: bool,
    /// Make `NAME@DIGEST` too.
    pub add_digest: bool,
    /// …but only if there is no other name.
    pub skip_named_digest: bool,
}

/// An image that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub name: String,
    pub target: Descriptor,
}

impl Target {
    /// What to call the whole in messages.
    pub fn label(&self) -> String {
        if self.name.is_empty() { "the archive".to_owned() } else { self.name.clone() }
    }

    pub fn wanted(&self) -> Vec<Platform> {
        if self.platforms.is_empty() {
            self.unpacks.iter().map(|(_, platform)| platform.clone()).collect()
        } else {
            self.platforms.clone()
        }
    }

    /// Whether there is a name for the whole at all.
    pub fn names_whole(&self) -> bool {
        !self.name.is_empty() || self.references.iter().any(|extra| !extra.is_prefix)
    }

    /// The names for what was asked for as a whole.
    pub fn names(&self, root: &Descriptor) -> Result<Vec<String>, ImageError> {
        let mut names: Vec<String> = Some(self.name.clone()).into_iter().filter(|n| !n.is_empty()).collect();
        for extra in self.references.iter().filter(|extra| !extra.is_prefix) {
            names.push(if extra.add_digest { format!("{}@{}", extra.name, root.digest) } else { extra.name.clone() });
        }
        if names.is_empty() {
            let reason = "no name was given for the image".to_owned();
            return Err(ImageError::Reference { reference: String::new(), reason });
        }
        Ok(names)
    }

    /// The names for one image in an archive, from its annotations. Without any rule the full names in the archive
    /// are taken as they are.
    pub fn names_inside(&self, entry: &Descriptor) -> Vec<String> {
        let annotation = |key: &str| entry.annotations.get(key).map(String::as_str).filter(|name| !name.is_empty());
        let (full, tag) = (annotation(IMAGE_NAME), annotation(REF_NAME));
        let rules: Vec<_> = self.references.iter().filter(|extra| extra.is_prefix).collect();
        let mut names = Vec::new();
        if rules.is_empty() && self.name.is_empty() && self.references.is_empty() {
            names.extend(full.or(tag).and_then(complete));
        }
        for rule in rules {
            let found = match (full, tag) {
                (Some(full), _) => (rule.allow_overwrite || begins(full, &rule.name)).then(|| full.to_owned()),
                (None, Some(tag)) if begins(tag, &rule.name) => Some(tag.to_owned()),
                (None, Some(tag)) if tag.contains(['/', ':']) => rule.allow_overwrite.then(|| tag.to_owned()),
                (None, Some(tag)) => Some(format!("{}:{tag}", rule.name)),
                (None, None) => None,
            };
            if rule.add_digest && (found.is_none() || !rule.skip_named_digest) {
                names.push(format!("{}@{}", rule.name, entry.digest));
            }
            names.extend(found);
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Whether `name` is `prefix` with a tag or a digest.
fn begins(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with([':', '@']))
}

/// A full name, if this is one and not only a tag.
fn complete(name: &str) -> Option<String> {
    let full = name.contains(['/', ':']);
    full.then(|| name.parse::<Reference>().ok().map(|reference| reference.to_string())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Digest;

    fn entry(annotations: &[(&str, &str)]) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: Digest::of(b""),
            size: 0,
            annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            platform: None,
        }
    }

    fn with(rule: ExtraReference) -> Target {
        Target { references: vec![rule], ..Target::default() }
    }

    #[test]
    fn names_come_from_the_archive_when_no_rule_says_otherwise() {
        let target = Target::default();
        assert_eq!(target.names_inside(&entry(&[(IMAGE_NAME, "a.b/c:1"), (REF_NAME, "1")])), ["a.b/c:1"]);
        assert_eq!(target.names_inside(&entry(&[(REF_NAME, "busybox:1")])), ["docker.io/library/busybox:1"]);
        assert!(target.names_inside(&entry(&[(REF_NAME, "latest")])).is_empty());
        assert!(target.names_inside(&entry(&[])).is_empty());
    }

    #[test]
    fn prefixes_make_and_choose_names() {
        let prefix = ExtraReference { name: "a.b/c".into(), is_prefix: true, ..Default::default() };
        let digest = Digest::of(b"");
        assert_eq!(with(prefix.clone()).names_inside(&entry(&[(REF_NAME, "v1")])), ["a.b/c:v1"]);
        assert!(with(prefix.clone()).names_inside(&entry(&[(IMAGE_NAME, "x.y/z:1")])).is_empty());
        let overwrite = ExtraReference { allow_overwrite: true, ..prefix.clone() };
        assert_eq!(with(overwrite).names_inside(&entry(&[(IMAGE_NAME, "x.y/z:1")])), ["x.y/z:1"]);
        let digested = ExtraReference { add_digest: true, ..prefix.clone() };
        assert_eq!(with(digested.clone()).names_inside(&entry(&[])), [format!("a.b/c@{digest}")]);
        assert_eq!(with(digested.clone()).names_inside(&entry(&[(REF_NAME, "v1")])).len(), 2);
        let once = ExtraReference { skip_named_digest: true, ..digested };
        assert_eq!(with(once).names_inside(&entry(&[(REF_NAME, "v1")])), ["a.b/c:v1"]);
    }

    #[test]
    fn names_of_the_whole() {
        let mut target = with(ExtraReference { name: "a.b/c".into(), add_digest: true, ..Default::default() });
        target.name = "a.b/c:1".into();
        let names = target.names(&entry(&[])).unwrap();
        assert_eq!(names, ["a.b/c:1".to_owned(), format!("a.b/c@{}", Digest::of(b""))]);
        assert!(Target::default().names(&entry(&[])).is_err());
    }
}
