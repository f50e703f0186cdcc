//! Reading and writing image records in the core.

use prost_types::FieldMask;
use shared_proto::containerd::{Descriptor, images as i};
use shared_proto::{Error, Result};

use super::{Images, Labels};
use crate::call;

impl Images {
    pub(super) async fn record(&self, name: &str) -> Result<i::Image> {
        let inner = &*self.0;
        let doing = format!("get image {name}");
        let answer = call::patient(&doing, call::RECORD, call::PATIENCE, || {
            inner.core.images.get(&inner.cx, i::GetImageRequest { name: name.to_owned() })
        });
        answer.await?.image.ok_or_else(|| Error::internal(format!("{doing}: an empty answer")))
    }

    /// Makes `name` point at `target`, with at least these labels, whether it is there or not.
    pub(super) async fn point(&self, name: &str, target: Descriptor, labels: &Labels) -> Result<i::Image> {
        let inner = &*self.0;
        let image =
            i::Image { name: name.to_owned(), target: Some(target), labels: labels.clone(), ..Default::default() };
        let create = i::CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
        let created = call::patient(format!("create image {name}"), call::RECORD, call::PATIENCE, || {
            inner.core.images.create(&inner.cx, create.clone())
        });
        match created.await {
            Ok(answer) => Ok(answer.image.unwrap_or(image)),
            Err(e) if e.is_exists() => {
                let mut paths = vec!["target".to_owned()];
                paths.extend(labels.keys().map(|key| format!("labels.{key}")));
                self.update(image, paths).await
            }
            Err(e) => Err(e),
        }
    }

    /// Adds labels to a record, and says whether it is still there. That it is gone is no error.
    pub(super) async fn label(&self, name: &str, labels: Labels) -> Result<bool> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        match self.update(i::Image { name: name.to_owned(), labels, ..Default::default() }, paths).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn update(&self, image: i::Image, paths: Vec<String>) -> Result<i::Image> {
        let inner = &*self.0;
        let request = i::UpdateImageRequest {
            image: Some(image.clone()),
            update_mask: Some(FieldMask { paths }),
            source_date_epoch: None,
        };
        let updated = call::patient(format!("update image {}", image.name), call::RECORD, call::PATIENCE, || {
            inner.core.images.update(&inner.cx, request.clone())
        });
        Ok(updated.await?.image.unwrap_or(image))
    }

    /// Deletes a record, and with `sync` waits until what it alone kept is gone from disk. Absent is no error.
    pub(super) async fn unlink(&self, name: &str, sync: bool) -> Result<()> {
        let inner = &*self.0;
        let request = i::DeleteImageRequest { name: name.to_owned(), sync, target: None };
        let deleted = call::patient(format!("delete image {name}"), call::PROCESS, call::PATIENCE, || {
            inner.core.images.delete(&inner.cx, request.clone())
        });
        match deleted.await {
            Err(e) if !e.is_not_found() => Err(e),
            Ok(()) | Err(_) => {
                self.index_mut().remove(name);
                Ok(())
            }
        }
    }
}
