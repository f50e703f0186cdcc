//! ImageStatus: one image by id, the beginning of its id, tag or digest. An unknown one is an empty answer, no error.

use std::collections::BTreeMap;

use serde_json::json;
use shared_proto::cri::v1;
use shared_proto::{Error, Result};

use super::index::Listed;
use super::list_images::to_cri;
use super::{ImageError, Images, Reference, reference};
use crate::Cri;

impl Cri {
    pub async fn image_status(&self, req: v1::ImageStatusRequest) -> Result<v1::ImageStatusResponse> {
        let spec = req.image.ok_or(ImageError::Unnamed)?;
        let Some(listed) = self.0.images.find_or_ask(&spec.image).await? else {
            return Ok(v1::ImageStatusResponse { image: None, info: BTreeMap::new() });
        };
        let mut info = BTreeMap::new();
        if req.verbose {
            let value = json!({ "chainID": listed.image.chain_id, "imageSpec": &*listed.image.config });
            info.insert("info".to_owned(), value.to_string());
        }
        Ok(v1::ImageStatusResponse { image: Some(to_cri(listed)), info })
    }
}

impl Images {
    /// An image, or nothing if it is unknown.
    pub(super) fn find(&self, text: &str) -> Result<Option<Listed>> {
        match self.index().find(text) {
            Ok(listed) => Ok(Some(listed)),
            Err(ImageError::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::from(e)),
        }
    }

    /// The same. A name that is unknown is asked for first: its event may be under way.
    pub(super) async fn find_or_ask(&self, text: &str) -> Result<Option<Listed>> {
        let found = self.find(text)?;
        match Reference::parse(text) {
            Ok(reference) if found.is_none() && !reference::is_id(text) => {
                if let Err(error) = self.refresh(&reference.to_string()).await {
                    tracing::debug!(image = text, %error, "not asked for");
                }
                self.find(text)
            }
            Ok(_) | Err(_) => Ok(found),
        }
    }
}
