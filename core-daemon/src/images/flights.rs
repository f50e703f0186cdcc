//! One at a time for the same thing: several pulls that need the same blob or layer don't do the work twice.
//!
//! Whoever boards first does the work; the others wait, and then look again whether it is still to be done. So an
//! error of the first is not theirs: the next one tries itself, with its own credentials and hosts.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// What is being done, by key.
pub struct Flights<K>(Mutex<HashMap<K, Weak<AsyncMutex<()>>>>);

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Flights<K> {
    /// Waits until nobody else works on `key`. It is ours until the guard is dropped.
    pub async fn board(&self, key: K) -> OwnedMutexGuard<()> {
        self.flight(key).lock_owned().await
    }

    /// Like [`Flights::board`], but `None` at once when somebody else works on `key`.
    pub fn try_board(&self, key: K) -> Option<OwnedMutexGuard<()>> {
        self.flight(key).try_lock_owned().ok()
    }

    fn flight(&self, key: K) -> Arc<AsyncMutex<()>> {
        let mut flights = self.0.lock().expect("flights lock");
        match flights.get(&key).and_then(Weak::upgrade) {
            Some(running) => running,
            None => {
                flights.retain(|_, flight| flight.strong_count() > 0);
                let new = Arc::new(AsyncMutex::new(()));
                flights.insert(key, Arc::downgrade(&new));
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_same_key_is_done_once_and_forgotten() {
        let flights = Arc::new(Flights::default());
        let (done, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let (flights, done, running) = (flights.clone(), done.clone(), running.clone());
                tokio::spawn(async move {
                    let _guard = flights.board(n % 2).await;
                    assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                    if done.load(Ordering::SeqCst) < 2 {
                        tokio::task::yield_now().await;
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(done.load(Ordering::SeqCst), 2);
        drop(flights.board(7).await);
        assert_eq!(flights.0.lock().unwrap().len(), 1);
    }
}
