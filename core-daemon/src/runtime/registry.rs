//! Which tasks there are, and whose turn it is to change that.
//!
//! ```text
//! (none) ──reserve──▶ Creating ──fulfil──▶ Live ──begin_removal──▶ Removing ──done──▶ (none)
//!    ▲                   │                  ▲                         │
//!    └───── dropped ─────┘                  └─────── dropped ─────────┘
//! ```
//!
//! A reservation and a removal are values: dropping one undoes it, so no error path can leave a name blocked. The
//! lock is never held over an await; whoever meets a removal waits for its end beside the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::error::RuntimeError;
use super::shim::Shim;
use super::task::Task;
use crate::domain::{Id, Namespace};

type Key = (Namespace, Id);

enum Slot {
    Creating,
    Live(Arc<Task>),
    /// The channel closes when the removal ends, either way.
    Removing(Arc<Task>, watch::Receiver<()>),
}

#[derive(Clone, Default)]
pub(super) struct Registry(Arc<Mutex<BTreeMap<Key, Slot>>>);

/// A name that is taken for a task in the making.
pub(super) struct Reservation {
    registry: Registry,
    key: Option<Key>,
}

/// The right, and the duty, to take a task away.
pub(super) struct Removal {
    registry: Registry,
    task: Arc<Task>,
    done: bool,
    _ended: watch::Sender<()>,
}

/// What a name is busy with.
enum Busy {
    Exists,
    Removing(watch::Receiver<()>),
}

async fn ended(mut removal: watch::Receiver<()>) {
    // Nothing is ever sent: the error is the news.
    while removal.changed().await.is_ok() {}
}

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Slot>> {
        self.0.lock().expect("registry lock")
    }

    /// Takes the name for a new task. Waits for a removal of the same name.
    pub async fn reserve(&self, ns: &Namespace, id: &Id) -> Result<Reservation, RuntimeError> {
        loop {
            match self.try_reserve(ns, id) {
                Ok(reservation) => return Ok(reservation),
                Err(Busy::Removing(removal)) => ended(removal).await,
                Err(Busy::Exists) => {
                    return Err(RuntimeError::Exists { ns: ns.to_string(), id: id.to_string() });
                }
            }
        }
    }

    fn try_reserve(&self, ns: &Namespace, id: &Id) -> Result<Reservation, Busy> {
        let key = (ns.clone(), id.clone());
        let mut slots = self.lock();
        match slots.get(&key) {
            None => {
                slots.insert(key.clone(), Slot::Creating);
                Ok(Reservation { registry: self.clone(), key: Some(key) })
            }
            Some(Slot::Creating | Slot::Live(_)) => Err(Busy::Exists),
            Some(Slot::Removing(_, ended)) => Err(Busy::Removing(ended.clone())),
        }
    }

    /// The task, also while it is being removed.
    pub fn get(&self, ns: &Namespace, id: &Id) -> Result<Arc<Task>, RuntimeError> {
        match self.lock().get(&(ns.clone(), id.clone())) {
            Some(Slot::Live(task) | Slot::Removing(task, _)) => Ok(task.clone()),
            Some(Slot::Creating) | None => Err(RuntimeError::NoTask { ns: ns.to_string(), id: id.to_string() }),
        }
    }

    pub fn list(&self, ns: &Namespace) -> Vec<Arc<Task>> {
        self.select(|task| task.ns == *ns)
    }

    pub fn of_shim(&self, shim: &Arc<Shim>) -> Vec<Arc<Task>> {
        self.select(|task| Arc::ptr_eq(&task.shim, shim))
    }

    fn select(&self, wanted: impl Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let slots = self.lock();
        let tasks = slots.values().filter_map(|slot| match slot {
            Slot::Live(task) | Slot::Removing(task, _) => Some(task),
            Slot::Creating => None,
        });
        tasks.filter(|task| wanted(task)).cloned().collect()
    }

    /// Begins to take a task away. Waits for a removal that has begun already; if that succeeds, there is no task.
    pub async fn begin_removal(&self, ns: &Namespace, id: &Id) -> Result<Removal, RuntimeError> {
        loop {
            match self.try_remove(ns, id) {
                Some(Ok(removal)) => return Ok(removal),
                Some(Err(removal)) => ended(removal).await,
                None => return Err(RuntimeError::NoTask { ns: ns.to_string(), id: id.to_string() }),
            }
        }
    }

    /// Begins to take this very task away, unless it is gone or somebody else is at it.
    pub fn removal_of(&self, task: &Arc<Task>) -> Option<Removal> {
        let removal = self.try_remove(&task.ns, &task.id)?.ok()?;
        // Another task of this name is given back by the drop.
        Arc::ptr_eq(&removal.task, task).then_some(removal)
    }

    fn try_remove(&self, ns: &Namespace, id: &Id) -> Option<Result<Removal, watch::Receiver<()>>> {
        let mut slots = self.lock();
        let slot = slots.get_mut(&(ns.clone(), id.clone()))?;
        let task = match slot {
            Slot::Creating => return None,
            Slot::Removing(_, ended) => return Some(Err(ended.clone())),
            Slot::Live(task) => task.clone(),
        };
        let (sender, receiver) = watch::channel(());
        *slot = Slot::Removing(task.clone(), receiver);
        Some(Ok(Removal { registry: self.clone(), task, done: false, _ended: sender }))
    }
}

impl Reservation {
    /// The task is there.
    pub fn fulfil(mut self, task: Arc<Task>) {
        if let Some(key) = self.key.take() {
            self.registry.lock().insert(key, Slot::Live(task));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.registry.lock().remove(&key);
        }
    }
}

impl Removal {
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The task is gone, and its name free.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let key = (self.task.ns.clone(), self.task.id.clone());
        let mut slots = self.registry.lock();
        if self.done {
            slots.remove(&key);
        } else {
            slots.insert(key, Slot::Live(self.task.clone()));
        }
    }
}
