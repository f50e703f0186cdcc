//! What `docker save` writes: `manifest.json` names the configuration, the layers and the tags of each image. Image
//! manifests are not in it and are made here, as Docker would push them.

use std::io::Read as _;

use serde::Deserialize;

use super::Contents;
use super::walk::{Archive, File};
use crate::domain::Digest;
use crate::images::manifest::{
    Config, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, DOCKER_MANIFEST, Descriptor, Document,
    OCI_INDEX,
};
use crate::images::puller::Transfer;
use crate::images::target::{IMAGE_NAME, REF_NAME};
use crate::images::{ImageError, Reference, inner};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

fn malformed(reason: String) -> ImageError {
    ImageError::Malformed { what: "the archive".into(), reason }
}

/// The archive's images; their manifests are in the store after that.
pub(super) async fn contents(transfer: &Transfer, archive: &Archive) -> Result<Contents, ImageError> {
    let Some(bytes) = &archive.manifest else {
        return Err(malformed("neither an OCI layout nor made by docker save".into()));
    };
    let listed: Vec<Entry> = serde_json::from_slice(bytes).map_err(|e| malformed(format!("manifest.json: {e}")))?;
    let mut entries = Vec::new();
    for image in &listed {
        let plain = one(transfer, archive, image).await?;
        let tags = image.repo_tags.iter().flatten();
        let named: Result<Vec<_>, _> = tags.map(|tag| Ok::<_, ImageError>(annotated(&plain, &tag.parse()?))).collect();
        let named = named?;
        if named.is_empty() { entries.push(plain) } else { entries.extend(named) }
    }
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    Ok(Contents { entries, index: index.to_string().into_bytes() })
}

fn annotated(plain: &Descriptor, name: &Reference) -> Descriptor {
    let mut named = plain.clone();
    named.annotations.insert(IMAGE_NAME.into(), name.to_string());
    named.annotations.insert(REF_NAME.into(), name.object().to_owned());
    named
}

/// Makes the manifest of one image.
async fn one(transfer: &Transfer, archive: &Archive, image: &Entry) -> Result<Descriptor, ImageError> {
    let file = |name: &str| archive.find(name).ok_or_else(|| malformed(format!("{name:?} is missing")));
    let config = described(file(&image.config)?, DOCKER_CONFIG);
    let fetcher = transfer.fetcher(None);
    let platform = Config::parse(&fetcher.read(&config).await?, &image.config)?.platform;
    let mut layers = Vec::new();
    for name in &image.layers {
        let layer = file(name)?;
        layers.push(described(layer, media_type(transfer, &layer.digest).await?));
    }
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": layers,
    });
    let bytes = json.to_string().into_bytes();
    let platform = (!platform.os.is_empty()).then_some(platform);
    let size = bytes.len() as u64;
    let manifest = Descriptor { platform, ..described(&File { digest: Digest::of(&bytes), size }, DOCKER_MANIFEST) };
    match fetcher.document(&manifest, None, Some(bytes)).await? {
        Document::Manifest { .. } | Document::Index { .. } => Ok(manifest),
    }
}

fn described(file: &File, media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: file.digest.clone(),
        size: file.size,
        annotations: Default::default(),
        platform: None,
    }
}

/// The kind of a layer, by how it begins.
async fn media_type(transfer: &Transfer, digest: &Digest) -> Result<&'static str, ImageError> {
    let blob = transfer.puller.content().open_blob(&transfer.scope, digest).await.map_err(inner)?;
    let mut start = Vec::new();
    let read = (&blob.file).take(4).read_to_end(&mut start);
    read.map_err(|source| ImageError::Io { what: format!("read {digest}"), source })?;
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => DOCKER_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => DOCKER_LAYER_ZSTD,
        _ => DOCKER_LAYER,
    })
}
