//! The event exchange: what happened, to whoever listens.
//!
//! Publishing never waits. Every subscriber has a bounded queue of its own; one that falls behind is told so and cut
//! off (it subscribes again and re-reads the state), and delays nobody else.
//!
//! A client that lives by events, such as Docker Engine, loses its subscription with a core that ends, and the shims'
//! news may reach the next core before that client does. So some of what happens in the first moments of a core that
//! has found tasks is kept for whoever subscribes in them ([`early`]).
//!
//! Limits: [`QUEUE`] events per subscriber; nothing else is kept for subscribers that come later.

mod early;
mod fields;

use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc;

use self::early::Early;
use crate::domain::{Id, Invalid, Payload};

/// Events that may wait for one subscriber.
pub const QUEUE: usize = 4096;

/// One event with its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub at: SystemTime,
    pub ns: String,
    /// For example `/tasks/exit`.
    pub topic: String,
    pub payload: Payload,
}

/// Topics are paths: `/` and names, separated by `/`.
pub fn check_topic(topic: &str) -> Result<(), Invalid> {
    let names = topic.strip_prefix('/').filter(|names| !names.is_empty());
    let names = names.ok_or_else(|| Invalid(format!("topic {topic:?} must start with '/' and a name")))?;
    names.split('/').try_for_each(|name| match Id::parse(name) {
        Ok(_) => Ok(()),
        Err(Invalid(reason)) => Err(Invalid(format!("topic {topic:?}: {reason}"))),
    })
}

/// The exchange; cheap to clone.
#[derive(Clone, Default)]
pub struct Exchange(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    subscribers: Vec<mpsc::Sender<Arc<Event>>>,
    early: Early,
}

impl Exchange {
    /// The exchange of a core that starts now, of which clients of an earlier one will want to hear what they missed.
    pub fn starting() -> Self {
        Self(Arc::new(Mutex::new(Inner { subscribers: Vec::new(), early: Early::from(Instant::now()) })))
    }

    /// There was no earlier core, or it has left nothing: nobody has missed anything.
    pub fn nothing_was_missed(&self) {
        self.0.lock().expect("exchange lock").early = Early::default();
    }

    /// What is so since before this core's start, for those that may have missed the news.
    pub fn recall<M: prost::Name>(&self, ns: &str, topic: &str, message: &M) {
        let event = Arc::new(packed(ns, topic, message));
        self.0.lock().expect("exchange lock").early.keep(&event, Instant::now());
    }

    /// Hands an event to every subscriber. Those that are gone or too slow are dropped.
    pub fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut inner = self.0.lock().expect("exchange lock");
        inner.early.keep(&event, Instant::now());
        inner.subscribers.retain(|subscriber| match subscriber.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(limit = QUEUE, "an event subscriber is too slow and is cut off");
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// Publishes a message that happened now.
    pub fn publish_message<M: prost::Name>(&self, ns: &str, topic: &str, message: &M) {
        self.publish(packed(ns, topic, message));
    }

    /// Everything that is published from now on, behind what was kept. The channel closes when the subscriber fell
    /// behind.
    pub fn subscribe(&self) -> mpsc::Receiver<Arc<Event>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = self.0.lock().expect("exchange lock");
        for event in inner.early.kept(Instant::now()) {
            sender.try_send(event.clone()).expect("fewer are kept than may wait");
        }
        inner.subscribers.push(sender);
        receiver
    }
}

/// A message that is now.
fn packed<M: prost::Name>(ns: &str, topic: &str, message: &M) -> Event {
    let any = shared_proto::any::pack(message);
    let payload = Payload { type_url: any.type_url, value: any.value };
    Event { at: SystemTime::now(), ns: ns.to_owned(), topic: topic.to_owned(), payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str) -> Event {
        let payload = Payload::default();
        Event { at: SystemTime::now(), ns: "default".into(), topic: topic.into(), payload }
    }

    #[test]
    fn topics_are_paths_of_names() {
        for good in ["/tasks/exit", "/a"] {
            check_topic(good).unwrap();
        }
        for bad in ["", "/", "tasks/exit", "/tasks/", "//exit", "/tasks/ex it"] {
            let e = check_topic(bad).unwrap_err();
            assert!(e.0.contains(&format!("{bad:?}")), "{e}");
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_delays_only_itself() {
        let exchange = Exchange::default();
        let mut slow = exchange.subscribe();
        let mut quick = exchange.subscribe();
        for n in 0..=QUEUE {
            exchange.publish(event(&n.to_string()));
            assert_eq!(quick.recv().await.unwrap().topic, n.to_string());
        }
        let mut seen = 0;
        while slow.recv().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, QUEUE);
    }
}
