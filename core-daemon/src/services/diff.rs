//! The port `Diff`: layers from the content store into snapshots, and back.

use std::io::{self, BufWriter, Read, Write};

use async_trait::async_trait;
use bytes::Bytes;
use shared_proto::api::Diff as Port;
use shared_proto::containerd::{Descriptor, diff as d};
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Context, Error, Result};
use shared_sys::blocking;
use tokio::sync::mpsc;

use super::{convert, detached};
use crate::content::{ContentError, Store};
use crate::diff::{self, DiffError};
use crate::domain::{Digest, Invalid, Scope};

/// The media type of what was applied: the plain archive.
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// Bytes of a layer that go to the store at a time.
const PIECE: usize = 1 << 20;

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

    async fn diff(&self, cx: &Context, req: d::DiffRequest) -> Result<d::DiffResponse> {
        let scope = Scope::of(cx)?;
        let store = self.0.clone();
        let layer = detached(async move { make(store, scope, req).await }).await?;
        Ok(d::DiffResponse { diff: Some(layer) })
    }
}

/// Writes a layer into the store. What was begun is aborted when it fails.
async fn make(store: Store, scope: Scope, req: d::DiffRequest) -> Result<Descriptor> {
    let media_type = if req.media_type.is_empty() { format!("{PLAIN}+gzip") } else { req.media_type };
    let reference = match req.r#ref.as_str() {
        "" => format!("layer-{}", uuid::Uuid::new_v4()),
        given => given.to_owned(),
    };
    let latest = req.source_date_epoch.map(|time| time.seconds);
    let [left, right] = [req.left, req.right].map(|side| side.into_iter().map(convert::mount).collect::<Vec<_>>());
    let (send, mut pieces) = mpsc::channel(4);
    let out = BufWriter::with_capacity(PIECE, Pieces(send));
    let mut layer = diff::Layer::new(&media_type, out)?;

    let mut writer = store.writer(&scope, &reference, None, 0).await?;
    let work = async {
        writer.truncate().await?;
        let making = tokio::spawn(blocking(move || {
            diff::create(&left, &right, latest, &mut layer)?;
            let (digest, out) = layer.finish()?;
            out.into_inner().map_err(|e| DiffError::Write(e.into_error()))?;
            Ok::<_, DiffError>(digest)
        }));
        while let Some(piece) = pieces.recv().await {
            writer.write(piece).await?;
        }
        making.await.map_err(|e| Error::internal(format!("making a layer failed: {e}")))?.map_err(Error::from)
    };
    let plain = match work.await {
        Ok(plain) => plain,
        Err(e) => {
            drop(writer);
            if let Err(error) = store.abort(&scope, &reference).await {
                tracing::warn!(reference, %error, "an unfinished layer stays in the content store");
            }
            return Err(e);
        }
    };
    let (digest, size) = (writer.digest(), writer.offset());
    let mut labels = req.labels;
    labels.insert("containerd.io/uncompressed".into(), plain.to_string());
    match writer.commit(None, None, labels.clone()).await {
        Ok(_) => {}
        Err(ContentError::Exists(_)) => drop(store.set_labels(&scope, &digest, labels).await?),
        Err(e) => return Err(e.into()),
    }
    Ok(Descriptor { media_type, digest: digest.to_string(), size: size as i64, ..Default::default() })
}

/// Hands what a blocking thread writes to the async side.
struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the layer any more"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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

    #[tokio::test]
    async fn a_layer_is_made_into_the_store() {
        let (dir, service, _, mounts) = service(b"some blob").await;
        std::fs::write(dir.path().join("place/f"), vec![7; 3 << 20]).unwrap();
        let cx = Context::new("test");
        let labels = BTreeMap::from([("mine".to_owned(), "1".to_owned())]);
        let request = || d::DiffRequest {
            right: mounts.clone(),
            r#ref: "r".into(),
            labels: labels.clone(),
            source_date_epoch: Some(prost_types::Timestamp { seconds: 1000, nanos: 0 }),
            ..Default::default()
        };
        let layer = service.diff(&cx, request()).await.unwrap().diff.unwrap();
        // Made again, it is there already.
        assert_eq!(service.diff(&cx, request()).await.unwrap().diff.unwrap(), layer);
        assert_eq!(layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        let scope = Scope::of(&cx).unwrap();
        let info = service.0.info(&scope, &Digest::parse(&layer.digest).unwrap()).await.unwrap();
        assert_eq!((info.size as i64, info.labels["mine"].as_str()), (layer.size, "1"));

        let copy = dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        let target = vec![Mount { source: copy.display().to_string(), ..mounts[0].clone() }];
        let apply = d::ApplyRequest { diff: Some(layer), mounts: target, ..Default::default() };
        let applied = service.apply(&cx, apply).await.unwrap().applied.unwrap();
        assert_eq!(info.labels["containerd.io/uncompressed"], applied.digest);
        assert_eq!(std::fs::read(copy.join("f")).unwrap(), vec![7; 3 << 20]);

        let unknown = d::DiffRequest { media_type: "text/plain".into(), ..request() };
        assert_eq!(service.diff(&cx, unknown).await.unwrap_err().code, Code::Unimplemented);
        let absent = vec![Mount { source: "/no/such".into(), ..mounts[0].clone() }];
        let failing = d::DiffRequest { right: absent, ..request() };
        assert_eq!(service.diff(&cx, failing).await.unwrap_err().code, Code::InvalidArgument);
        assert!(service.0.statuses(&scope).await.unwrap().is_empty());
    }
}
