//! What the core must hear: events, sent in order, each again until the core has taken it.
//!
//! A core that is down or restarting is tried for as long as the shim lives. Limit: [`MAX_QUEUE`] events wait; beyond
//! that the oldest goes, with a line in the log. States can always be asked for, so a lost event is no lost exit.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use prost::Name;
use shared_proto::any;
use shared_proto::containerd::Envelope;
use shared_proto::ttrpc::EVENTS;
use shared_proto::ttrpc::events::ForwardRequest;
use shared_ttrpc::{CallError, Client, Options};
use tokio::sync::Notify;

use crate::exits::timestamp;
use crate::log;

/// Events that wait for the core.
pub const MAX_QUEUE: usize = 2048;
/// For one delivery.
const LIMIT: Duration = Duration::from_secs(5);
/// Pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that is not used goes: it costs the core as much as us.
const IDLE: Duration = Duration::from_secs(5);

/// Where events go in.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    namespace: String,
    queue: Mutex<VecDeque<Envelope>>,
    changed: Notify,
}

impl Events {
    pub fn new(namespace: &str) -> Self {
        let (queue, changed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Inner { namespace: namespace.to_owned(), queue, changed }))
    }

    /// Queues an event; does not wait.
    pub fn publish<M: Name>(&self, topic: &str, message: &M) {
        let envelope = Envelope {
            timestamp: Some(timestamp(SystemTime::now())),
            namespace: self.0.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(any::pack(message)),
        };
        let mut queue = self.queue();
        if queue.len() == MAX_QUEUE {
            log::warn("the core takes no events: the oldest is dropped");
            queue.pop_front();
        }
        queue.push_back(envelope);
        self.0.changed.notify_waiters();
    }

    /// Until the core has taken all.
    pub async fn delivered(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.queue().is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Envelope>> {
        self.0.queue.lock().expect("the queue of events")
    }

    /// Until there is an event.
    async fn next(&self) -> Envelope {
        loop {
            let changed = self.0.changed.notified();
            if let Some(envelope) = self.queue().front().cloned() {
                return envelope;
            }
            changed.await;
        }
    }

    /// Delivers to the core's ttrpc socket until the server ends.
    pub async fn deliver(self, address: PathBuf) {
        let mut client = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let envelope = match tokio::time::timeout(IDLE, self.next()).await {
                Ok(envelope) => envelope,
                Err(_) => {
                    client = None;
                    self.next().await
                }
            };
            if self.send(&mut client, &address, &envelope).await {
                pause = FIRST_PAUSE;
                let mut queue = self.queue();
                // While it was on its way a full queue may have dropped it.
                if queue.front() == Some(&envelope) {
                    queue.pop_front();
                }
                drop(queue);
                self.0.changed.notify_waiters();
            } else {
                client = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// One try; `true` if the core has taken it, or will never.
    async fn send(&self, client: &mut Option<Client>, address: &Path, envelope: &Envelope) -> bool {
        if client.is_none() {
            *client = Client::connect(address).await.ok();
        }
        let Some(client) = client else { return false };
        let request = ForwardRequest { envelope: Some(envelope.clone()) };
        let options = Options::new(&self.0.namespace, LIMIT);
        match client.call::<()>(EVENTS, "Forward", &request, options).await {
            Ok(()) => true,
            Err(CallError::Status(e)) => {
                log::warn(format_args!("the core refuses event {}: {e}", envelope.topic));
                true
            }
            Err(e) => {
                log::info(format_args!("event {}: {e}; trying again", envelope.topic));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use bytes::Bytes;
    use shared_proto::containerd::events::TaskStart;
    use shared_ttrpc::{Answer, Context, Server, Service, decode, encode};

    use super::*;

    struct Core(tokio::sync::mpsc::UnboundedSender<u32>);

    impl Service for Core {
        fn call(&self, _: Context, _: &str, payload: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
            let request: ForwardRequest = decode(payload).unwrap();
            let event: TaskStart = any::unpack(&request.envelope.unwrap().event.unwrap()).unwrap();
            self.0.send(event.pid).unwrap();
            Box::pin(std::future::ready(encode(&())))
        }
    }

    #[tokio::test]
    async fn events_wait_for_a_core_and_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let address = dir.path().join("core.ttrpc");
        let events = Events::new("ns");
        let delivery = tokio::spawn(events.clone().deliver(address.clone()));
        let publish = |pid| events.publish("/tasks/start", &TaskStart { container_id: "c".into(), pid });
        publish(1);
        publish(2);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let listener = tokio::net::UnixListener::bind(&address).unwrap();
        let core = Server::new().service(EVENTS, Arc::new(Core(sender)));
        tokio::spawn(core.serve(listener, std::future::pending()));
        publish(3);
        events.delivered().await;
        for pid in 1..=3 {
            assert_eq!(heard.recv().await, Some(pid));
        }
        delivery.abort();
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_oldest() {
        let events = Events::new("ns");
        for pid in 0..=MAX_QUEUE as u32 {
            events.publish("/tasks/start", &TaskStart { container_id: "c".into(), pid });
        }
        let first: TaskStart = any::unpack(&events.next().await.event.unwrap()).unwrap();
        assert_eq!((first.pid, events.queue().len()), (1, MAX_QUEUE));
    }
}
