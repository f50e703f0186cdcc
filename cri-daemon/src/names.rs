//! One request under a name at a time; the same request again joins the first.
//!
//! A kubelet whose call timed out sends it again while the first is still at work. The second call waits for the
//! outcome of the first then, and both get the same answer. A different request under the same name is a conflict,
//! and its error says who has the name. A request that failed gives the name back, whatever it left to clean up.
//!
//! ```text
//!  claim ─▶ in flight ──finish(Ok)──▶ taken ──release──▶ free
//!               └───────finish(Err), drop──────────────▶ free
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_proto::{Error, Result};
use tokio::sync::watch;

/// Names of a kind of object. `R` is the request that asks for one, `T` the answer.
pub struct Names<R, T> {
    kind: &'static str,
    slots: Arc<Mutex<HashMap<String, Slot<R, T>>>>,
}

enum Slot<R, T> {
    InFlight { id: String, request: Arc<R>, outcome: Outcome<T> },
    Taken { id: String },
}

/// The answer of a request that is at work.
#[derive(Clone)]
pub struct Outcome<T>(watch::Receiver<Option<Result<T>>>);

/// Who has the name now.
pub enum Claim<R, T> {
    /// The caller: it does the work and finishes the ticket.
    New(Ticket<R, T>, Outcome<T>),
    /// An earlier call with the same request: wait for its answer.
    Joined(Outcome<T>),
    /// The finished object with this id.
    Taken(String),
}

/// The right to a name while the work is under way. Dropping it gives the name back.
pub struct Ticket<R, T> {
    name: String,
    kind: &'static str,
    slots: Arc<Mutex<HashMap<String, Slot<R, T>>>>,
    sender: watch::Sender<Option<Result<T>>>,
}

impl<R: PartialEq, T: Clone> Names<R, T> {
    pub fn new(kind: &'static str) -> Self {
        Self { kind, slots: Arc::default() }
    }

    /// Claims `name` for an object that will have `id`. `AlreadyExists` when another request is at work under it.
    pub fn claim(&self, name: &str, id: &str, request: R) -> Result<Claim<R, T>> {
        let mut slots = lock(&self.slots);
        match slots.get(name) {
            Some(Slot::InFlight { request: earlier, outcome, .. }) if **earlier == request => {
                Ok(Claim::Joined(outcome.clone()))
            }
            Some(Slot::InFlight { id: other, .. }) => Err(Error::exists(format!(
                "{} name {name:?} is being given to {other}, which was asked for with another configuration",
                self.kind
            ))),
            Some(Slot::Taken { id }) => Ok(Claim::Taken(id.clone())),
            None => {
                let (sender, receiver) = watch::channel(None);
                let outcome = Outcome(receiver);
                let slot = Slot::InFlight { id: id.to_owned(), request: Arc::new(request), outcome: outcome.clone() };
                slots.insert(name.to_owned(), slot);
                let ticket = Ticket { name: name.to_owned(), kind: self.kind, slots: self.slots.clone(), sender };
                Ok(Claim::New(ticket, outcome))
            }
        }
    }

    /// Gives a name to an object that exists already. `false`: another one has it.
    pub fn take(&self, name: &str, id: &str) -> bool {
        let mut slots = lock(&self.slots);
        let free = !slots.contains_key(name);
        if free {
            slots.insert(name.to_owned(), Slot::Taken { id: id.to_owned() });
        }
        free
    }

    /// Frees the name, if it is this object's.
    pub fn release(&self, name: &str, id: &str) {
        let mut slots = lock(&self.slots);
        if matches!(slots.get(name), Some(Slot::Taken { id: owner }) if owner == id) {
            slots.remove(name);
        }
    }
}

impl<R, T> Ticket<R, T> {
    /// Ends the work: success keeps the name for `id`, failure frees it. Everybody who waits gets the answer.
    pub fn finish(self, id: &str, answer: Result<T>) {
        match answer {
            Ok(_) => lock(&self.slots).insert(self.name.clone(), Slot::Taken { id: id.to_owned() }),
            Err(_) => lock(&self.slots).remove(&self.name),
        };
        self.sender.send_replace(Some(answer));
    }
}

impl<R, T> Drop for Ticket<R, T> {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            lock(&self.slots).remove(&self.name);
            let e = Error::internal(format!("the work for {} name {:?} was given up", self.kind, self.name));
            self.sender.send_replace(Some(Err(e)));
        }
    }
}

impl<T: Clone> Outcome<T> {
    /// Waits for the answer. It may be dropped and asked for again.
    pub async fn wait(mut self) -> Result<T> {
        match self.0.wait_for(Option::is_some).await.map(|answer| answer.clone()) {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(Error::internal("the work was given up")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::Code;

    type Claimed = Claim<&'static str, u32>;

    fn new(claim: Claimed) -> (Ticket<&'static str, u32>, Outcome<u32>) {
        match claim {
            Claim::New(ticket, outcome) => (ticket, outcome),
            Claim::Joined(_) | Claim::Taken(_) => panic!("the name should be free"),
        }
    }

    #[tokio::test]
    async fn the_same_request_joins_and_another_is_told_who_has_the_name() {
        let names = Names::new("sandbox");
        let (ticket, first) = new(names.claim("n", "id1", "config").unwrap());
        let Claim::Joined(second) = names.claim("n", "id2", "config").unwrap() else { panic!("joins") };
        let e = names.claim("n", "id3", "other").err().unwrap();
        assert_eq!(e.code, Code::AlreadyExists);
        assert!(e.message.contains("id1") && e.message.contains("\"n\""), "{e}");
        ticket.finish("id1", Ok(7));
        assert_eq!((first.wait().await.unwrap(), second.wait().await.unwrap()), (7, 7));
        assert!(matches!(names.claim("n", "id4", "config").unwrap(), Claim::Taken(id) if id == "id1"));
        names.release("n", "id2");
        assert!(!names.take("n", "id2"), "only its owner releases a name");
        names.release("n", "id1");
        assert!(names.take("n", "id2"));
    }

    #[tokio::test]
    async fn failure_and_a_lost_worker_free_the_name() {
        let names = Names::new("sandbox");
        let (ticket, outcome) = new(names.claim("n", "id1", "config").unwrap());
        ticket.finish("id1", Err(Error::unavailable("no network")));
        assert_eq!(outcome.wait().await.unwrap_err().code, Code::Unavailable);

        let (ticket, outcome) = new(names.claim("n", "id2", "config").unwrap());
        drop(ticket);
        assert_eq!(outcome.wait().await.unwrap_err().code, Code::Internal);
        assert!(names.take("n", "id3"));
    }
}
