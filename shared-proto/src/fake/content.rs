//! Blobs in memory, with the lockstep protocol of `Write`.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;

use super::{FakeCore, Named, in_namespace, key, lock, merge_labels, now, required};
use crate::api::{Content, Items};
use crate::containerd::content as c;
use crate::context::Context;
use crate::errdefs::{Error, Result};

/// The largest block of a `Read`, bytes.
const BLOCK: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Blobs {
    blobs: Named<(c::Info, Bytes)>,
    ingests: Named<(c::Status, Vec<u8>)>,
    locked: BTreeSet<(String, String)>,
}

impl FakeCore {
    /// Puts a blob in place. The fake doesn't hash: the digest is believed.
    pub fn put_blob(&self, ns: &str, digest: &str, data: impl Into<Bytes>) {
        let data = data.into();
        let info = c::Info {
            digest: digest.to_owned(),
            size: data.len() as i64,
            created_at: now(),
            updated_at: now(),
            labels: BTreeMap::new(),
        };
        lock(&self.0.content).blobs.insert((ns.to_owned(), digest.to_owned()), (info, data));
    }
}

fn no_such(digest: &str) -> Error {
    Error::not_found(format!("content {digest}: not found"))
}

#[async_trait]
impl Content for FakeCore {
    async fn info(&self, cx: &Context, req: c::InfoRequest) -> Result<c::InfoResponse> {
        let content = lock(&self.0.content);
        let (info, _) = content.blobs.get(&key(cx, &req.digest)?).ok_or_else(|| no_such(&req.digest))?;
        Ok(c::InfoResponse { info: Some(info.clone()) })
    }

    async fn update(&self, cx: &Context, req: c::UpdateRequest) -> Result<c::UpdateResponse> {
        let new = required(req.info, "info")?;
        let mut content = lock(&self.0.content);
        let (info, _) = content.blobs.get_mut(&key(cx, &new.digest)?).ok_or_else(|| no_such(&new.digest))?;
        merge_labels(&mut info.labels, new.labels, &req.update_mask.unwrap_or_default().paths);
        info.updated_at = now();
        Ok(c::UpdateResponse { info: Some(info.clone()) })
    }

    async fn delete(&self, cx: &Context, req: c::DeleteContentRequest) -> Result<()> {
        let gone = lock(&self.0.content).blobs.remove(&key(cx, &req.digest)?);
        gone.map(drop).ok_or_else(|| no_such(&req.digest))
    }

