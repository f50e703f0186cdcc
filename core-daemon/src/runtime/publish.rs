//! `core-daemon publish`: hands one event to a running core, for shims and scripts that can't speak to it themselves.

use std::path::Path;
use std::time::{Duration, SystemTime};

use prost::Message;
use prost_types::Any;
use shared_proto::api::{Events, RemoteEvents};
use shared_proto::containerd::Envelope;
use shared_proto::containerd::events_service::ForwardRequest;
use shared_proto::{Context, Error, transport};

/// How long the core may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Forwards `event`, an encoded `google.protobuf.Any`, to the core at `address`.
pub async fn publish(address: &Path, namespace: &str, topic: &str, event: &[u8]) -> Result<(), Error> {
    let event = Any::decode(event).map_err(|e| Error::invalid(format!("the input is no google.protobuf.Any: {e}")))?;
    let envelope = Envelope {
        timestamp: Some(SystemTime::now().into()),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: Some(event),
    };
    let forward = async {
        let events = RemoteEvents::new(transport::unix_now(address).await?);
        events.forward(&Context::new(namespace), ForwardRequest { envelope: Some(envelope) }).await
    };
    tokio::time::timeout(LIMIT, forward)
        .await
        .map_err(|_| Error::deadline(format!("{}: no answer within {LIMIT:?}", address.display())))?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared_proto::api::EventsServer;
    use shared_proto::containerd::events::TaskOom;
    use shared_proto::{Code, any};

    use super::*;
    use crate::events::Exchange;
    use crate::services::events::EventsService;

    #[tokio::test]
    async fn an_event_arrives_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("core");
        let event = any::pack(&TaskOom { container_id: "c".into() });
        let bytes = event.encode_to_vec();
        assert_eq!(publish(&socket, "ns", "/tasks/oom", &bytes).await.unwrap_err().code, Code::Unavailable);

        let exchange = Exchange::default();
        let mut events = exchange.subscribe();
        let service = EventsServer::service(Arc::new(EventsService::new(exchange)));
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        publish(&socket, "ns", "/tasks/oom", &bytes).await.unwrap();
        let seen = events.recv().await.unwrap();
        assert_eq!((seen.ns.as_str(), seen.topic.as_str(), &seen.payload.value), ("ns", "/tasks/oom", &event.value));
        for (ns, topic, input) in [("ns", "oom", &bytes[..]), ("n s", "/tasks/oom", &bytes), ("ns", "/tasks/oom", b"{")]
        {
            assert_eq!(publish(&socket, ns, topic, input).await.unwrap_err().code, Code::InvalidArgument);
        }
    }
}
