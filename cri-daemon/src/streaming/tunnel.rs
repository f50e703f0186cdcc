//! SPDY inside of WebSocket: the content of the binary messages, one after the other, is a SPDY connection. So do
//! clients that have to get a port-forward through proxies which know WebSocket only.

use bytes::BytesMut;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use super::channel::PIECE;
use super::websocket;

/// Bytes on their way in each direction, at most.
const HELD: usize = 64 << 10;

/// The SPDY connection inside a WebSocket that HTTP has handed over.
pub async fn open<T>(io: T) -> DuplexStream
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (inside, outside) = tokio::io::duplex(HELD);
    let (mut write, mut read) = websocket::accept(io).await.split();
    let (mut from_inside, mut to_inside) = tokio::io::split(outside);
    // Both end with either side of the tunnel.
    tokio::spawn(async move {
        while let Some(Ok(message)) = read.next().await {
            match message {
                Message::Binary(data) => {
                    if to_inside.write_all(&data).await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        let _ = to_inside.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = BytesMut::with_capacity(PIECE);
        while let Ok(1..) = from_inside.read_buf(&mut buffer).await {
            if write.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                return;
            }
            buffer.reserve(PIECE);
        }
        let _ = write.send(Message::Close(None)).await;
    });
    inside
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_end() {
        let (client, server) = tokio::io::duplex(HELD);
        let mut inside = open(server).await;
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        for piece in ["one ", "two"] {
            client.send(Message::Binary(Bytes::from_static(piece.as_bytes()))).await.unwrap();
        }
        let mut got = [0; 7];
        inside.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"one two");
        inside.write_all(b"back").await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(Bytes::from_static(b"back")));
        drop(inside);
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
    }
}
