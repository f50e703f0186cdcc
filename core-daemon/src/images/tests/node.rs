//! A core's stores in a folder of their own, and what is in them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::QUICK;
use super::fake::{Answer, Fake, Seen};
use super::local::Image;
use crate::content::Store;
use crate::domain::{Digest, Namespace, Scope};
use crate::events::Exchange;
use crate::gc::Gc;
use crate::images::auth::{Credentials, NoCredentials};
use crate::images::manifest::{OCI_MANIFEST, Platform};
use crate::images::progress::Progress;
use crate::images::target::{Stored, Target};
use crate::images::{ImageError, PullRequest, Puller, Settings};
use crate::metadata::{Db, DbError};
use crate::snapshots::{Native, Overlay, Snapshots, Snapshotter};

pub const SNAPSHOTTER: &str = "native";
pub const OVERLAY: &str = "overlayfs";

pub struct Node {
    pub dir: tempfile::TempDir,
    pub db: Db,
    pub content: Store,
    pub snapshots: Snapshots,
    pub exchange: Exchange,
    pub gc: Gc,
    pub puller: Puller,
    pub scope: Scope,
}

/// Collects progress.
pub type Events = Arc<Mutex<Vec<Progress>>>;

impl Node {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        let content = Store::open(&dir.path().join("content"), db.clone()).unwrap();
        let native = Native::open(&dir.path().join("native"), db.clone()).await.unwrap();
        let overlay = Overlay::open(&dir.path().join("overlay"), db.clone()).await.unwrap();
        let mut backends: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::new();
        backends.insert(SNAPSHOTTER.to_owned(), Arc::new(native));
        backends.insert(OVERLAY.to_owned(), Arc::new(overlay));
        let snapshots = Snapshots::new(db.clone(), backends);
        let exchange = Exchange::default();
        let settings = Settings { retry: QUICK, progress_timeout: Duration::from_secs(20), ..Settings::default() };
        let gc = Gc::new(db.clone(), content.clone(), snapshots.clone(), exchange.clone());
        let puller =
            Puller::new(content.clone(), snapshots.clone(), db.clone(), exchange.clone(), gc.clone(), settings);
        let scope = Scope { ns: Namespace::parse("k8s.io").unwrap(), lease: None };
        Self { dir, db, content, snapshots, exchange, gc, puller, scope }
    }

    /// A `hosts.toml` for a registry.
    pub fn hosts(&self, registry: &str, text: &str) -> PathBuf {
        let root = self.dir.path().join("certs.d");
        std::fs::create_dir_all(root.join(registry)).unwrap();
        std::fs::write(root.join(registry).join("hosts.toml"), text).unwrap();
        root
    }

    pub fn target(name: &str) -> Target {
        Target { name: name.to_owned(), unpacks: vec![(SNAPSHOTTER.to_owned(), Platform::host())], ..Target::default() }
    }

    pub fn request(&self, reference: &str) -> PullRequest {
        PullRequest {
            reference: reference.parse().unwrap(),
            host_dirs: vec![self.dir.path().join("certs.d")],
            headers: Default::default(),
            credentials: Arc::new(NoCredentials) as Arc<dyn Credentials>,
            target: Self::target(reference),
        }
    }

    pub async fn pull(&self, reference: &str) -> Result<Vec<Stored>, ImageError> {
        self.pull_with(self.request(reference), &Events::default(), CancellationToken::new()).await
    }

    pub async fn pull_with(
        &self,
        request: PullRequest,
        events: &Events,
        cancel: CancellationToken,
    ) -> Result<Vec<Stored>, ImageError> {
        let events = events.clone();
        let sink = Arc::new(move |progress| events.lock().unwrap().push(progress));
        self.puller.pull(&self.scope, request, sink, cancel).await
    }

    /// The first column of a query.
    pub async fn query(&self, sql: &'static str) -> Vec<String> {
        let read = move |c: &Connection| -> Result<Vec<String>, DbError> {
            let mut statement = c.prepare(sql)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.db.read(read).await.unwrap()
    }

    pub async fn images(&self) -> Vec<String> {
        self.query("SELECT name FROM images ORDER BY name").await
    }

    pub async fn snapshot_names(&self) -> Vec<String> {
        self.query("SELECT name FROM snapshots ORDER BY created_at").await
    }

    /// Nothing of a transfer that failed is left: no lease, no image, no unfinished snapshot at once; no other snapshot
    /// and no blob after a collection.
    pub async fn assert_clean(&self) {
        assert!(self.query("SELECT id FROM leases").await.is_empty(), "a lease is left");
        assert!(self.images().await.is_empty(), "an image is left");
        let unfinished: Vec<_> =
            self.snapshot_names().await.into_iter().filter(|name| name.starts_with("extract")).collect();
        assert!(unfinished.is_empty(), "{unfinished:?}");
        let report = self.gc.collect().await.unwrap();
        assert!(report.errors.is_empty(), "{report:?}");
        assert!(self.snapshot_names().await.is_empty(), "a snapshot is left");
        assert!(self.query("SELECT digest FROM blobs").await.is_empty(), "a blob is left");
    }

    /// The content of a file in the unpacked image.
    pub async fn file(&self, chain: &Digest, path: &str) -> Option<Vec<u8>> {
        let key = format!("look-{}", uuid::Uuid::new_v4().simple());
        let view =
            self.snapshots.view(&self.scope, SNAPSHOTTER, &key, chain.as_str(), Default::default()).await.unwrap();
        let content = std::fs::read(PathBuf::from(&view[0].source).join(path)).ok();
        self.snapshots.remove(&self.scope, SNAPSHOTTER, &key).await.unwrap();
        content
    }
}

/// Serves one image under any name and tag; `fault` may answer instead.
pub async fn serve(image: Image, fault: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static) -> Fake {
    Fake::start(move |seen| {
        if let Some(answer) = fault(seen) {
            return answer;
        }
        if seen.target.contains("/manifests/") {
            return Answer::ok(image.manifest.clone())
                .with("Content-Type", OCI_MANIFEST)
                .with("Docker-Content-Digest", image.digest().to_string());
        }
        let blobs = image.layers.iter().chain([&image.config]);
        let wanted = |blob: &&Vec<u8>| seen.target.contains(Digest::of(blob).as_str());
        blobs.into_iter().find(wanted).map_or(Answer::status(404), |blob| Answer::blob(blob, seen))
    })
    .await
}
