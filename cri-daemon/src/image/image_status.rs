//! ImageStatus: one image by id, the beginning of its id, tag or digest. An unknown one is an empty answer, no error.

use std::collections::BTreeMap;

use serde_json::json;
use shared_proto::cri::v1;
use shared_proto::{Error, Result};

use super::index::Listed;
use super::list_images::to_cri;
use super::{ImageError, Images};
use crate::Cri;

impl Cri {
    pub async fn image_status(&self, req: v1::ImageStatusRequest) -> Result<v1::ImageStatusResponse> {
        let spec = req.image.ok_or(ImageError::Unnamed)?;
        let Some(listed) = self.0.images.find(&spec.image)? else {
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
}
