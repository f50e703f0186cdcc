//! Whether a connection is still there, and when something last went over it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Shared by everybody who works for one connection.
#[derive(Debug)]
pub struct Activity {
    begun: Instant,
    /// Milliseconds after the beginning.
    last: AtomicU64,
    gone: CancellationToken,
    why: Mutex<Option<String>>,
}

impl Activity {
    /// A connection that also ends when `parent` is cancelled.
    pub fn new(parent: &CancellationToken) -> Self {
        let gone = parent.child_token();
        Self { begun: Instant::now(), last: AtomicU64::new(0), gone, why: Mutex::default() }
    }

    /// Something was sent or received. What only keeps a connection alive does not count.
    pub fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// The connection is of no more use.
    pub fn end(&self) {
        self.gone.cancel();
    }

    /// The same, because something is wrong with it. The first reason is kept.
    pub fn fail(&self, why: String) {
        if !self.gone.is_cancelled() {
            self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        }
        self.end();
    }

    /// Cancelled when the connection is of no more use.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Why it is of no more use.
    pub fn why(&self) -> String {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        why.unwrap_or_else(|| "the client went away, or this daemon is stopping".into())
    }

    /// Ends the connection once nothing has gone over it for `limit`; zero is no limit. Returns when it has ended.
    pub async fn watch(&self, limit: Duration) {
        if limit.is_zero() {
            return self.gone.cancelled().await;
        }
        loop {
            let last = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= limit {
                return self.fail(format!("nothing was sent or received for {limit:?}"));
            }
            if self.gone.run_until_cancelled(tokio::time::sleep_until(last + limit)).await.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_idle_connection_ends_and_a_busy_one_does_not() {
        let activity = Activity::new(&CancellationToken::new());
        let busy = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                activity.touch();
                assert!(!activity.gone().is_cancelled());
            }
        };
        let begun = Instant::now();
        tokio::join!(busy, activity.watch(Duration::from_millis(100)));
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
        assert!(activity.gone().is_cancelled() && activity.why().contains("100ms"), "{}", activity.why());
    }

    #[tokio::test]
    async fn it_ends_with_the_daemon() {
        let daemon = CancellationToken::new();
        let activity = Activity::new(&daemon);
        daemon.cancel();
        activity.watch(Duration::ZERO).await;
        assert!(activity.why().contains("stopping"));
    }
}
