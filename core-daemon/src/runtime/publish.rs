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
