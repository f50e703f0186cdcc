//! A node for tests: real stores in a folder of their own, without tasks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use shared_proto::core::Core;
use shared_proto::fake::FakeCore;
use shared_sys::files::Durability;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::content::{ContentError, Store};
use crate::domain::{Digest, Labels, LeaseId, Namespace, Scope};
use crate::events::Exchange;
use crate::gc::Gc;
use crate::metadata::{Db, MetadataError, leases};
use crate::services::containers::ContainersService;
use crate::services::content::ContentService;
use crate::services::diff::DiffService;
use crate::services::events::EventsService;
use crate::services::images::ImagesService;
use crate::services::introspection::{self, IntrospectionService};
use crate::services::leases::LeasesService;
use crate::services::namespaces::NamespacesService;
use crate::services::sandboxes::SandboxesService;
use crate::services::snapshots::SnapshotsService;
use crate::services::version::VersionService;
use crate::snapshots::{Native, Overlay, Snapshots};
use crate::stages::Stages;

pub struct Node {
    pub dir: tempfile::TempDir,
    pub db: Db,
    pub exchange: Exchange,
    pub content: Store,
    pub snapshots: Snapshots,
    pub gc: Gc,
    pub scope: Scope,
}

impl Node {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        let exchange = Exchange::default();
        let content = Store::publishing(&dir.path().join("content"), db.clone(), exchange.clone()).unwrap();
        let native = Native::open(&dir.path().join("native"), db.clone()).await.unwrap();
        let overlay = Overlay::open(&dir.path().join("overlayfs"), db.clone()).await.unwrap();
        let backends = BTreeMap::from([
            ("native".to_owned(), Arc::new(native) as _),
            ("overlayfs".to_owned(), Arc::new(overlay) as _),
        ]);
        let snapshots = Snapshots::publishing(db.clone(), backends, exchange.clone());
        let gc = Gc::new(db.clone(), content.clone(), snapshots.clone(), exchange.clone());
        Self { dir, db, exchange, content, snapshots, gc, scope: scope("test") }
    }

    /// Our services, and a fake's for the rest.
    pub fn core(&self) -> Core {
        let (db, exchange, gc) = (self.db.clone(), self.exchange.clone(), self.gc.clone());
        let mut plugins = introspection::standard(self.content.root());
        plugins.push(introspection::snapshotter("native", &self.snapshots.root("native").unwrap()));
        let stages = Stages::default();
        Core {
            containers: Arc::new(ContainersService::new(db.clone(), exchange.clone(), gc.clone()).recording(&stages)),
            content: Arc::new(ContentService::new(self.content.clone(), gc.clone())),
            images: Arc::new(ImagesService::new(db.clone(), exchange.clone(), gc.clone())),
            introspection: Arc::new(IntrospectionService::new(self.dir.path(), plugins).unwrap().telling(&stages)),
            leases: Arc::new(LeasesService::new(db.clone(), gc.clone())),
            namespaces: Arc::new(NamespacesService::new(db.clone(), exchange, gc)),
            sandboxes: Arc::new(SandboxesService::new(db)),
            snapshots: Arc::new(SnapshotsService::new(self.snapshots.clone()).recording(&stages)),
            diff: Arc::new(DiffService::new(self.content.clone())),
            events: Arc::new(EventsService::new(self.exchange.clone())),
            version: Arc::new(VersionService::new()),
            ..FakeCore::default().core()
        }
    }

    /// The same, over gRPC.
    pub async fn over_pipe(&self) -> Core {
        let (channel, end) = shared_proto::transport::pipe().await.unwrap();
        let routes = self.core().routes();
        tokio::spawn(async move {
            let incoming = tokio_stream::once(Ok::<_, std::io::Error>(end));
            tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await
        });
        Core::remote(channel)
    }

    /// The same, on a socket as the daemon has it, until the guard is dropped.
    pub fn over_socket(&self) -> (PathBuf, DropGuard) {
        let (path, stop) = (self.dir.path().join("core.sock"), CancellationToken::new());
        let incoming = shared_proto::authority::incoming(tokio::net::UnixListener::bind(&path).unwrap());
        let server = tonic::transport::Server::builder().add_routes(self.core().routes());
        let shutdown = stop.clone().cancelled_owned();
        tokio::spawn(async move { server.serve_with_incoming_shutdown(incoming, shutdown).await });
        (path, stop.drop_guard())
    }

    /// Stores bytes with labels.
    pub async fn put_as(&self, scope: &Scope, data: &'static [u8], labels: &[(&str, &str)]) -> Digest {
        let digest = Digest::of(data);
        let name = format!("put-{digest}");
        let mut writer = self.content.writer(scope, &name, None, 0).await.unwrap();
        writer.write(Bytes::from_static(data)).await.unwrap();
        match writer.commit(None, Some(&digest), map(labels)).await {
            Ok(_) | Err(ContentError::Exists(_)) => digest,
            Err(e) => panic!("{e}"),
        }
    }

    pub async fn put(&self, data: &'static [u8], labels: &[(&str, &str)]) -> Digest {
        self.put_as(&self.scope, data, labels).await
    }

    /// Whether the bytes are on disk, in whatever namespace.
    pub fn on_disk(&self, digest: &Digest) -> bool {
        self.dir.path().join("content/blobs/sha256").join(digest.hex()).exists()
    }

    /// Folders of ingests.
    pub fn ingest_dirs(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("content/ingest")).unwrap().count()
    }

    /// Makes a lease, and the scope of calls under it.
    pub async fn lease(&self, id: &str, labels: &[(&str, &str)]) -> Scope {
        let id = LeaseId::parse(id).unwrap();
        let (ns, lease, labels) = (self.scope.ns.clone(), id.clone(), map(labels));
        self.write(move |c| leases::create(c, &ns, &lease, labels)).await.unwrap();
        Scope { lease: Some(id), ..self.scope.clone() }
    }

    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, MetadataError> + Send + 'static,
    ) -> Result<T, MetadataError> {
        self.db.write(Durability::Rebuildable, work).await
    }
}

pub fn scope(ns: &str) -> Scope {
    Scope { ns: Namespace::parse(ns).unwrap(), lease: None }
}

pub fn map(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}