    async fn status(&self, cx: &Context, req: c::StatusRequest) -> Result<c::StatusResponse> {
        let content = lock(&self.0.content);
        let found = content.ingests.get(&key(cx, &req.r#ref)?);
        let (status, _) = found.ok_or_else(|| Error::not_found(format!("ingest {:?}: not found", req.r#ref)))?;
        Ok(c::StatusResponse { status: Some(status.clone()) })
    }

    async fn list_statuses(&self, cx: &Context, _: c::ListStatusesRequest) -> Result<c::ListStatusesResponse> {
        let content = lock(&self.0.content);
        let statuses = in_namespace(&content.ingests, cx.namespace()?).map(|(status, _)| status.clone()).collect();
        Ok(c::ListStatusesResponse { statuses })
    }

    async fn abort(&self, cx: &Context, req: c::AbortRequest) -> Result<()> {
        let gone = lock(&self.0.content).ingests.remove(&key(cx, &req.r#ref)?);
        gone.map(drop).ok_or_else(|| Error::not_found(format!("ingest {:?}: not found", req.r#ref)))
    }

    async fn list(&self, cx: &Context, _: c::ListContentRequest) -> Result<Items<c::ListContentResponse>> {
        let content = lock(&self.0.content);
        let all: Vec<_> = in_namespace(&content.blobs, cx.namespace()?).map(|(info, _)| info.clone()).collect();
        let blocks: Vec<_> = all.chunks(100).map(|info| Ok(c::ListContentResponse { info: info.to_vec() })).collect();
        Ok(futures::stream::iter(blocks).boxed())
    }

    async fn read(&self, cx: &Context, req: c::ReadContentRequest) -> Result<Items<c::ReadContentResponse>> {
        let content = lock(&self.0.content);
        let (_, data) = content.blobs.get(&key(cx, &req.digest)?).ok_or_else(|| no_such(&req.digest))?;
        let from = usize::try_from(req.offset).ok().filter(|from| *from <= data.len());
        let from = from.ok_or_else(|| Error::new(crate::Code::OutOfRange, format!("offset {}", req.offset)))?;
        let until = if req.size > 0 { data.len().min(from + req.size as usize) } else { data.len() };
        let data = data.slice(from..until);
        let blocks = (0..data.len()).step_by(BLOCK).map(move |at| {
            let block = data.slice(at..data.len().min(at + BLOCK));
            Ok(c::ReadContentResponse { offset: (from + at) as i64, data: block })
        });
        Ok(futures::stream::iter(blocks).boxed())
    }

    async fn write(
        &self,
        cx: &Context,
        mut req: Items<c::WriteContentRequest>,
    ) -> Result<Items<c::WriteContentResponse>> {
        let first = req.next().await.ok_or_else(|| Error::invalid("an empty write stream"))??;
        if first.r#ref.is_empty() {
            return Err(Error::invalid("the first write request must name a ref"));
        }
        let name = key(cx, &first.r#ref)?;
        if !lock(&self.0.content).locked.insert(name.clone()) {
            return Err(Error::unavailable(format!("ref {} locked", first.r#ref)));
        }
        let guard = Unlock { fake: self.clone(), name };
        let requests = futures::stream::once(async { Ok(first) }).chain(req);
        let answers = requests.scan(Some(guard), |guard, request| {
            let answer = guard.as_ref().map(|g| request.and_then(|r| g.fake.write_step(&g.name, r)));
            if matches!(answer, Some(Err(_))) {
                *guard = None;
            }
            std::future::ready(answer)
        });
        Ok(answers.boxed())
    }
}

/// Releases the lock of a ref when its writer goes away.
struct Unlock {
    fake: FakeCore,
    name: (String, String),
}

impl Drop for Unlock {
    fn drop(&mut self) {
        lock(&self.fake.0.content).locked.remove(&self.name);
    }
}

impl FakeCore {
    fn write_step(&self, name: &(String, String), req: c::WriteContentRequest) -> Result<c::WriteContentResponse> {
        let content = &mut *lock(&self.0.content);
        let blob = (name.0.clone(), req.expected.clone());
        if !req.expected.is_empty() && content.blobs.contains_key(&blob) {
            content.ingests.remove(name);
            return Err(Error::exists(format!("content {}: already exists", req.expected)));
        }
        let (status, data) = content.ingests.entry(name.clone()).or_insert_with(|| {
            (c::Status { r#ref: name.1.clone(), started_at: now(), ..Default::default() }, Vec::new())
        });
        if !req.data.is_empty() {
            if req.offset != 0 && req.offset != data.len() as i64 {
                let at = data.len();
                return Err(Error::new(crate::Code::OutOfRange, format!("offset {}, expected {at}", req.offset)));
            }
            if req.offset == 0 && req.action() == c::WriteAction::Write {
                data.clear();
            }
            data.extend_from_slice(&req.data);
        }
        if req.total > 0 {
            status.total = req.total;
        }
        status.offset = data.len() as i64;
        status.updated_at = now();
        let answer = c::WriteContentResponse {
            action: req.action,
            started_at: status.started_at,
            updated_at: status.updated_at,
            offset: status.offset,
            total: status.total,
            digest: req.expected.clone(),
        };
        if req.action() == c::WriteAction::Commit {
            if req.total > 0 && req.total != data.len() as i64 {
                let at = data.len();
                return Err(Error::precondition(format!("{at} bytes were written, {} were expected", req.total)));
            }
            let info = c::Info {
                digest: req.expected,
                size: data.len() as i64,
                created_at: now(),
                updated_at: now(),
                labels: req.labels,
            };
            let (_, data) = content.ingests.remove(name).unwrap_or_default();
            content.blobs.insert(blob, (info, data.into()));
        }
        Ok(answer)
    }
}
