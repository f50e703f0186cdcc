//! The ImageService.

use futures::{StreamExt as _, TryStreamExt as _};
use shared_proto::cri::v1;
use tonic::{Request, Response, Status};

use super::call::{Needs, answer};
use crate::Cri;

/// tonic's service over a [`Cri`].
pub struct Service(pub Cri);

fn name(spec: Option<&v1::ImageSpec>) -> String {
    spec.map(|spec| spec.image.clone()).unwrap_or_default()
}

#[tonic::async_trait]
impl v1::image_service_server::ImageService for Service {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let call = |req| self.0.list_images(req);
        answer(&self.0, "ListImages", Needs::Recovery, request, |_| String::new(), call).await
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let call = |req| self.0.image_status(req);
        answer(&self.0, "ImageStatus", Needs::Recovery, request, |r| name(r.image.as_ref()), call).await
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let call = |req| self.0.pull_image(req);
        answer(&self.0, "PullImage", Needs::Recovery, request, |r| name(r.image.as_ref()), call).await
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let call = |req| self.0.remove_image(req);
        answer(&self.0, "RemoveImage", Needs::Recovery, request, |r| name(r.image.as_ref()), call).await
    }

    async fn image_fs_info(
        &self,
        request: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let call = |req| self.0.image_fs_info(req);
        answer(&self.0, "ImageFsInfo", Needs::Recovery, request, |_| String::new(), call).await
    }

    type StreamImagesStream = futures::stream::BoxStream<'static, Result<v1::StreamImagesResponse, Status>>;
    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let call = |req| self.0.stream_images(req);
        let answer = answer(&self.0, "StreamImages", Needs::Recovery, request, |_| String::new(), call).await?;
        Ok(answer.map(|items| items.map_err(Into::into).boxed()))
    }
}
