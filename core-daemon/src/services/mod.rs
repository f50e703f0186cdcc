//! The ports as the core implements them: one file an API. Decode, validate, one call, encode.

pub mod containers;
pub mod content;
pub mod convert;
#[cfg(test)]
mod ctr_snapshots_tests;
#[cfg(test)]
mod ctr_tests;
pub mod diff;
pub mod events;
pub mod images;
pub mod introspection;
pub mod leases;
pub mod namespaces;
pub mod sandboxes;
pub mod snapshots;
pub mod streaming;
pub mod tasks;
#[cfg(test)]
mod tests;
pub mod transfer;
mod transfer_streams;
#[cfg(test)]
mod transfer_tests;
pub mod version;

/// Finishes `work` even when the caller goes away: a dropped request cancels no half-done change.
pub async fn detached<T: Send + 'static>(
    work: impl Future<Output = shared_proto::Result<T>> + Send + 'static,
) -> shared_proto::Result<T> {
    match tokio::spawn(tracing::Instrument::in_current_span(crate::stages::carried(work))).await {
        Ok(answer) => answer,
        Err(e) => Err(shared_proto::Error::internal(format!("the handler failed: {e}"))),
    }
}
