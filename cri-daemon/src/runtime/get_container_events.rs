//! GetContainerEvents: what happens to pods and containers, after what happened in the last minutes.

use shared_proto::Result;
use shared_proto::api::Items;
use shared_proto::cri::v1::{ContainerEventResponse, GetEventsRequest};

use crate::Cri;

impl Cri {
    /// The stream ends when the server stops, and for a client that is too slow: see [`crate::events::Feed`].
    pub async fn get_container_events(&self, _: GetEventsRequest) -> Result<Items<ContainerEventResponse>> {
        Ok(self.0.feed.subscribe())
    }
}
