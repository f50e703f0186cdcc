//! What images are made of: descriptors, manifests, indexes, configurations; the formats of OCI and of Docker.
//!
//! Documents are kept as the bytes that their digest covers; these types only read what is needed from them. Unknown
//! fields are fine. Everything here comes from strangers: sizes are capped before anything is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageError;
use crate::domain::Digest;

pub use crate::diff::is_layer;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What we ask a registry for.
pub const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// The longest manifest, index or configuration, bytes. Registries take manifests of up to 4 MiB.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// The most layers of an image. Overlayfs can't mount more either.
const MAX_LAYERS: usize = 500;
/// The most entries of an index.
const MAX_ENTRIES: usize = 2000;

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    #[serde(with = "digest_text")]
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// For what an image was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A manifest or an index, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
    Index { manifests: Vec<Descriptor> },
}

/// The part of an image's configuration that unpacking needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub platform: Platform,
    /// Digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// Whether `media_type` is of the time before 2016, when images had no configuration.
pub fn is_schema1(media_type: &str) -> bool {
    DOCKER_SCHEMA1.contains(&media_type)
}

pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// The format of a document, by what it says or holds itself.
pub fn sniff(bytes: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "mediaType", default)]
        media_type: String,
        #[serde(rename = "schemaVersion", default)]
        schema: u32,
        config: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let probe: Probe = serde_json::from_slice(bytes).ok()?;
    let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1[0], DOCKER_SCHEMA1[1]];
    if let Some(named) = known.into_iter().find(|known| *known == probe.media_type) {
        return Some(named);
    }
    match (probe.schema, probe.config.is_some(), probe.manifests.is_some()) {
        (1, ..) => Some(DOCKER_SCHEMA1[0]),
        (_, true, false) => Some(OCI_MANIFEST),
        (_, false, true) => Some(OCI_INDEX),
        (_, true, true) | (_, false, false) => None,
    }
}

impl Document {
    /// Reads a document of this type. One that could be read as two kinds is refused.
    pub fn parse(media_type: &str, bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Raw {
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
            manifests: Option<Vec<Descriptor>>,
        }
        let malformed = |reason: String| ImageError::Malformed { what: what.to_owned(), reason };
        if is_schema1(media_type) {
            return Err(ImageError::Schema1 { reference: what.to_owned() });
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        match (is_index(media_type), is_manifest(media_type), raw) {
            (true, _, Raw { config: None, layers: None, manifests: Some(manifests) }) => {
                if manifests.len() > MAX_ENTRIES {
                    return Err(malformed(format!("{} entries; the limit is {MAX_ENTRIES}", manifests.len())));
                }
                Ok(Self::Index { manifests })
            }
            (_, true, Raw { config: Some(config), layers, manifests: None }) => {
                let layers = layers.unwrap_or_default();
                if layers.len() > MAX_LAYERS {
                    return Err(malformed(format!("{} layers; the limit is {MAX_LAYERS}", layers.len())));
                }
                Ok(Self::Manifest { config, layers })
            }
            (false, false, _) => Err(malformed(format!("{media_type:?} is neither a manifest nor an index"))),
            _ => Err(malformed(format!("the content is not what {media_type:?} says"))),
        }
    }
}

impl Config {
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(flatten)]
            platform: Platform,
            rootfs: Option<RootFs>,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Vec<String>,
        }
        let malformed = |reason: String| ImageError::Malformed { what: what.to_owned(), reason };
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        let ids = raw.rootfs.map(|r| r.diff_ids).unwrap_or_default();
        let diff_ids: Result<Vec<_>, _> = ids.iter().map(|id| Digest::parse(id)).collect();
        Ok(Self { platform: raw.platform, diff_ids: diff_ids.map_err(|e| malformed(e.0))? })
    }
}

/// The name under which the snapshot of these layers is committed, by the OCI image specification.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |chain, next| Digest::of(format!("{chain} {next}").as_bytes())))
}

mod digest_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::domain::Digest;

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(digest.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(|e| serde::de::Error::custom(e.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn reads_manifests_and_indexes_with_unknown_fields() {
        let descriptor = format!(r#"{{"mediaType":"x","digest":"{D}","size":3,"extra":[1]}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}],"other":{{}}}}"#);
        assert_eq!(sniff(manifest.as_bytes()), Some(OCI_MANIFEST));
        let Document::Manifest { layers, .. } = Document::parse(OCI_MANIFEST, manifest.as_bytes(), "m").unwrap() else {
            panic!("a manifest was read as an index")
        };
        assert_eq!(layers[0].digest.as_str(), D);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        assert_eq!(sniff(index.as_bytes()), Some(OCI_INDEX));
        assert!(matches!(Document::parse(DOCKER_LIST, index.as_bytes(), "i"), Ok(Document::Index { .. })));
    }

    #[test]
    fn refuses_what_is_ambiguous_old_or_malformed() {
        let descriptor = format!(r#"{{"digest":"{D}","size":3}}"#);
        let both = format!(r#"{{"config":{descriptor},"layers":[],"manifests":[]}}"#);
        assert_eq!(sniff(both.as_bytes()), None);
        for (media_type, text, why) in [
            (OCI_MANIFEST, both.as_str(), "not what"),
            (OCI_INDEX, both.as_str(), "not what"),
            (OCI_INDEX, r#"{"manifests":[{"digest":"sha256:../x","size":1}]}"#, "malformed digest"),
            (OCI_INDEX, r#"{"manifests":[{"digest":"md5:00","size":1}]}"#, "not sha256"),
            (OCI_MANIFEST, "{", "EOF"),
            ("text/html", "{}", "neither a manifest nor an index"),
            (DOCKER_SCHEMA1[1], "{}", "schema 1"),
        ] {
            let e = Document::parse(media_type, text.as_bytes(), "it").unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
        let negative = format!(r#"{{"config":{{"digest":"{D}","size":-1}}}}"#);
        assert!(Document::parse(OCI_MANIFEST, negative.as_bytes(), "it").is_err());
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
        assert_eq!(chain_id(&[a.clone(), b.clone()]), Some(Digest::of(format!("{a} {b}").as_bytes())));
    }
}
