//! Which images are meant: from what a reference points at, through indexes, to the manifests for our platforms.
//!
//! Limits: [`MAX_DEPTH`] indexes inside each other, [`MAX_IMAGES`] images.

use super::ImageError;
use super::fetch::Fetcher;
use super::manifest::{Descriptor, Document, Platform};
use super::puller::Transfer;
use super::target::Target;

/// The deepest nesting of indexes.
const MAX_DEPTH: u32 = 4;
/// The most images that one transfer brings.
const MAX_IMAGES: usize = 256;

/// An image below an index, or alone.
pub(super) struct Found {
    pub manifest: Descriptor,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

impl Transfer {
    /// The images below `root` that are wanted, from the top down. Their manifests are in the store after that.
    pub(super) async fn collect(
        &self,
        fetcher: &Fetcher<'_>,
        root: &Descriptor,
        body: Option<Vec<u8>>,
        target: &Target,
    ) -> Result<Vec<Found>, ImageError> {
        let mut found = Vec::new();
        let mut open = vec![(root.clone(), None::<Descriptor>, body, 0)];
        while let Some((descriptor, parent, body, depth)) = open.pop() {
            let what = format!("manifest {}", descriptor.digest);
            let document = fetcher.document(&descriptor, parent.as_ref(), body);
            match self.unless_stopped(document).await? {
                Document::Manifest { config, layers } => found.push(Found { manifest: descriptor, config, layers }),
                Document::Index { .. } if depth == MAX_DEPTH => {
                    let reason = format!("indexes are nested deeper than {MAX_DEPTH}");
                    return Err(ImageError::Malformed { what, reason });
                }
                Document::Index { manifests } => {
                    // The last one pushed is looked at first.
                    for entry in wanted(&manifests, &target.wanted(), &what)?.into_iter().rev() {
                        open.push((entry.clone(), Some(descriptor.clone()), None, depth + 1));
                    }
                }
            }
            if found.len() + open.len() > MAX_IMAGES {
                let reason = format!("more than {MAX_IMAGES} images");
                return Err(ImageError::Malformed { what: root.digest.to_string(), reason });
            }
        }
        Ok(found)
    }
}

/// The entries of an index that are wanted: the best one for each platform, or all when none is named.
fn wanted<'a>(
    entries: &'a [Descriptor],
    platforms: &[Platform],
    what: &str,
) -> Result<Vec<&'a Descriptor>, ImageError> {
    if platforms.is_empty() {
        return Ok(entries.iter().collect());
    }
    let mut chosen: Vec<&Descriptor> = Vec::new();
    for entry in platforms.iter().filter_map(|platform| platform.choose(entries)) {
        if !chosen.contains(&entry) {
            chosen.push(entry);
        }
    }
    if chosen.is_empty() {
        let list = |all: Vec<String>| all.join(", ");
        return Err(ImageError::NoPlatform {
            what: what.to_owned(),
            wanted: list(platforms.iter().map(Platform::to_string).collect()),
            available: list(entries.iter().filter_map(|e| Some(e.platform.as_ref()?.to_string())).collect()),
        });
    }
    Ok(chosen)
}
