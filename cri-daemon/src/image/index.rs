//! Images by id and by name, in memory: what lists and look-ups are answered from.
//!
//! Invariant: an image is here as long as a name points at it, and names it as often as they do. The index is a copy
//! of the core's image records; who changes it and when is [`super::fresh`]'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::Inspected;
use super::{ImageError, Reference, reference};

/// Name of a record that is an image's id: `sha256:…`, the third of the references that a pull leaves.
fn is_id(name: &str) -> bool {
    reference::is_id(name)
}

#[derive(Default)]
pub struct Index {
    names: BTreeMap<String, Named>,
    images: BTreeMap<String, Held>,
    /// Counts changes: who reads a record from the core checks that none came between.
    changes: u64,
}

/// What a name points at.
#[derive(Debug, Clone)]
pub struct Named {
    /// Digest of the manifest or index.
    pub target: String,
    pub pinned: bool,
    pub image: Arc<Inspected>,
}

struct Held {
    image: Arc<Inspected>,
    names: BTreeSet<String>,
}

/// An image with all its names.
#[derive(Debug, Clone)]
pub struct Listed {
    pub image: Arc<Inspected>,
    /// Normalised references with a tag.
    pub tags: Vec<String>,
    /// Normalised references with a digest.
    pub digests: Vec<String>,
    pub pinned: bool,
}

impl Index {
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Makes `name` point at an image, whatever it pointed at before.
    pub fn set(&mut self, name: &str, named: Named) {
        self.remove(name);
        let held = self.images.entry(named.image.id.clone());
        let held = held.or_insert_with(|| Held { image: named.image.clone(), names: BTreeSet::new() });
        held.names.insert(name.to_owned());
        self.names.insert(name.to_owned(), named);
    }

    pub fn remove(&mut self, name: &str) {
        self.changes += 1;
        let Some(old) = self.names.remove(name) else { return };
        if let Some(held) = self.images.get_mut(&old.image.id) {
            held.names.remove(name);
            if held.names.is_empty() {
                self.images.remove(&old.image.id);
            }
        }
    }

