//! The event exchange of the fake: no filters but the topic's prefix, no limits.

use std::sync::Mutex;

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::{FakeCore, lock, now, required};
use crate::api::{Events, Items};
use crate::containerd::{Envelope, events_service as e};
use crate::context::Context;
use crate::errdefs::{Error, Result};

#[derive(Default)]
pub(super) struct Subscribers(Mutex<Vec<mpsc::UnboundedSender<Envelope>>>);

impl FakeCore {
    /// Publishes a message in the caller's namespace.
    pub(super) fn emit<M: prost::Name>(&self, cx: &Context, topic: &str, message: &M) -> Result<()> {
        self.send(Envelope {
            timestamp: now(),
            namespace: cx.namespace()?.to_owned(),
            topic: topic.to_owned(),
            event: Some(crate::any::pack(message)),
        });
        Ok(())
    }

    fn send(&self, envelope: Envelope) {
        lock(&self.0.events.0).retain(|subscriber| subscriber.send(envelope.clone()).is_ok());
    }

    /// Breaks every subscription, as a restart of the core would.
    pub fn break_subscriptions(&self) {
        lock(&self.0.events.0).clear();
    }
}

#[async_trait]
impl Events for FakeCore {
    async fn publish(&self, cx: &Context, req: e::PublishRequest) -> Result<()> {
        let namespace = cx.namespace()?.to_owned();
        self.send(Envelope { timestamp: now(), namespace, topic: req.topic, event: req.event });
        Ok(())
    }

    async fn forward(&self, _: &Context, req: e::ForwardRequest) -> Result<()> {
        self.send(required(req.envelope, "envelope")?);
        Ok(())
    }

    async fn subscribe(&self, _: &Context, _: e::SubscribeRequest) -> Result<Items<Envelope>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        lock(&self.0.events.0).push(sender);
        let items = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(Ok);
        let broken = futures::stream::once(async { Err(Error::unavailable("the event stream is broken")) });
        Ok(items.chain(broken).boxed())
    }
}
