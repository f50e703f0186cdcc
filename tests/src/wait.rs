//! Waiting for something that happens soon.

use std::future::Future;
use std::time::{Duration, Instant};

/// Asks `probe` until it answers, for at most `limit`; then panics with `what` and the last reason.
#[track_caller]
pub fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: impl Into<String>,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let what = what.into();
    let caller = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        loop {
            match probe().await {
                Ok(value) => return value,
                Err(reason) if started.elapsed() > limit => {
                    panic!("{caller}: {what}: not within {limit:?}: {reason}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
