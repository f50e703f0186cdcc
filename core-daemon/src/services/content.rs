//! The content store's service. Writing is in [`write`].
//!
//! `Update` with a mask changes `labels` and `labels.KEY`; without one it replaces the labels.
//!
//! Limits: `Read` answers in blocks of [`BLOCK`] bytes, `List` in blocks of [`LISTED`] entries.

use std::borrow::Cow;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use shared_proto::api::{self, Items};
use shared_proto::containerd::content as pb;
use shared_proto::{Code, Context, Error, Result};

use super::convert::{self, Path};
use super::detached;
use crate::content::{Info, Status, Store};
use crate::domain::filter::Fields;
use crate::domain::{Digest, Filters, Labels, Scope};
use crate::gc::Gc;

#[cfg(test)]
mod tests;
mod write;

/// Bytes of a blob in one message.
const BLOCK: u64 = 1 << 20;
/// Entries of a listing in one message.
const LISTED: usize = 100;
/// Blocks that are read ahead of a client.
const AHEAD: usize = 2;

/// The content service.
#[derive(Clone)]
pub struct ContentService {
    store: Store,
    gc: Gc,
}

impl ContentService {
    pub fn new(store: Store, gc: Gc) -> Self {
        Self { store, gc }
    }
}

#[async_trait]
impl api::Content for ContentService {
    async fn info(&self, cx: &Context, req: pb::InfoRequest) -> Result<pb::InfoResponse> {
        let info = self.store.info(&Scope::of(cx)?, &Digest::parse(&req.digest)?).await?;
        Ok(pb::InfoResponse { info: Some(encode(info)) })
    }

    async fn update(&self, cx: &Context, req: pb::UpdateRequest) -> Result<pb::UpdateResponse> {
        let scope = Scope::of(cx)?;
        let mut new = req.info.ok_or_else(|| convert::missing("info"))?;
        let digest = Digest::parse(&new.digest)?;
        let paths = convert::paths(req.update_mask.as_ref(), &["labels"]);
        let mut changes = Labels::new();
        let mut replace = paths.is_empty();
        for path in &paths {
            match *path {
                Path::Entry("labels", key) => {
                    drop(changes.insert(key.to_owned(), new.labels.get(key).cloned().unwrap_or_default()));
                }
                Path::Field("labels") => replace = true,
                other => return Err(convert::immutable(other, "content", &new.digest)),
            }
        }
        let info = if replace {
            self.store.replace_labels(&scope, &digest, std::mem::take(&mut new.labels)).await?
        } else {
            self.store.set_labels(&scope, &digest, changes).await?
        };
        Ok(pb::UpdateResponse { info: Some(encode(info)) })
    }

    async fn delete(&self, cx: &Context, req: pb::DeleteContentRequest) -> Result<()> {
        let (scope, digest) = (Scope::of(cx)?, Digest::parse(&req.digest)?);
        let this = self.clone();
        detached(async move {
            this.store.delete(&scope, &digest).await?;
            // What only its labels held can go as well.
            this.gc.schedule();
            Ok(())
        })
        .await
    }

    async fn status(&self, cx: &Context, req: pb::StatusRequest) -> Result<pb::StatusResponse> {
        let status = self.store.status(&Scope::of(cx)?, &req.r#ref).await?;
        Ok(pb::StatusResponse { status: Some(encode_status(status)) })
    }

    async fn list_statuses(&self, cx: &Context, req: pb::ListStatusesRequest) -> Result<pb::ListStatusesResponse> {
        let filters = Filters::parse(&req.filters)?;
        let all = self.store.statuses(&Scope::of(cx)?).await?;
        let statuses = all.into_iter().filter(|status| filters.matches(status)).map(encode_status).collect();
        Ok(pb::ListStatusesResponse { statuses })
    }

    async fn abort(&self, cx: &Context, req: pb::AbortRequest) -> Result<()> {
        let (scope, store) = (Scope::of(cx)?, self.store.clone());
        detached(async move { Ok(store.abort(&scope, &req.r#ref).await?) }).await
    }

    async fn list(&self, cx: &Context, req: pb::ListContentRequest) -> Result<Items<pb::ListContentResponse>> {
        let (scope, filters) = (Scope::of(cx)?, Arc::new(Filters::parse(&req.filters)?));
        let store = self.store.clone();
        let blocks = futures::stream::try_unfold(String::new(), move |after| {
            let (store, scope, filters) = (store.clone(), scope.clone(), filters.clone());
            async move {
                let page = store.page(&scope, after, LISTED, filters).await?;
                Ok(page.last().map(|last| last.digest.to_string()).map(|last| (page, last)))
            }
        });
        let blocks = blocks.map_ok(|page| pb::ListContentResponse { info: page.into_iter().map(encode).collect() });
        Ok(blocks.boxed())
    }

    async fn read(&self, cx: &Context, req: pb::ReadContentRequest) -> Result<Items<pb::ReadContentResponse>> {
        let digest = Digest::parse(&req.digest)?;
        let blob = self.store.open_blob(&Scope::of(cx)?, &digest).await?;
        let begin = u64::try_from(req.offset).unwrap_or(0);
        if begin > blob.size {
            let message = format!("read of {digest} at {begin} is past its end at {}", blob.size);
            return Err(Error::new(Code::OutOfRange, message));
        }
        let left = blob.size - begin;
        let length = u64::try_from(req.size).ok().filter(|size| *size > 0).map_or(left, |size| size.min(left));
        let (end, file) = (begin + length, Arc::new(blob.file));
        let blocks = (begin..end).step_by(BLOCK as usize).map(move |at| {
            let (file, digest) = (file.clone(), digest.clone());
            let block = shared_sys::blocking(move || {
                let mut data = vec![0; BLOCK.min(end - at) as usize];
                file.read_exact_at(&mut data, at).map(|()| data)
            });
            async move {
                let data = block.await.map_err(|e| Error::internal(format!("read {digest} at {at}: {e}")))?;
                Ok(pb::ReadContentResponse { offset: at as i64, data: data.into() })
            }
        });
        Ok(futures::stream::iter(blocks).buffered(AHEAD).boxed())
    }

    async fn write(
        &self,
        cx: &Context,
        req: Items<pb::WriteContentRequest>,
    ) -> Result<Items<pb::WriteContentResponse>> {
        Ok(write::answers(self.store.clone(), Scope::of(cx)?, req))
    }
}

impl Fields for Status {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["ref"] => Some(self.reference.as_str().into()),
            _ => None,
        }
    }
}

fn encode(info: Info) -> pb::Info {
    pb::Info {
        digest: info.digest.to_string(),
        size: info.size as i64,
        created_at: Some(convert::timestamp(info.created_at)),
        updated_at: Some(convert::timestamp(info.updated_at)),
        labels: info.labels,
    }
}

fn encode_status(status: Status) -> pb::Status {
    pb::Status {
        started_at: Some(convert::timestamp(status.started_at)),
        updated_at: Some(convert::timestamp(status.updated_at)),
        r#ref: status.reference,
        offset: status.offset as i64,
        total: status.total as i64,
        expected: status.expected.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}
