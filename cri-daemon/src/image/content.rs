//! Reads of an image what CRI has to tell of it: manifest and configuration, through the content port.
//!
//! Documents come from strangers: sizes are capped, unknown fields are fine, nothing is trusted to be there.

use std::sync::Arc;

use bytes::BytesMut;
use futures::TryStreamExt as _;
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use shared_proto::containerd::{self, content::ReadContentRequest};
use shared_proto::{Context, Core, Error, Result};

use super::ImageError;
use super::platform::Platform;
use crate::call;

/// The longest manifest or configuration that is read, bytes.
const MAX_DOCUMENT: usize = 8 << 20;
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

/// What is known of an image's content.
#[derive(Debug)]
pub struct Inspected {
    /// The digest of the configuration: what CRI calls the image's id.
    pub id: String,
    /// The name of the snapshot of all layers; empty for an image without layers.
    pub chain_id: String,
    /// Manifest, configuration and layers as they are stored, bytes. Never 0.
    pub size: u64,
    pub config: Arc<ImageConfiguration>,
    /// The layers, in order.
    pub layers: Arc<[containerd::Descriptor]>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    platform: Option<Platform>,
}

impl Descriptor {
    fn into_wire(self) -> containerd::Descriptor {
        let (media_type, digest) = (self.media_type, self.digest);
        let size = i64::try_from(self.size).unwrap_or(i64::MAX);
        containerd::Descriptor { media_type, digest, size, ..Default::default() }
    }
}

/// A manifest or an index: whichever fields are there say which.
#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

/// Reads the image that `digest` (a manifest or an index) holds for `platform`. `name` is for messages.
pub async fn inspect(core: &Core, cx: &Context, name: &str, digest: &str, platform: &Platform) -> Result<Inspected> {
    let mut waiting = vec![(digest.to_owned(), 0)];
    let mut absent = None;
    while let Some((digest, depth)) = waiting.pop() {
        let bytes = match read(core, cx, &digest).await {
            Ok(bytes) => bytes,
            // An index may name more than was fetched.
            Err(e) if e.is_not_found() && depth > 0 => {
                absent = absent.or(Some(e));
                continue;
            }
            Err(e) => return Err(e.context(format!("image {name}"))),
        };
        let document: Document = parse(name, &digest, &bytes)?;
        match (document.config, document.manifests) {
            (Some(config), _) => {
                let size = bytes.len() as u64 + config.size + document.layers.iter().map(|l| l.size).sum::<u64>();
                if let Some(image) = configuration(core, cx, name, &config.digest, size, platform).await? {
                    let layers = document.layers.into_iter().map(Descriptor::into_wire).collect();
                    return Ok(Inspected { layers, ..image });
                }
            }
            (None, Some(entries)) if depth < MAX_DEPTH => {
                waiting.extend(in_order(entries, platform).into_iter().map(|digest| (digest, depth + 1)));
            }
            (None, Some(_)) => return Err(malformed(name, "indexes are nested too deeply")),
            (None, None) => return Err(malformed(name, format!("{digest} is neither a manifest nor an index"))),
        }
    }
    match absent {
        Some(e) => Err(e.context(format!("image {name}"))),
        None => Err(ImageError::Platform { name: name.to_owned(), platform: platform.to_string() }.into()),
    }
}

/// The entries that may run here, the best one last. Entries that don't say for what they are come after all others.
fn in_order(entries: Vec<Descriptor>, platform: &Platform) -> Vec<String> {
    let mut ranked: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| {
            let rank = entry.platform.as_ref().map_or(Some(u32::MAX), |p| platform.rank(p))?;
            Some((rank, entry.digest))
        })
        .collect();
    // Stable, so that the first of equals is the best of them.
    ranked.reverse();
    ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    ranked.into_iter().map(|(_, digest)| digest).collect()
}

/// Nothing if the configuration is for another platform.
async fn configuration(
    core: &Core,
    cx: &Context,
    name: &str,
    digest: &str,
    size: u64,
    platform: &Platform,
) -> Result<Option<Inspected>> {
    let bytes = read(core, cx, digest).await.map_err(|e| e.context(format!("image {name}")))?;
    let built_for: Platform = parse(name, digest, &bytes)?;
    if platform.rank(&built_for).is_none() {
        return Ok(None);
    }
    let config: ImageConfiguration = parse(name, digest, &bytes)?;
    let chain_id = chain_id(config.rootfs().diff_ids());
    Ok(Some(Inspected { id: digest.to_owned(), chain_id, size, config: Arc::new(config), layers: Arc::default() }))
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, digest: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| malformed(name, format!("{digest}: {e}")))
}

fn malformed(name: &str, reason: impl Into<String>) -> Error {
    ImageError::Malformed { name: name.to_owned(), reason: reason.into() }.into()
}

async fn read(core: &Core, cx: &Context, digest: &str) -> Result<BytesMut> {
    let request = ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
    let whole = async {
        let mut blocks = core.content.read(cx, request.clone()).await?;
        let mut bytes = BytesMut::new();
        while let Some(block) = blocks.try_next().await? {
            if bytes.len() + block.data.len() > MAX_DOCUMENT {
                return Err(Error::precondition(format!("longer than {MAX_DOCUMENT} bytes")));
            }
            bytes.extend_from_slice(&block.data);
        }
        Ok(bytes)
    };
    call::within(format!("read {digest}"), call::RECORD, whole).await
}

/// The name under which the snapshot of these layers is committed, by the OCI image specification.
fn chain_id(diff_ids: &[String]) -> String {
    diff_ids.iter().fold(String::new(), |chain, next| chain_next(&chain, next))
}

/// The chain with one more layer; `chain` is empty for the first one.
pub(super) fn chain_next(chain: &str, diff_id: &str) -> String {
    if chain.is_empty() {
        return diff_id.to_owned();
    }
    let digest = Sha256::digest(format!("{chain} {diff_id}").as_bytes());
    format!("sha256:{}", hex::encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_those_of_the_specification() {
        let ids = ["sha256:a", "sha256:b"].map(str::to_owned);
        assert_eq!(chain_id(&[]), "");
        assert_eq!(chain_id(&ids[..1]), "sha256:a");
        let two = format!("sha256:{}", hex::encode(Sha256::digest(b"sha256:a sha256:b")));
        assert_eq!(chain_id(&ids), two);
    }

    #[test]
    fn the_best_entry_is_tried_first() {
        let entry = |digest: &str, platform: Option<(&str, &str)>| Descriptor {
            media_type: String::new(),
            digest: digest.into(),
            size: 1,
            platform: platform.map(|(os, architecture)| Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: String::new(),
            }),
        };
        let here = Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
        let entries = vec![
            entry("nested", None),
            entry("windows", Some(("windows", "amd64"))),
            entry("first", Some(("linux", "amd64"))),
            entry("second", Some(("linux", "amd64"))),
            entry("attestation", Some(("unknown", "unknown"))),
        ];
        assert_eq!(in_order(entries, &here), ["nested", "second", "first"]);
    }
}
