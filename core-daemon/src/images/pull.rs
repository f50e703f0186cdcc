//! One image from a registry into the store and the snapshots.
//!
//! ```text
//! resolve ─▶ manifest ─┬─▶ config ──▶ unpack: layer 0, layer 1, …   (each from its growing file)
//!  (index ─▶ platform) └─▶ layers, several at a time ─▶ store
//!                                                       all done ─▶ labels ─▶ image record
//! ```
//!
//! Everything that is made is held by a lease until the image record holds it. Whatever ends the pull, an error, a
//! client that goes away or success: the lease is given back, unfinished snapshots are removed, and what nobody refers
//! to is collected. Unfinished downloads stay (24 hours) if another try may succeed, which then goes on with them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use reqwest::header::HeaderMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Credentials;
use super::fetch::Fetcher;
use super::manifest::{Config, Descriptor};
use super::plan::Found;
use super::progress::{Reporter, Sink};
use super::puller::{Puller, Transfer};
use super::registry::Registry;
use super::tail::Tail;
use super::target::{Stored, Target};
use super::unpack::{Layer, Unpacker};
use super::{ImageError, Reference, hosts};
use crate::domain::{Digest, Labels, Scope};

/// What to pull, and where to.
pub struct PullRequest {
    pub reference: Reference,
    /// Folders with `HOST/hosts.toml`.
    pub host_dirs: Vec<PathBuf>,
    /// Sent to every host.
    pub headers: HeaderMap,
    pub credentials: Arc<dyn Credentials>,
    pub target: Target,
}

impl Puller {
    /// Pulls an image. Ends early, and cleans up, when `cancel` is cancelled.
    pub async fn pull(
        &self,
        scope: &Scope,
        request: PullRequest,
        sink: Sink,
        cancel: CancellationToken,
    ) -> Result<Vec<Stored>, ImageError> {
        let reference = request.reference.to_string();
        let done = self.pull_it(scope, request, sink, cancel).await;
        done.map_err(|e| ImageError::Pull { reference, source: Box::new(e) })
    }

    async fn pull_it(
        &self,
        scope: &Scope,
        request: PullRequest,
        sink: Sink,
        cancel: CancellationToken,
    ) -> Result<Vec<Stored>, ImageError> {
        let (dirs, name) = (request.host_dirs, request.reference.registry.clone());
        let hosts = shared_sys::blocking(move || hosts::lookup(&dirs, &name)).await?;
        let settings = self.settings();
        let registry = Registry::new(request.reference, hosts, self.clients(), &request.credentials, &request.headers)
            .with_limits(settings.retry, settings.progress_timeout);
        let reporter = Arc::new(Reporter::new(sink, &request.target.label()));
        let from = format!("OCI Registry ({})", registry.reference);
        reporter.note(format!("Resolving from {from}"), "", None);

        let transfer = self.begin(scope, reporter.clone(), cancel).await?;
        let work = async {
            let resolved = transfer.unless_stopped(registry.resolve()).await?;
            let root = Descriptor {
                media_type: resolved.media_type,
                digest: resolved.digest,
                size: resolved.size,
                annotations: Default::default(),
                platform: None,
            };
            reporter.note(format!("Pulling from {from}"), "", None);
            reporter.note("fetching image content", &request.target.label(), Some(&root));
            let images = transfer.bring(Some(&registry), &root, resolved.body, &request.target).await?;
            tracing::debug!(reference = %registry.reference, images, "all content is there");
            transfer.store(request.target.names(&root)?, &root, &request.target.labels).await
        };
        let stored = transfer.run(work).await?;
        reporter.note(format!("Completed pull from {from}"), "", None);
        Ok(stored)
    }
}

impl Transfer {
    /// Brings everything that `root` points at and `target` wants into the store, and unpacks it. Says how many
    /// images that were.
    pub(super) async fn bring(
        &self,
        registry: Option<&Registry>,
        root: &Descriptor,
        body: Option<Vec<u8>>,
        target: &Target,
    ) -> Result<usize, ImageError> {
        let fetcher = self.fetcher(registry);
        let found = self.collect(&fetcher, root, body, target).await?;
        for image in &found {
            self.image(&fetcher, image, target, found.len() == 1).await?;
        }
        Ok(found.len())
    }

