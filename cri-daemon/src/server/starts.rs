//! The service `seam.v1.Starts`. It answers during recovery, too: that may be what a pod waits for.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use shared_proto::seam::v1 as seam;
use shared_proto::seam::v1::starts_server::{Starts, StartsServer};
use tonic::{Request, Response, Status};

use super::call::{Needs, answer};
use crate::Cri;

struct Service(Cri);

/// The service, ready to be added to a router.
pub fn service(cri: &Cri) -> StartsServer<impl Starts> {
    StartsServer::new(Service(cri.clone()))
}

#[tonic::async_trait]
impl Starts for Service {
    type WatchStream = BoxStream<'static, Result<seam::WatchEvent, Status>>;

    async fn watch(&self, request: Request<seam::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let subject = |req: &seam::WatchRequest| req.pod.clone();
        let answer = answer(&self.0, "Watch", Needs::Nothing, request, subject, |req| self.0.watch(req)).await?;
        Ok(answer.map(|events| events.map_err(Status::from).boxed()))
    }

    async fn go_on(&self, request: Request<seam::GoOnRequest>) -> Result<Response<seam::GoOnResponse>, Status> {
        let subject = |req: &seam::GoOnRequest| req.number.to_string();
        answer(&self.0, "GoOn", Needs::Nothing, request, subject, |req| self.0.go_on(req)).await
    }

    async fn explain(&self, request: Request<seam::ExplainRequest>) -> Result<Response<seam::ExplainResponse>, Status> {
        let subject = |req: &seam::ExplainRequest| req.pod.clone();
        answer(&self.0, "Explain", Needs::Nothing, request, subject, |req| self.0.explain(req)).await
    }
}
