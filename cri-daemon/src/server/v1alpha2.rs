//! CRI v1alpha2 by its likeness to v1: the messages are the same on the wire, only the path of a method differs.
//!
//! [`Old`] takes calls under the old package's name and hands them to the service of v1. Methods that v1alpha2 never
//! had are `Unimplemented`, as an old server would say.

use std::convert::Infallible;
use std::task::{Context, Poll};

use shared_proto::cri::V1ALPHA2_METHODS;
use shared_proto::cri::v1::image_service_server::ImageServiceServer;
use shared_proto::cri::v1::runtime_service_server::RuntimeServiceServer;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// What `Version` answers to old clients.
pub const VERSION: &str = "v1alpha2";

const OLD: &str = "/runtime.v1alpha2.";
const NEW: &str = "/runtime.v1.";

/// Marks a request that came under the old name.
#[derive(Clone, Copy)]
struct CameAsOld;

/// Whether the client speaks v1alpha2.
pub fn is_old<T>(request: &tonic::Request<T>) -> bool {
    request.extensions().get::<CameAsOld>().is_some()
}

/// A service of v1 under its name in v1alpha2.
#[derive(Clone)]
pub struct Old<S>(pub S);

impl<T> NamedService for Old<RuntimeServiceServer<T>> {
    const NAME: &'static str = "runtime.v1alpha2.RuntimeService";
}

impl<T> NamedService for Old<ImageServiceServer<T>> {
    const NAME: &'static str = "runtime.v1alpha2.ImageService";
}

impl<S> Service<http::Request<Body>> for Old<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = futures::future::Either<S::Future, std::future::Ready<Result<S::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match new_path(request.uri().path()) {
            Some(path) => {
                *request.uri_mut() = path;
                request.extensions_mut().insert(CameAsOld);
                futures::future::Either::Left(self.0.call(request))
            }
            None => {
                let message = format!("CRI v1alpha2 has no method {}", request.uri().path());
                let status = tonic::Status::unimplemented(message);
                futures::future::Either::Right(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

/// The path in v1 of a method that v1alpha2 had.
fn new_path(old: &str) -> Option<http::Uri> {
    V1ALPHA2_METHODS.binary_search(&old).ok()?;
    format!("{NEW}{}", old.strip_prefix(OLD)?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_old_methods_are_rewritten() {
        for method in V1ALPHA2_METHODS {
            assert_eq!(new_path(method).unwrap().path(), method.replace("v1alpha2", "v1"));
        }
        for method in ["RuntimeConfig", "GetContainerEvents", "PodSandboxStats"] {
            assert!(new_path(&format!("{OLD}RuntimeService/{method}")).is_none(), "{method} came later");
        }
        assert!(new_path("/runtime.v1.RuntimeService/Version").is_none());
    }
}
