//! What every call goes through, whichever method it is for.

use std::future::Future;
use std::time::Instant;

use shared_proto::{Code, Context, Error, Result};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::Cri;

/// Whether a call can be answered before recovery is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Recovery,
}

/// Answers one call. `subject` says what it is about, for the log.
pub async fn answer<Q, A, F>(
    cri: &Cri,
    rpc: &'static str,
    needs: Needs,
    request: Request<Q>,
    subject: impl FnOnce(&Q) -> String,
    method: impl FnOnce(Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A>>,
{
    let cx = Context::from_metadata(request.metadata());
    let request = request.into_inner();
    let subject = subject(&request);
    let mut running = cri.0.metrics.call(rpc);
    if needs == Needs::Recovery
        && let Err(error) = cri.check_ready().await
    {
        running.ended(Some(error.code));
        return Err(error.into());
    }
    let started = Instant::now();
    let span = tracing::info_span!("cri", rpc, subject);
    shared_proto::trace::came_in(&span, || format!("cri/{rpc}"), &cx);
    let answer = method(request).instrument(span).await;
    running.ended(answer.as_ref().err().map(|e| e.code));
    match answer {
        Ok(answer) => {
            tracing::debug!(rpc, subject, took = ?started.elapsed(), "answered");
            Ok(Response::new(answer))
        }
        Err(error) => {
            log(rpc, &subject, &error, started);
            Err(error.into())
        }
    }
}

/// Failures are logged here and nowhere below. What clients ask as a question is no failure.
fn log(rpc: &str, subject: &str, error: &Error, started: Instant) {
    let (code, took) = (error.code, started.elapsed());
    match code {
        Code::NotFound | Code::Unimplemented | Code::Canceled => {
            tracing::debug!(rpc, subject, ?code, %error, ?took, "refused");
        }
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::Unavailable => tracing::warn!(rpc, subject, ?code, %error, ?took, "failed"),
        Code::Unknown | Code::Internal | Code::DataLoss => {
            tracing::error!(rpc, subject, ?code, %error, ?took, "failed");
        }
    }
}

/// The answer of an RPC that is not offered.
pub fn unimplemented<T>(rpc: &str) -> Result<T, Status> {
    Err(Error::unimplemented(format!("{rpc} is not implemented yet")).into())
}
