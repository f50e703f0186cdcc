//! Sandbox records, as clients of containerd 1.7 and later keep them. They are carried, never read.
//!
//! `Update` with fields changes `labels`, `labels.KEY`, `extensions`, `extensions.KEY`, `spec` and `runtime`; without
//! any it replaces these four. A listing is limited to one message, as in containerd.

use async_trait::async_trait;
use prost::Message as _;
use shared_proto::api;
use shared_proto::containerd::{sandbox as pb, types};
use shared_proto::{Context, Error, Result};
use shared_sys::files::Durability;

use super::convert::{self, Path};
use crate::domain::{Filters, Scope};
use crate::metadata::Db;
use crate::metadata::sandboxes::{self, Sandbox};

/// The sandbox store.
#[derive(Clone)]
pub struct SandboxesService {
    db: Db,
}

impl SandboxesService {
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl api::Sandboxes for SandboxesService {
    async fn create(&self, cx: &Context, req: pb::StoreCreateRequest) -> Result<pb::StoreCreateResponse> {
        let ns = Scope::of(cx)?.ns;
        let new = decode(req.sandbox.ok_or_else(|| convert::missing("sandbox"))?);
        let made = self.db.write(Durability::Durable, move |c| sandboxes::create(c, &ns, new)).await?;
        Ok(pb::StoreCreateResponse { sandbox: Some(encode(made)?) })
    }

    async fn update(&self, cx: &Context, req: pb::StoreUpdateRequest) -> Result<pb::StoreUpdateResponse> {
        let ns = Scope::of(cx)?.ns;
        let new = req.sandbox.ok_or_else(|| convert::missing("sandbox"))?;
        let mask = prost_types::FieldMask { paths: req.fields };
        let work = move |c: &rusqlite::Connection| {
            let mut sandbox = encode(sandboxes::get(c, &ns, &new.sandbox_id)?)?;
            apply(&mut sandbox, new, &convert::paths(Some(&mask), &["labels", "extensions"]))?;
            let created_at = sandbox.created_at.map_or(0, convert::from_timestamp);
            Ok::<_, Error>(sandboxes::replace(c, &ns, Sandbox { created_at, ..decode(sandbox) })?)
        };
        let updated = self.db.write(Durability::Rebuildable, work).await?;
        Ok(pb::StoreUpdateResponse { sandbox: Some(encode(updated)?) })
    }

    async fn delete(&self, cx: &Context, req: pb::StoreDeleteRequest) -> Result<pb::StoreDeleteResponse> {
        let ns = Scope::of(cx)?.ns;
        self.db.write(Durability::Durable, move |c| sandboxes::delete(c, &ns, &req.sandbox_id)).await?;
        Ok(pb::StoreDeleteResponse {})
    }

    async fn list(&self, cx: &Context, req: pb::StoreListRequest) -> Result<pb::StoreListResponse> {
        let ns = Scope::of(cx)?.ns;
        let filters = Filters::parse(&req.filters)?;
        let all = self.db.read(move |c| sandboxes::list(c, &ns)).await?;
        let list = all.into_iter().filter(|sandbox| filters.matches(sandbox)).map(encode).collect::<Result<_>>()?;
        Ok(pb::StoreListResponse { list })
    }

    async fn get(&self, cx: &Context, req: pb::StoreGetRequest) -> Result<pb::StoreGetResponse> {
        let ns = Scope::of(cx)?.ns;
        let found = self.db.read(move |c| sandboxes::get(c, &ns, &req.sandbox_id)).await?;
        Ok(pb::StoreGetResponse { sandbox: Some(encode(found)?) })
    }
}

fn apply(sandbox: &mut types::Sandbox, mut new: types::Sandbox, paths: &[Path<'_>]) -> Result<()> {
    if paths.is_empty() {
        sandbox.labels = new.labels;
        sandbox.extensions = new.extensions;
        sandbox.spec = new.spec;
        sandbox.runtime = new.runtime;
        return Ok(());
    }
    for path in paths {
        match *path {
            Path::Entry("labels", key) => {
                drop(sandbox.labels.insert(key.to_owned(), new.labels.get(key).cloned().unwrap_or_default()));
            }
            Path::Entry("extensions", key) => match new.extensions.remove(key) {
                Some(any) => drop(sandbox.extensions.insert(key.to_owned(), any)),
                None => drop(sandbox.extensions.remove(key)),
            },
            Path::Field("labels") => sandbox.labels = new.labels.clone(),
            Path::Field("extensions") => sandbox.extensions = std::mem::take(&mut new.extensions),
            Path::Field("spec") => sandbox.spec = new.spec.take(),
            Path::Field("runtime") => sandbox.runtime = new.runtime.take(),
            other => return Err(convert::immutable(other, "sandbox", &new.sandbox_id)),
        }
    }
    Ok(())
}

/// Labels and times have columns of their own.
fn decode(mut proto: types::Sandbox) -> Sandbox {
    let labels = std::mem::take(&mut proto.labels);
    (proto.created_at, proto.updated_at) = (None, None);
    Sandbox { id: proto.sandbox_id.clone(), labels, record: proto.encode_to_vec(), created_at: 0, updated_at: 0 }
}

fn encode(sandbox: Sandbox) -> Result<types::Sandbox> {
    let mut proto = types::Sandbox::decode(sandbox.record.as_slice())
        .map_err(|e| Error::internal(format!("sandbox {:?}: its record is damaged: {e}", sandbox.id)))?;
    proto.labels = sandbox.labels;
    proto.created_at = Some(convert::timestamp(sandbox.created_at));
    proto.updated_at = Some(convert::timestamp(sandbox.updated_at));
    Ok(proto)
}
