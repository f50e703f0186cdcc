//! PullImage: the image is there, unpacked, and known under its tag, its digest and its id.
//!
//! The same pull asked for twice at a time is one pull. Different credentials are different pulls: nobody gets an
//! image because somebody else was allowed to. A pull whose callers are all gone is dropped, and resumes where it was
//! when asked for again.

use std::time::Instant;

use shared_proto::Result;
use shared_proto::cri::v1;

use super::credentials::Credentials;
use super::{ImageError, Images, Reference, transfer};
use crate::Cri;

/// Annotation of a pod with the handler that its images are pulled for; the kubelet has a field for it by now.
const RUNTIME_HANDLER: &str = "io.containerd.cri.runtime-handler";

/// What makes two pulls the same.
pub(super) type Key = (Reference, Credentials, String);

impl Cri {
    pub async fn pull_image(&self, req: v1::PullImageRequest) -> Result<v1::PullImageResponse> {
        let came = Instant::now();
        let asked = self.0.starts.watches.note(&req);
        let spec = req.image.ok_or(ImageError::Unnamed)?;
        let reference = Reference::parse(&spec.image)?;
        let credentials = Credentials::parse(req.auth.as_ref(), &reference)?;
        let images = &self.0.images;
        let snapshotter = match spec.runtime_handler.as_str() {
            "" => images.snapshotter_of_pod(req.sandbox_config.as_ref())?,
            handler => images.snapshotter(handler)?,
        };
        // A kubelet says for which pod it pulls, while the pod's containers wait.
        let start = req.sandbox_config.as_ref().and_then(|pod| self.0.starts.of_pod(pod));
        let of = (spec.image.as_str(), "");
        let request = start.map(|start| self.0.starts.request(&start, "PullImage", of, came, &self.0.metrics));
        let pulled = {
            // Without parts: others may wait for the same pull.
            let _stage = request.as_ref().map(|request| request.stage("pull"));
            images.pull(reference, credentials, snapshotter).await
        };
        let pulled = pulled.map(|image_ref| v1::PullImageResponse { image_ref });
        if let Some(request) = request {
            request.asked(asked);
            match &pulled {
                Ok(answer) => request.answered(answer),
                Err(e) => request.failed(e),
            }
        }
        pulled
    }
}

impl Images {
    /// The snapshotter that a pod's annotation asks for; the default one without it, or when it names no handler.
    pub(super) fn snapshotter_of_pod(&self, pod: Option<&v1::PodSandboxConfig>) -> Result<String, ImageError> {
        let handler = pod.and_then(|pod| pod.annotations.get(RUNTIME_HANDLER));
        handler.map_or_else(|| self.snapshotter(""), |name| self.snapshotter(name).or_else(|_| self.snapshotter("")))
    }

    /// Pulls, and answers the image's id.
    pub(super) async fn pull(
        &self,
        reference: Reference,
        credentials: Credentials,
        snapshotter: String,
    ) -> Result<String> {
        let key = (reference.clone(), credentials.clone(), snapshotter.clone());
        let images = self.clone();
        self.0.pulls.join(key, || async move { images.pull_now(reference, credentials, snapshotter).await }).await
    }

    async fn pull_now(&self, reference: Reference, credentials: Credentials, snapshotter: String) -> Result<String> {
        let started = std::time::Instant::now();
        let inner = &*self.0;
        let name = reference.to_string();
        let labels = self.labels(&name);
        let dirs: Vec<_> = inner.config.registry_config_dirs.iter().map(|dir| dir.to_string_lossy()).collect();
        let pull = transfer::Pull {
            reference,
            credentials,
            labels: labels.clone(),
            snapshotter,
            platform: inner.platform.clone(),
            host_dirs: dirs.join(":"),
            patience: inner.config.image_pull_progress_timeout,
        };
        transfer::pull(&inner.core, &inner.cx, &pull).await?;

        let record = self.record(&name).await?;
        let named = self.named(&record).await?;
        let id = named.image.id.clone();
        let mut names = vec![pull.reference.at(&named.target), id.clone()];
        names.retain(|other| *other != name);
        for other in &names {
            self.point(other, record.target.clone().unwrap_or_default(), &labels).await?;
        }
        {
            let mut index = self.index_mut();
            names.iter().chain([&name]).for_each(|name| index.set(name, named.clone()));
        }
        tracing::info!(image = name, id, took = ?started.elapsed(), "pulled");
        Ok(id)
    }
}
