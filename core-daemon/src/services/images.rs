//! Image records.
//!
//! `Update` with a mask changes `labels`, `labels.KEY`, `target`, `annotations` and `annotations.KEY`; without one it
//! replaces labels and target. `Delete` with `sync` answers when a collection that began after it is done.

use async_trait::async_trait;
use shared_proto::api;
use shared_proto::containerd::images as pb;
use shared_proto::{Context, Result};
use shared_sys::files::Durability;

use super::convert::{self, Path};
use super::detached;
use crate::domain::{Filters, Scope};
use crate::events::Exchange;
use crate::gc::Gc;
use crate::metadata::images::{self, Change, Image};
use crate::metadata::{Db, MetadataError};

/// The images service.
#[derive(Clone)]
pub struct ImagesService {
    db: Db,
    exchange: Exchange,
    gc: Gc,
}

impl ImagesService {
    pub fn new(db: Db, exchange: Exchange, gc: Gc) -> Self {
        Self { db, exchange, gc }
    }
}

#[async_trait]
impl api::Images for ImagesService {
    async fn get(&self, cx: &Context, req: pb::GetImageRequest) -> Result<pb::GetImageResponse> {
        let ns = Scope::of(cx)?.ns;
        let found = self.db.read(move |c| images::get(c, &ns, &req.name)).await?;
        Ok(pb::GetImageResponse { image: Some(encode(found)) })
    }

    async fn list(&self, cx: &Context, req: pb::ListImagesRequest) -> Result<pb::ListImagesResponse> {
        let ns = Scope::of(cx)?.ns;
        let filters = Filters::parse(&req.filters)?;
        let all = self.db.read(move |c| images::list(c, &ns)).await?;
        let images = all.into_iter().filter(|image| filters.matches(image)).map(encode).collect();
        Ok(pb::ListImagesResponse { images })
    }

    async fn create(&self, cx: &Context, req: pb::CreateImageRequest) -> Result<pb::CreateImageResponse> {
        let scope = Scope::of(cx)?;
        let mut new = decode(req.image.ok_or_else(|| convert::missing("image"))?)?;
        let epoch = req.source_date_epoch.map_or(0, convert::from_timestamp);
        (new.created_at, new.updated_at) = (epoch, epoch);
        let this = self.clone();
        detached(async move {
            let of = scope.clone();
            let made = this.db.write(Durability::Durable, move |c| images::create(c, &of, new)).await?;
            let event = pb::ImageCreate { name: made.name.clone(), labels: made.labels.clone() };
            this.exchange.publish_message(scope.ns.as_str(), "/images/create", &event);
            Ok(pb::CreateImageResponse { image: Some(encode(made)) })
        })
        .await
    }

    async fn update(&self, cx: &Context, req: pb::UpdateImageRequest) -> Result<pb::UpdateImageResponse> {
        let scope = Scope::of(cx)?;
        let new = req.image.ok_or_else(|| convert::missing("image"))?;
        let name = new.name.clone();
        let changes = changes(new, &convert::paths(req.update_mask.as_ref(), &["labels", "annotations"]))?;
        let epoch = req.source_date_epoch.map(convert::from_timestamp);
        let this = self.clone();
        detached(async move {
            let ns = scope.ns.clone();
            let work = move |c: &rusqlite::Connection| images::update(c, &ns, &name, changes, epoch);
            let updated = this.db.write(Durability::Durable, work).await?;
            let event = pb::ImageUpdate { name: updated.name.clone(), labels: updated.labels.clone() };
            this.exchange.publish_message(scope.ns.as_str(), "/images/update", &event);
            // Its old target may be held by nothing else.
            this.gc.schedule();
            Ok(pb::UpdateImageResponse { image: Some(encode(updated)) })
        })
        .await
    }

    async fn delete(&self, cx: &Context, req: pb::DeleteImageRequest) -> Result<()> {
        let scope = Scope::of(cx)?;
        let this = self.clone();
        detached(async move {
            let (ns, name) = (scope.ns.clone(), req.name.clone());
            let target = req.target.map(|target| target.digest).filter(|digest| !digest.is_empty());
            let work = move |c: &rusqlite::Connection| images::delete(c, &ns, &name, target.as_deref());
            this.db.write::<_, MetadataError>(Durability::Durable, work).await?;
            this.exchange.publish_message(scope.ns.as_str(), "/images/delete", &pb::ImageDelete { name: req.name });
            if req.sync {
                this.gc.collect().await?;
            } else {
                this.gc.schedule();
            }
            Ok(())
        })
        .await
    }
}

/// The steps that a mask asks for.
fn changes(new: pb::Image, paths: &[Path<'_>]) -> Result<Vec<Change>> {
    let pb::Image { name, labels, target, .. } = new;
    let target = target.unwrap_or_default();
    if paths.is_empty() {
        return Ok(vec![Change::Labels(labels), Change::Target(convert::descriptor(target)?)]);
    }
    let value = |map: &std::collections::BTreeMap<String, String>, key: &str| map.get(key).cloned().unwrap_or_default();
    let mut changes = Vec::with_capacity(paths.len());
    for path in paths {
        changes.push(match *path {
            Path::Entry("labels", key) => Change::Label(key.to_owned(), value(&labels, key)),
            Path::Entry("annotations", key) => Change::Annotation(key.to_owned(), value(&target.annotations, key)),
            Path::Field("labels") => Change::Labels(labels.clone()),
            Path::Field("annotations") => Change::Annotations(target.annotations.clone()),
            Path::Field("target") => Change::Target(convert::descriptor(target.clone())?),
            other => return Err(convert::immutable(other, "image", &name)),
        });
    }
    Ok(changes)
}

fn decode(proto: pb::Image) -> Result<Image> {
    let target = proto.target.ok_or_else(|| convert::missing("target of the image"))?;
    let target = convert::descriptor(target)?;
    Ok(Image { name: proto.name, labels: proto.labels, target, created_at: 0, updated_at: 0 })
}

fn encode(image: Image) -> pb::Image {
    pb::Image {
        name: image.name,
        labels: image.labels,
        target: Some(convert::to_descriptor(image.target)),
        created_at: Some(convert::timestamp(image.created_at)),
        updated_at: Some(convert::timestamp(image.updated_at)),
    }
}
