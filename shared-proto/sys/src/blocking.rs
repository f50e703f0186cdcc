//! The one door from async code to blocking work.

/// Runs `work` on the pool of blocking threads. A panic in `work` goes on in the caller.
///
/// Not for `setns` and `unshare`: they change the thread, and pooled threads are used again.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The pool only cancels work when the whole runtime goes down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}
