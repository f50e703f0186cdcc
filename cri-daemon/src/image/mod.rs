//! Images as the kubelet sees them: by id (the digest of the configuration), by tag, by digest.
//!
//! The core holds the records and the content, pulls and unpacks. Here is an index in memory of what it holds, from
//! which lists and look-ups are answered without asking, and the RPCs of the ImageService, one file each.
//!
//! - [`index`]: images by id and by name.                   - [`fresh`]: how the index follows the core.
//! - [`reference`], [`platform`]: names; which part of an image is for us.
//! - [`content`]: what manifest and configuration say.      - [`records`]: writing image records.
//! - [`transfer`], [`stream`], [`credentials`]: a pull, done by the core.
//! - [`unpack`]: layers into a snapshotter that the pull was not for.
//! - [`flight`]: the same pull asked for twice is one pull.
//! - [`usage`]: what the snapshots take on disk.
//! - [`pull_image`], [`list_images`], [`image_status`], [`remove_image`], [`image_fs_info`]: the RPCs.

pub mod content;
pub mod credentials;
mod error;
pub mod flight;
mod fresh;
mod image_fs_info;
mod image_status;
pub mod index;
mod list_images;
pub mod platform;
mod pull_image;
mod records;
pub mod reference;
mod remove_image;
pub mod stream;
mod transfer;
mod unpack;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use oci_spec::image::ImageConfiguration;
use shared_proto::containerd::Descriptor;
use shared_proto::{Context, Core, Result};

pub use error::ImageError;
pub use reference::Reference;

use credentials::Credentials;
use flight::Flights;
use index::{Index, Listed};
use platform::Platform;

/// Label of every image record that CRI knows of.
const MANAGED: &str = "io.cri-containerd.image";
/// Label of images that the kubelet must not collect.
const PINNED: &str = "io.cri-containerd.pinned";

type Labels = BTreeMap<String, String>;

/// The images of the core's namespace `k8s.io`. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    core: Core,
    cx: Context,
    config: shared_config::CriImages,
    /// Snapshotters of runtime handlers that have their own.
    handlers: BTreeMap<String, String>,
    default_handler: String,
    /// Names, completed, of the sandbox image and the others that the kubelet must not collect.
    pinned: BTreeSet<String>,
    root: std::path::PathBuf,
    platform: Platform,
    index: RwLock<Index>,
    pulls: Flights<pull_image::Key, Result<String>>,
    removals: Flights<String, Result<()>>,
    /// By chain id and snapshotter.
    unpacks: Flights<(String, String), Result<()>>,
    usage: usage::Usage,
}

/// What a container needs of its image.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Digest of the configuration: `sha256:…`.
    pub id: String,
    /// A tag; for an image without one a digest reference, or else its id.
    pub reference: String,
    /// `NAME@DIGEST`; for an image that came without a registry its id.
    pub repo_digest: String,
    /// Name of the snapshot to build on; empty for an image without layers.
    pub chain_id: String,
    pub config: Arc<ImageConfiguration>,
    /// The layers as they are stored, in order.
    pub layers: Arc<[Descriptor]>,
    /// Bytes, as stored.
    pub size: u64,
    /// Whether the kubelet must not collect it.
    pub pinned: bool,
}

impl Images {
    /// Empty until [`Images::start`].
    pub fn new(core: Core, config: &shared_config::Config) -> Self {
        let pinned = config.images.pinned_images.values().chain([&config.images.sandbox_image]);
        Self(Arc::new(Inner {
            cx: Context::new(crate::NAMESPACE),
            handlers: config.runtime.runtimes.iter().map(|(name, r)| (name.clone(), r.snapshotter.clone())).collect(),
            default_handler: config.runtime.default_runtime_name.clone(),
            pinned: pinned
                .map(|name| Reference::parse(name).map_or_else(|_| name.clone(), |r| r.to_string()))
                .collect(),
            root: config.root.clone(),
            platform: Platform::host(),
            index: RwLock::default(),
            pulls: Flights::default(),
            removals: Flights::default(),
            unpacks: Flights::default(),
            usage: usage::Usage::default(),
            config: config.images.clone(),
            core,
        }))
    }

    /// Finds an image by id, by the beginning of its id, by tag or by digest.
    pub async fn resolve(&self, reference_or_id: &str) -> Result<ResolvedImage> {
        let found = self.find_or_ask(reference_or_id).await?;
        Ok(found.ok_or_else(|| ImageError::NotFound { reference: reference_or_id.to_owned() })?.into())
    }

    /// The same, pulled without credentials into `snapshotter` when it is not there.
    pub async fn ensure(&self, reference: &str, snapshotter: &str) -> Result<ResolvedImage> {
        match self.resolve(reference).await {
            Err(e) if e.is_not_found() => {}
            found => return found,
        }
        let id = self.pull(Reference::parse(reference)?, Credentials::default(), snapshotter.to_owned()).await?;
        self.resolve(&id).await
    }

    /// Every image.
    pub fn list(&self) -> Vec<Listed> {
        self.index().list()
    }

    /// The snapshotter of a runtime handler; `""` is the default handler.
    pub fn snapshotter(&self, handler: &str) -> Result<String, ImageError> {
        let handler = if handler.is_empty() { &self.0.default_handler } else { handler };
        match self.0.handlers.get(handler) {
            Some(own) if !own.is_empty() => Ok(own.clone()),
            Some(_) => Ok(self.0.config.snapshotter.clone()),
            None => Err(ImageError::Handler { handler: handler.to_owned() }),
        }
    }

    /// The labels of a record that was asked for as `name`.
    fn labels(&self, name: &str) -> Labels {
        let mut labels = Labels::from([(MANAGED.to_owned(), "managed".to_owned())]);
        if self.0.pinned.contains(name) {
            labels.insert(PINNED.to_owned(), "pinned".to_owned());
        }
        labels
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.0.index.read().expect("image index lock")
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.index.write().expect("image index lock")
    }
}

impl From<Listed> for ResolvedImage {
    fn from(listed: Listed) -> Self {
        let Listed { image, tags, digests, pinned } = listed;
        let first = |names: &[String]| names.first().cloned();
        Self {
            reference: first(&tags).or_else(|| first(&digests)).unwrap_or_else(|| image.id.clone()),
            repo_digest: first(&digests).unwrap_or_else(|| image.id.clone()),
            id: image.id.clone(),
            chain_id: image.chain_id.clone(),
            config: image.config.clone(),
            layers: image.layers.clone(),
            size: image.size,
            pinned,
        }
    }
}

#[cfg(test)]
mod tests;
