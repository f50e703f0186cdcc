//! One piece of work at a time under a key; who asks for it meanwhile waits for the same result.
//!
//! The work is driven by those who wait for it, and it is dropped with the last of them: a pull that nobody waits for
//! any more ends.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};

pub struct Flights<K, T: Clone>(Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>);

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// The work in flight under `key`, or the work that `start` makes.
    pub fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Shared<BoxFuture<'static, T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.0.lock().expect("flights lock");
        flights.retain(|_, flight| flight.upgrade().is_some_and(|f| f.peek().is_none()));
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let flight = start().boxed().shared();
        flights.extend(flight.downgrade().map(|weak| (key, weak)));
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use tokio::sync::oneshot;

    use super::*;

    /// What lets work go on without waiting.
    fn at_once() -> oneshot::Receiver<()> {
        oneshot::channel().1
    }

    #[tokio::test]
    async fn the_same_key_shares_work_until_it_is_done() {
        let flights = Flights::<&str, u32>::default();
        let runs = Arc::new(AtomicU32::new(0));
        let work = |release: oneshot::Receiver<()>| {
            let runs = runs.clone();
            move || async move {
                let run = runs.fetch_add(1, Relaxed) + 1;
                release.await.ok();
                run
            }
        };
        let (go, release) = oneshot::channel();
        let first = flights.join("a", work(release));
        let second = flights.join("a", work(at_once()));
        let other = flights.join("b", work(at_once()));
        go.send(()).unwrap();
        assert_eq!(futures::join!(first.clone(), second), (1, 1));
        assert_eq!(other.await, 2);
        assert_eq!(flights.join("a", work(at_once())).await, 3, "joined what was done");
        drop(first);
    }

    #[tokio::test]
    async fn work_goes_on_while_somebody_waits_and_ends_with_the_last() {
        let flights = Flights::<&str, ()>::default();
        let (alive, gone) = oneshot::channel::<()>();
        let first = flights.join("a", || async move {
            let _alive = alive;
            std::future::pending().await
        });
        let second = flights.join("a", || async {});
        let waiting = tokio::spawn(second);
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        waiting.abort();
        gone.await.unwrap_err();
    }
}