    /// Forgets every name that is not in `names`.
    pub fn retain(&mut self, names: &BTreeSet<String>) {
        let gone: Vec<String> = self.names.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.remove(name));
    }

    /// What is known of the content behind a target's digest.
    pub fn content(&self, target: &str) -> Option<Arc<Inspected>> {
        self.names.values().find(|named| named.target == target).map(|named| named.image.clone())
    }

    /// The names of an image, its id last.
    pub fn names_of(&self, id: &str) -> Vec<String> {
        let Some(held) = self.images.get(id) else { return Vec::new() };
        let (ids, mut names): (Vec<_>, Vec<_>) = held.names.iter().cloned().partition(|name| is_id(name));
        names.extend(ids);
        names
    }

    pub fn list(&self) -> Vec<Listed> {
        self.images.values().map(|held| self.listed(held)).collect()
    }

    /// Finds an image by its id, by a name (which is completed first), or by the beginning of its id.
    pub fn find(&self, text: &str) -> Result<Listed, ImageError> {
        if text.is_empty() {
            return Err(ImageError::Unnamed);
        }
        if let Some(held) = self.images.get(text) {
            return Ok(self.listed(held));
        }
        if !reference::is_id(text) {
            let by_name = Reference::parse(text).ok().and_then(|r| self.names.get(&r.to_string()));
            // A name that somebody recorded as it is, without completing it.
            if let Some(named) = by_name.or_else(|| self.names.get(text)) {
                return Ok(self.listed(&self.images[&named.image.id]));
            }
        }
        let not_found = || ImageError::NotFound { reference: text.to_owned() };
        let prefix = format!("sha256:{}", reference::id_prefix(text).ok_or_else(not_found)?);
        let mut matching = self.images.range(prefix.clone()..).take_while(|(id, _)| id.starts_with(&prefix));
        match (matching.next(), matching.next()) {
            (None, _) => Err(not_found()),
            (Some((_, held)), None) => Ok(self.listed(held)),
            (Some((first, _)), Some((second, _))) => {
                let ids = [first, second].into_iter().chain(matching.map(|(id, _)| id)).cloned().collect();
                Err(ImageError::Ambiguous { prefix: text.to_owned(), ids })
            }
        }
    }

    fn listed(&self, held: &Held) -> Listed {
        let mut listed = Listed { image: held.image.clone(), tags: Vec::new(), digests: Vec::new(), pinned: false };
        for name in &held.names {
            listed.pinned |= self.names.get(name).is_some_and(|named| named.pinned);
            match Reference::parse(name) {
                Ok(r) if !is_id(name) && r.is_tag() => listed.tags.push(r.to_string()),
                Ok(r) if !is_id(name) => listed.digests.push(r.to_string()),
                // The id, or a name that is no reference: it keeps the image, but CRI has no place to show it.
                Ok(_) | Err(_) => {}
            }
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str) -> Arc<Inspected> {
        let config = Default::default();
        Arc::new(Inspected {
            id: id.to_owned(),
            chain_id: String::new(),
            size: 1,
            config: Arc::new(config),
            layers: Arc::default(),
        })
    }

    fn named(id: &str, pinned: bool) -> Named {
        Named { target: format!("manifest of {id}"), pinned, image: image(id) }
    }

    fn id(start: &str) -> String {
        format!("sha256:{start}{}", "0".repeat(64 - start.len()))
    }

    fn filled() -> Index {
        let mut index = Index::default();
        let digest = id("dd");
        for (name, at, pinned) in [
            ("docker.io/library/busybox:latest", "ab1", false),
            (&format!("docker.io/library/busybox@{digest}"), "ab1", false),
            (&id("ab1"), "ab1", false),
            ("registry.k8s.io/pause:3.9", "ab2", true),
            ("docker.io/library/ab3:latest", "cc", false),
        ] {
            index.set(name, named(&id(at), pinned));
        }
        index
    }

    #[test]
    fn finds_by_id_name_and_unique_beginning() {
        let index = filled();
        for text in ["busybox", "docker.io/library/busybox:latest", &id("ab1"), "ab1", "sha256:ab1"] {
            assert_eq!(index.find(text).unwrap().image.id, id("ab1"), "{text}");
        }
        assert_eq!(index.find("ab3").unwrap().image.id, id("cc"), "a name goes before a beginning");
        let Err(ImageError::Ambiguous { ids, .. }) = index.find("ab") else { panic!("not ambiguous") };
        assert_eq!(ids, [id("ab1"), id("ab2")]);
        for text in ["nginx", "ff", &id("ff"), "A B"] {
            assert!(matches!(index.find(text), Err(ImageError::NotFound { .. })), "{text}");
        }
    }

    #[test]
    fn lists_names_by_kind() {
        let listed = filled().find("busybox").unwrap();
        assert_eq!(listed.tags, ["docker.io/library/busybox:latest"]);
        assert_eq!(listed.digests, [format!("docker.io/library/busybox@{}", id("dd"))]);
        assert!(!listed.pinned && filled().find("ab2").unwrap().pinned);
        assert_eq!(filled().names_of(&id("ab1")).last(), Some(&id("ab1")));
    }

    #[test]
    fn an_image_lives_as_long_as_its_last_name() {
        let mut index = filled();
        let names = index.names_of(&id("ab1"));
        assert_eq!(names.len(), 3);
        for (at, name) in names.iter().enumerate() {
            assert_eq!(index.names_of(&id("ab1")).len(), names.len() - at);
            index.remove(name);
        }
        assert!(index.find("ab1").is_err());
        assert_eq!(index.list().len(), 2);
    }

    #[test]
    fn a_moved_name_leaves_its_old_image() {
        let mut index = filled();
        index.set("docker.io/library/ab3:latest", named(&id("ab1"), false));
        assert!(index.find(&id("cc")).is_err());
        assert_eq!(index.find("ab3").unwrap().tags.len(), 2);
        index.retain(&BTreeSet::from(["registry.k8s.io/pause:3.9".to_owned()]));
        assert_eq!(index.list().len(), 1);
    }
}
