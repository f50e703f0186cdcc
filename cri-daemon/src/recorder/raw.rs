//! A gRPC client that knows no messages: it sends bytes to a method, and gets the bytes of each answer.

use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use shared_proto::transport::MAX_MESSAGE;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub messages: Vec<Bytes>,
    pub status: Result<(), Status>,
    pub took: Duration,
}

/// Calls `method` and waits for the last message of the answer. `seen` is told of each as it comes.
pub async fn call(
    channel: Channel,
    method: &str,
    request: Bytes,
    deadline: Option<Duration>,
    mut seen: impl FnMut(&Bytes),
) -> Answer {
    let (started, mut messages) = (Instant::now(), Vec::new());
    let status = async {
        let path: PathAndQuery = method.parse().map_err(|_| Status::internal(format!("no method: {method}")))?;
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
        client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let mut request = Request::new(request);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        let mut answer = client.server_streaming(request, path, Raw).await?.into_inner();
        while let Some(message) = answer.message().await? {
            seen(&message);
            messages.push(message);
        }
        Ok(())
    };
    let status = status.await;
    Answer { messages, status, took: started.elapsed() }
}

struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
