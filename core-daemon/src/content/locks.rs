//! Who works on what: one writer an ingest, and no removal of a file that somebody is about to record.
//!
//! A blob's file and its records change one after the other. So whoever records a blob [pins](Locks::pin) its digest
//! from before the file is there until the record is; whoever removes an unrecorded file [claims](Locks::claim) the
//! digest, looks for records again, and removes it. Pins wait for claims (one look and one `unlink`), claims never
//! wait: a pinned file is left to the next sweep.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::domain::{Digest, Namespace};

#[derive(Default)]
pub(super) struct Locks {
    refs: Mutex<HashSet<(String, String)>>,
    digests: Mutex<HashMap<Digest, Hold>>,
    released: Notify,
}

enum Hold {
    Pinned(usize),
    Claimed,
}

/// The right to write one ingest, until dropped.
pub(super) struct RefLock(Arc<Locks>, (String, String));

/// Keeps a blob's file from being removed, until dropped.
pub(super) struct Pin(Arc<Locks>, Digest);

/// The right to remove a blob's file, until dropped.
pub(super) struct Claim(Arc<Locks>, Digest);

impl Locks {
    /// `None` if somebody else writes it.
    pub fn lock(self: &Arc<Self>, ns: &Namespace, reference: &str) -> Option<RefLock> {
        let key = (ns.to_string(), reference.to_owned());
        let new = self.refs.lock().expect("ref locks").insert(key.clone());
        new.then(|| RefLock(self.clone(), key))
    }

    pub fn is_locked(&self, ns: &str, reference: &str) -> bool {
        self.refs.lock().expect("ref locks").contains(&(ns.to_owned(), reference.to_owned()))
    }

    pub async fn pin(self: &Arc<Self>, digest: &Digest) -> Pin {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Registered before the look, so that no release in between is missed.
            released.as_mut().enable();
            {
                let mut digests = self.digests.lock().expect("digest locks");
                match digests.entry(digest.clone()).or_insert(Hold::Pinned(0)) {
                    Hold::Pinned(count) => {
                        *count += 1;
                        return Pin(self.clone(), digest.clone());
                    }
                    Hold::Claimed => {}
                }
            }
            released.await;
        }
    }

    /// `None` if the digest is pinned, or claimed already.
    pub fn claim(self: &Arc<Self>, digest: &Digest) -> Option<Claim> {
        let mut digests = self.digests.lock().expect("digest locks");
        if digests.contains_key(digest) {
            return None;
        }
        digests.insert(digest.clone(), Hold::Claimed);
        Some(Claim(self.clone(), digest.clone()))
    }
}

impl Pin {
    /// Whether it is this digest that is pinned.
    pub fn of(&self, digest: &Digest) -> bool {
        self.1 == *digest
    }
}

impl Drop for RefLock {
    fn drop(&mut self) {
        self.0.refs.lock().expect("ref locks").remove(&self.1);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut digests = self.0.digests.lock().expect("digest locks");
        match digests.get_mut(&self.1) {
            Some(Hold::Pinned(count)) if *count > 1 => *count -= 1,
            Some(Hold::Pinned(_)) => drop(digests.remove(&self.1)),
            Some(Hold::Claimed) | None => {}
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.digests.lock().expect("digest locks").remove(&self.1);
        self.0.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn pins_and_claims_exclude_each_other() {
        let locks = Arc::new(Locks::default());
        let digest = Digest::of(b"x");
        let (first, second) = (locks.pin(&digest).await, locks.pin(&digest).await);
        drop(first);
        assert!(locks.claim(&digest).is_none());
        drop(second);
        let claim = locks.claim(&digest).unwrap();
        assert!(locks.claim(&digest).is_none());
        let waiting = tokio::spawn({
            let (locks, digest) = (locks.clone(), digest.clone());
            async move { drop(locks.pin(&digest).await) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(claim);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert!(locks.digests.lock().unwrap().is_empty());
    }
}