    pub(super) fn fetcher<'a>(&'a self, registry: Option<&'a Registry>) -> Fetcher<'a> {
        Fetcher {
            content: self.puller.content(),
            scope: &self.scope,
            registry,
            flights: self.puller.blobs(),
            reporter: &self.reporter,
        }
    }

    /// Fetches and unpacks one image. `alone`: it must be for the platform that is asked for.
    async fn image(
        &self,
        fetcher: &Fetcher<'_>,
        image: &Found,
        target: &Target,
        alone: bool,
    ) -> Result<(), ImageError> {
        let tails: HashMap<&Digest, Tail> = image.layers.iter().map(|l| (&l.digest, Tail::default())).collect();
        let stop = self.stop.child_token();
        let tasks = TaskTracker::new();

        for blob in image.layers.iter().chain([&image.config]) {
            self.reporter.about("waiting", blob, Some(&image.manifest), 0);
        }
        let fetches: Vec<BoxFuture<'_, Result<(), ImageError>>> = {
            let fetch = |layer| fetcher.blob(layer, Some(&image.manifest), &tails[&layer.digest]).boxed();
            image.layers.iter().map(fetch).collect()
        };
        let layers = futures::stream::iter(fetches)
            .buffer_unordered(self.puller.settings().max_concurrent_downloads.max(1))
            .try_collect::<()>();
        let unpack = async {
            fetcher.blob(&image.config, Some(&image.manifest), &Tail::default()).await?;
            for (snapshotter, platform) in &target.unpacks {
                let what = format!("config {}", image.config.digest);
                let config = Config::parse(&fetcher.read(&image.config).await?, &what)?;
                let fits = config.platform.os.is_empty() || platform.rank(&config.platform).is_some();
                if !fits && alone {
                    let (wanted, available) = (platform.to_string(), config.platform.to_string());
                    return Err(ImageError::NoPlatform { what: target.label(), wanted, available });
                }
                if fits {
                    let layers = pair(image, &config, &tails)?;
                    let task = tasks.spawn(self.unpack(snapshotter, image, layers, &stop));
                    let chain = task.await.map_err(|e| ImageError::Bug { reason: e.to_string() })??;
                    if let Some(chain) = chain {
                        let name = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
                        fetcher.label(&image.config, Labels::from([(name, chain.to_string())])).await?;
                    }
                }
            }
            Ok(())
        };
        let done = tokio::select! {
            done = async { futures::future::try_join(layers, unpack).await } => done.map(|((), ())| ()),
            () = self.stop.cancelled() => Err(ImageError::Cancelled),
        };
        // An unpacking thread ends when its layer does; then it cleans up, and we wait for that.
        stop.cancel();
        tails.values().for_each(Tail::stop);
        tasks.close();
        tasks.wait().await;
        if done.as_ref().is_err_and(ImageError::is_final) {
            fetcher.discard(image.layers.iter().chain([&image.config])).await;
        }
        done
    }

    fn unpack(
        &self,
        snapshotter: &str,
        image: &Found,
        layers: Vec<Layer>,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Option<Digest>, ImageError>> + Send + 'static {
        let unpacker = Unpacker {
            content: self.puller.content().clone(),
            snapshots: self.puller.snapshots().clone(),
            db: self.puller.db().clone(),
            scope: self.scope.clone(),
            flights: self.puller.chains().clone(),
            reporter: self.reporter.clone(),
            snapshotter: snapshotter.to_owned(),
            stop: stop.clone(),
        };
        let manifest = image.manifest.clone();
        async move { unpacker.run(&manifest, &layers).await }
    }
}

/// Layers with their diff ids.
fn pair(image: &Found, config: &Config, tails: &HashMap<&Digest, Tail>) -> Result<Vec<Layer>, ImageError> {
    if image.layers.len() != config.diff_ids.len() {
        let reason = format!("{} layers, but the config names {}", image.layers.len(), config.diff_ids.len());
        return Err(ImageError::Malformed { what: format!("manifest {}", image.manifest.digest), reason });
    }
    let layer = |(descriptor, diff_id): (&Descriptor, &Digest)| Layer {
        descriptor: descriptor.clone(),
        diff_id: diff_id.clone(),
        tail: tails[&descriptor.digest].clone(),
    };
    Ok(image.layers.iter().zip(&config.diff_ids).map(layer).collect())
}
