//! Streams that other calls refer to by name: progress and credentials of a transfer.
//!
//! The client's first message is a `StreamInit` with the name; the server answers with an empty `Any` once the name
//! is known. From then on both sides send what the call that uses the stream defines.

super::port! {
    /// See the [module](self)'s documentation.
    Streaming, RemoteStreaming, StreamingServer, MeteredStreaming:
    crate::containerd::streaming, streaming_client::StreamingClient, streaming_server::Streaming / StreamingServer;
    unary {}
    bidi {
        stream(prost_types::Any) -> prost_types::Any as StreamStream;
    }
}
