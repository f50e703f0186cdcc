//! RemoveImage: every name of the image goes, whichever was given; when the answer comes the disk is clean.
//!
//! Idempotent; removals of one image at a time are one removal, so nobody is answered before the disk is clean.

use shared_proto::Result;
use shared_proto::cri::v1;

use super::{ImageError, Images};
use crate::Cri;

impl Cri {
    pub async fn remove_image(&self, req: v1::RemoveImageRequest) -> Result<v1::RemoveImageResponse> {
        let spec = req.image.ok_or(ImageError::Unnamed)?;
        if let Some(listed) = self.0.images.find_or_ask(&spec.image).await? {
            self.0.images.remove(listed.image.id.clone()).await?;
        }
        Ok(v1::RemoveImageResponse {})
    }
}

impl Images {
    pub(super) async fn remove(&self, id: String) -> Result<()> {
        let images = self.clone();
        let flight = self.0.removals.join(id.clone(), || async move { images.remove_now(&id).await });
        flight.await
    }

    /// Deletes all names, the last one (the id) synchronously. Goes on after an error, and reports the first.
    async fn remove_now(&self, id: &str) -> Result<()> {
        let mut names = self.index().names_of(id);
        // Last, and even if it is not known yet: an image that is being adopted has this name for a moment before the
        // index does.
        names.retain(|name| name != id);
        names.push(id.to_owned());
        let mut first_error = None;
        for (at, name) in names.iter().enumerate() {
            let last = at + 1 == names.len();
            if let Err(error) = self.unlink(name, last).await {
                first_error = first_error.or(Some(error));
            }
        }
        match first_error {
            None => {
                tracing::info!(id, "image removed");
                Ok(())
            }
            Some(error) => Err(error.context(format!("remove image {id}"))),
        }
    }
}
