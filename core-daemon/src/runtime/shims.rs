//! The shims in use: one connection an address, shared by the tasks of a pod.
//!
//! Each task holds one use of its shim. Taking and giving back go through one lock, so a shim is told to end only
//! when no other task has it or is about to have it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::bootstrap::Bootstrap;
use super::error::RuntimeError;
use super::shim::Shim;

#[derive(Default)]
pub(super) struct Shims(Mutex<HashMap<String, Entry>>);

struct Entry {
    shim: Arc<Shim>,
    uses: usize,
}

impl Shims {
    /// Takes a use of the shim at `address`, if there is one that isn't dead.
    pub fn take(&self, address: &str) -> Option<Arc<Shim>> {
        let mut shims = self.0.lock().expect("shims lock");
        let entry = shims.get_mut(address).filter(|entry| !entry.shim.is_dead())?;
        entry.uses += 1;
        Some(entry.shim.clone())
    }

    /// Takes a use of the shim that listens at `bootstrap`, connecting if nobody has. The flag says: a new connection,
    /// which somebody must watch.
    pub async fn connect(&self, bootstrap: &Bootstrap) -> Result<(Arc<Shim>, bool), RuntimeError> {
        if let Some(shim) = self.take(&bootstrap.address) {
            return Ok((shim, false));
        }
        let fresh = Arc::new(Shim::connect(bootstrap).await?);
        let mut shims = self.0.lock().expect("shims lock");
        match shims.get_mut(&bootstrap.address) {
            // Somebody was quicker; our connection is dropped.
            Some(entry) if !entry.shim.is_dead() => {
                entry.uses += 1;
                Ok((entry.shim.clone(), false))
            }
            Some(_) | None => {
                shims.insert(bootstrap.address.clone(), Entry { shim: fresh.clone(), uses: 1 });
                Ok((fresh, true))
            }
        }
    }

    /// Gives a use back; `true` for the last one, after which the address is forgotten.
    pub fn give_back(&self, shim: &Arc<Shim>) -> bool {
        let mut shims = self.0.lock().expect("shims lock");
        let Some(entry) = shims.get_mut(&shim.address).filter(|entry| Arc::ptr_eq(&entry.shim, shim)) else {
            // A dead one whose address has a successor.
            return false;
        };
        entry.uses -= 1;
        let last = entry.uses == 0;
        if last {
            shims.remove(&shim.address);
        }
        last
    }
}
