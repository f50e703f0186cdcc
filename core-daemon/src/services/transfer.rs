//! The Transfer service: images from a registry or an archive into the image store.
//!
//! | from | to | |
//! |---|---|---|
//! | `OCIRegistry` | `ImageStore` | pull |
//! | `ImageImportStream` | `ImageStore` | import |
//!
//! Every other pair is `Unimplemented`, by name. Progress, credentials and bytes travel over streams that the client
//! opened before ([`super::streaming`]). When the client goes away, its transfer is cancelled, and cleans up.

use std::path::PathBuf;
use std::sync::Arc;

use prost_types::Any;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use shared_proto::api;
use shared_proto::containerd::transfer::TransferRequest;
use shared_proto::containerd::transfer_types::{self as types, ImageImportStream, ImageStore, OciRegistry};
use shared_proto::{Context, Error, Result, any};
use tokio_util::sync::CancellationToken;

use super::streaming::StreamManager;
use super::transfer_streams::{AskClient, incoming_bytes, progress_sink};
use crate::domain::Scope;
use crate::images::auth::{Credentials, NoCredentials};
use crate::images::manifest::Platform;
use crate::images::target::{ExtraReference, Target};
use crate::images::{ImageError, PullRequest, Puller, Reference};

/// The service.
#[derive(Clone)]
pub struct TransferService {
    puller: Puller,
    streams: StreamManager,
    /// The snapshotter of clients that name none.
    snapshotter: String,
}

impl TransferService {
    pub fn new(puller: Puller, streams: StreamManager, snapshotter: &str) -> Self {
        Self { puller, streams, snapshotter: snapshotter.to_owned() }
    }

    fn target(&self, destination: &Any) -> Result<Target> {
        let store: ImageStore = any::unpack(destination)?;
        let platform = |p: shared_proto::containerd::Platform| Platform::new(&p.os, &p.architecture, &p.variant);
        let unpack = |unpack: types::UnpackConfiguration| {
            let snapshotter = if unpack.snapshotter.is_empty() { &self.snapshotter } else { &unpack.snapshotter };
            let platform = unpack.platform.filter(|p| !p.os.is_empty()).map_or_else(Platform::host, platform);
            (snapshotter.clone(), platform)
        };
        Ok(Target {
            name: store.name,
            labels: store.labels.into_iter().collect(),
            platforms: store.platforms.into_iter().map(platform).collect(),
            unpacks: store.unpacks.into_iter().map(unpack).collect(),
            references: store.extra_references.into_iter().map(extra).collect(),
        })
    }

    async fn pull(&self, scope: Scope, from: OciRegistry, target: Target, progress: &str) -> Result<()> {
        let reference: Reference = from.reference.parse()?;
        let resolver = from.resolver.unwrap_or_default();
        let credentials: Arc<dyn Credentials> = match resolver.auth_stream.as_str() {
            "" => Arc::new(NoCredentials),
            name => Arc::new(AskClient::new(self.streams.take(scope.ns.as_str(), name)?, &from.reference)),
        };
        let request = PullRequest {
            reference,
            host_dirs: resolver.host_dir.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect(),
            headers: headers(resolver.headers)?,
            credentials,
            target,
        };
        let sink = progress_sink(&self.streams, scope.ns.as_str(), progress)?;
        let puller = self.puller.clone();
        let pull = |cancel| async move { puller.pull(&scope, request, sink, cancel).await };
        cancelled_with_caller(self.puller.token(), pull).await
    }

    async fn import(&self, scope: Scope, from: ImageImportStream, target: Target, progress: &str) -> Result<()> {
        let stream = self.streams.take(scope.ns.as_str(), &from.stream)?;
        let sink = progress_sink(&self.streams, scope.ns.as_str(), progress)?;
        let puller = self.puller.clone();
        let import = |cancel: CancellationToken| async move {
            let bytes = incoming_bytes(stream, &cancel);
            puller.import(&scope, bytes, target, sink, cancel).await
        };
        cancelled_with_caller(self.puller.token(), import).await
    }
}

#[async_trait::async_trait]
impl api::Transfer for TransferService {
    async fn transfer(&self, cx: &Context, req: TransferRequest) -> Result<()> {
        let scope = Scope::of(cx)?;
        let source = req.source.ok_or_else(|| Error::invalid("a transfer needs a source"))?;
        let destination = req.destination.ok_or_else(|| Error::invalid("a transfer needs a destination"))?;
        let progress = req.options.unwrap_or_default().progress_stream;
        if !any::is::<ImageStore>(&destination) {
            return Err(not_done(&source, &destination));
        }
        if any::is::<OciRegistry>(&source) {
            self.pull(scope, any::unpack(&source)?, self.target(&destination)?, &progress).await
        } else if any::is::<ImageImportStream>(&source) {
            self.import(scope, any::unpack(&source)?, self.target(&destination)?, &progress).await
        } else {
            Err(not_done(&source, &destination))
        }
    }
}

fn not_done(source: &Any, destination: &Any) -> Error {
    Error::unimplemented(format!("transfer from {} to {}", any::name(source), any::name(destination)))
}

fn extra(reference: types::ImageReference) -> ExtraReference {
    ExtraReference {
        name: reference.name,
        is_prefix: reference.is_prefix,
        allow_overwrite: reference.allow_overwrite,
        add_digest: reference.add_digest,
        skip_named_digest: reference.skip_named_digest,
    }
}

fn headers(given: impl IntoIterator<Item = (String, String)>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let bad = || Error::invalid(format!("{name:?} is no header, or its value has characters that none may have"));
        let key = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        headers.append(key, HeaderValue::try_from(value.as_str()).map_err(|_| bad())?);
    }
    Ok(headers)
}

/// Runs a transfer to its end, whatever happens to the caller; one whose caller is gone is told to stop.
async fn cancelled_with_caller<T, F>(
    cancel: CancellationToken,
    transfer: impl FnOnce(CancellationToken) -> F,
) -> Result<()>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ImageError>> + Send + 'static,
{
    let work = transfer(cancel.clone());
    let _caller = cancel.drop_guard();
    super::detached(async move { Ok(work.await.map(drop)?) }).await
}
