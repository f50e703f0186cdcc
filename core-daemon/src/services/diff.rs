//! The port `Diff`: layers from the content store into snapshots, and back.

use std::io::Read;

use async_trait::async_trait;
use shared_proto::api::Diff as Port;
use shared_proto::containerd::{Descriptor, diff as d};
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Context, Error, Result};
use shared_sys::blocking;

use super::{convert, detached};
use crate::content::Store;
use crate::diff::{self, DiffError};
use crate::domain::{Digest, Invalid, Scope};

/// The media type of what was applied: the plain archive.
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone)]
pub struct DiffService(Store);

impl DiffService {
    pub fn new(content: Store) -> Self {
        Self(content)
    }
}

#[async_trait]
impl Port for DiffService {
    async fn apply(&self, cx: &Context, req: d::ApplyRequest) -> Result<d::ApplyResponse> {
        let scope = Scope::of(cx)?;
        let layer = req.diff.ok_or_else(|| Invalid("there is no descriptor of a layer".into()))?;
        let digest = Digest::parse(&layer.digest)?;
        if !diff::is_layer(&layer.media_type) {
            return Err(DiffError::MediaType(layer.media_type).into());
        }
        let mounts: Vec<_> = req.mounts.into_iter().map(convert::mount).collect();
        let blob = self.0.open_blob(&scope, &digest).await?;
        let sync = req.sync_fs;
        let work = blocking(move || {
            let file: Box<dyn Read + Send> = Box::new(blob.file);
            let applied = diff::apply(&mut diff::decompress(&layer.media_type, file)?, &mounts)?;
            if sync {
                diff::sync(&mounts)?;
            }
            Ok::<_, DiffError>(applied)
        });
        let applied = detached(async move { work.await.with_context(|| format!("apply {digest}")) }).await?;
        let size = i64::try_from(applied.size).map_err(|_| Error::internal("a layer of more than 8 EiB"))?;
        let applied = Descriptor {
            media_type: PLAIN.into(),
            digest: applied.digest.to_string(),
            size,
            annotations: layer.annotations,
        };
        Ok(d::ApplyResponse { applied: Some(applied) })
    }

    async fn diff(&self, cx: &Context, _: d::DiffRequest) -> Result<d::DiffResponse> {
        Scope::of(cx)?;
        Err(Error::unimplemented("layers can't be made from snapshots yet"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use shared_proto::Code;
    use shared_proto::containerd::Mount;

    use super::*;
    use crate::metadata::Db;

    /// A service over a store with one blob, and a place to apply it to.
    async fn service(blob: &[u8]) -> (tempfile::TempDir, DiffService, Descriptor, Vec<Mount>) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        let store = Store::open(&dir.path().join("content"), db).unwrap();
        let scope = Scope::of(&Context::new("test")).unwrap();
        let mut writer = store.writer(&scope, "ref", None, 0).await.unwrap();
        writer.write(bytes::Bytes::copy_from_slice(blob)).await.unwrap();
        let digest = writer.commit(None, None, BTreeMap::new()).await.unwrap().to_string();
        let media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
        let layer = Descriptor { media_type, digest, size: blob.len() as i64, ..Default::default() };
        let place = dir.path().join("place");
        std::fs::create_dir(&place).unwrap();
        let source = place.display().to_string();
        let mount =
            Mount { r#type: "bind".into(), source, target: String::new(), options: vec!["rbind".into(), "rw".into()] };
        (dir, DiffService::new(store), layer, vec![mount])
    }

    #[tokio::test]
    async fn a_blob_is_unpacked_and_its_plain_digest_answered() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        archive.append_data(&mut header, "etc/hello", &b"world"[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive).unwrap();
        let (dir, service, layer, mounts) = service(&gzip.finish().unwrap()).await;
        let cx = Context::new("test");

        let request = |layer: &Descriptor| d::ApplyRequest {
            diff: Some(layer.clone()),
            mounts: mounts.clone(),
            sync_fs: true,
            ..Default::default()
        };
        let applied = service.apply(&cx, request(&layer)).await.unwrap().applied.unwrap();
        assert_eq!((applied.media_type.as_str(), applied.size), (PLAIN, archive.len() as i64));
        assert_eq!(applied.digest, Digest::of(&archive).as_str());
        assert_eq!(std::fs::read(dir.path().join("place/etc/hello")).unwrap(), b"world");

        let unknown = Descriptor { digest: Digest::of(b"other").to_string(), ..layer.clone() };
        assert_eq!(service.apply(&cx, request(&unknown)).await.unwrap_err().code, Code::NotFound);
        assert_eq!(service.apply(&Context::new("other"), request(&layer)).await.unwrap_err().code, Code::NotFound);
        let config = Descriptor { media_type: "application/vnd.oci.image.config.v1+json".into(), ..layer.clone() };
        assert_eq!(service.apply(&cx, request(&config)).await.unwrap_err().code, Code::Unimplemented);
        let nothing = d::ApplyRequest { mounts: vec![], ..request(&layer) };
        assert_eq!(service.apply(&cx, nothing).await.unwrap_err().code, Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_bad_blob_is_named() {
        let (_dir, service, layer, mounts) = service(&b"no archive at all ".repeat(100)).await;
        let request = d::ApplyRequest { diff: Some(layer.clone()), mounts, ..Default::default() };
        let error = service.apply(&Context::new("test"), request).await.unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.contains(&layer.digest), "{error}");
    }
}
