//! The event exchange. `Subscribe` spans all namespaces: the envelope names the one an event belongs to.

super::port! {
    /// See the [module](self)'s documentation.
    Events, RemoteEvents, EventsServer, MeteredEvents:
    crate::containerd::events_service, events_client::EventsClient, events_server::Events / EventsServer;
    unary {
        publish(PublishRequest) -> ();
        forward(ForwardRequest) -> ();
    }
    server_stream {
        subscribe(SubscribeRequest) -> crate::containerd::Envelope as SubscribeStream;
    }
}
