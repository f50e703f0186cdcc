//! The event exchange as clients see it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use shared_proto::api::{Events, Items};
use shared_proto::containerd::Envelope;
use shared_proto::containerd::events_service::{ForwardRequest, PublishRequest, SubscribeRequest};
use shared_proto::{Context, Error, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::convert;
use crate::domain::{Filters, Namespace, Scope};
use crate::events::{Event, Exchange, check_topic};

/// The port `Events` over the exchange.
pub struct EventsService {
    exchange: Exchange,
    stop: CancellationToken,
}

impl EventsService {
    pub fn new(exchange: Exchange) -> Self {
        Self { exchange, stop: CancellationToken::new() }
    }

    /// The same; streams end with `stop`, lest the core's own end wait for clients that only listen.
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }
}

#[async_trait::async_trait]
impl Events for EventsService {
    async fn publish(&self, cx: &Context, req: PublishRequest) -> Result<()> {
        let ns = Scope::of(cx)?.ns;
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: ns.to_string(),
            topic: req.topic,
            event: req.event,
        };
        self.exchange.publish(event(envelope)?);
        Ok(())
    }

    async fn forward(&self, _: &Context, req: ForwardRequest) -> Result<()> {
        let envelope = req.envelope.ok_or_else(|| Error::invalid("no envelope"))?;
        self.exchange.publish(event(envelope)?);
        Ok(())
    }

    async fn subscribe(&self, _: &Context, req: SubscribeRequest) -> Result<Items<Envelope>> {
        let filters = Filters::parse(&req.filters)?;
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        let events = self.exchange.subscribe();
        let stop = self.stop.clone();
        let items = futures::stream::unfold(Some(events), move |events| {
            let stop = stop.clone();
            async move { next(events?, &stop).await }
        });
        // Errors pass every filter.
        let wanted = items.filter_map(move |item| {
            let item = match item {
                Ok(event) => (filters.is_empty() || filters.matches(&*event)).then(|| Ok(envelope(&event))),
                Err(e) => Some(Err(e)),
            };
            std::future::ready(item)
        });
        Ok(wanted.boxed())
    }
}

fn stopping() -> Error {
    Error::unavailable("the core is stopping")
}

type Source = mpsc::Receiver<Arc<Event>>;

/// The next event; behind the last one comes the reason why there are no more. It is an error: Go clients take a stream
/// that ends well for their own wish, and never listen again.
async fn next(mut events: Source, stop: &CancellationToken) -> Option<(Result<Arc<Event>>, Option<Source>)> {
    let event = tokio::select! {
        biased;
        event = events.recv() => event,
        () = stop.cancelled() => return Some((Err(stopping()), None)),
    };
    match event {
        Some(event) => Some((Ok(event), Some(events))),
        None => {
            let reason = "this subscriber fell behind and has missed events: subscribe again and read the state anew";
            Some((Err(Error::unavailable(reason)), None))
        }
    }
}

/// Validates an event from outside.
fn event(envelope: Envelope) -> Result<Event> {
    Namespace::parse(&envelope.namespace)?;
    check_topic(&envelope.topic)?;
    let event = envelope.event.filter(|event| !event.type_url.is_empty());
    let event = event.ok_or_else(|| Error::invalid("an event must have a type"))?;
    let at = envelope.timestamp.ok_or_else(|| Error::invalid("an event must have a timestamp"))?;
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(at.seconds), u32::try_from(at.nanos)) else {
        return Err(Error::invalid(format!("timestamp {at:?} lies before 1970")));
    };
    Ok(Event {
        at: UNIX_EPOCH + Duration::new(seconds, nanos),
        ns: envelope.namespace,
        topic: envelope.topic,
        payload: convert::payload(event),
    })
}

fn envelope(event: &Event) -> Envelope {
    Envelope {
        timestamp: Some(event.at.into()),
        namespace: event.ns.clone(),
        topic: event.topic.clone(),
        event: Some(convert::any(event.payload.clone())),
    }
}

#[cfg(test)]
mod tests {
    use shared_proto::containerd::events::TaskExit;
    use shared_proto::{Code, any};

    use super::*;
    use crate::events::QUEUE;

    fn request(topic: &str) -> PublishRequest {
        let exit = TaskExit { container_id: "c".into(), ..Default::default() };
        PublishRequest { topic: topic.into(), event: Some(any::pack(&exit)) }
    }

    #[tokio::test]
    async fn subscribers_get_what_their_filter_lets_pass() {
        let service = EventsService::new(Exchange::default());
        let filters = vec!["namespace==moby,topic~=|^/tasks/|".to_owned()];
        let mut seen = service.subscribe(&Context::default(), SubscribeRequest { filters }).await.unwrap();
        for (ns, topic) in [("default", "/tasks/exit"), ("moby", "/images/create"), ("moby", "/tasks/exit")] {
            service.publish(&Context::new(ns), request(topic)).await.unwrap();
        }
        let envelope = seen.next().await.unwrap().unwrap();
        assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), ("moby", "/tasks/exit"));
        assert_eq!(envelope.event, request("").event);
    }

    #[tokio::test]
    async fn a_slow_subscriber_learns_that_it_missed_something() {
        let service = EventsService::new(Exchange::default());
        let mut seen = service.subscribe(&Context::default(), SubscribeRequest::default()).await.unwrap();
        for _ in 0..=QUEUE {
            service.publish(&Context::new("ns"), request("/tasks/exit")).await.unwrap();
        }
        let mut last = None;
        while let Some(item) = seen.next().await {
            last = Some(item);
        }
        assert_eq!(last.unwrap().unwrap_err().code, Code::Unavailable);
    }

    #[tokio::test]
    async fn a_stop_ends_the_streams() {
        let stop = CancellationToken::new();
        let service = EventsService::new(Exchange::default()).until(stop.clone());
        let mut seen = service.subscribe(&Context::default(), SubscribeRequest::default()).await.unwrap();
        service.publish(&Context::new("ns"), request("/tasks/exit")).await.unwrap();
        assert_eq!(seen.next().await.unwrap().unwrap().topic, "/tasks/exit");
        stop.cancel();
        assert_eq!(seen.next().await.unwrap().unwrap_err().code, Code::Unavailable);
        assert!(seen.next().await.is_none());
        let late = service.subscribe(&Context::default(), SubscribeRequest::default()).await;
        assert_eq!(late.err().unwrap().code, Code::Unavailable);
    }

    #[tokio::test]
    async fn bad_events_are_refused() {
        let service = EventsService::new(Exchange::default());
        let code = |r: Result<()>| r.unwrap_err().code;
        assert_eq!(code(service.publish(&Context::default(), request("/a")).await), Code::FailedPrecondition);
        let cx = Context::new("ns");
        assert_eq!(code(service.publish(&cx, request("a")).await), Code::InvalidArgument);
        let untyped = PublishRequest { topic: "/a".into(), event: None };
        assert_eq!(code(service.publish(&cx, untyped).await), Code::InvalidArgument);
        assert_eq!(code(service.forward(&cx, ForwardRequest::default()).await), Code::InvalidArgument);
        let bad = SubscribeRequest { filters: vec!["topic~=(".into()] };
        assert!(service.subscribe(&cx, bad).await.is_err());
    }
}
