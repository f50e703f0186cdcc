//! Lets every gRPC client in, whatever it puts into `:authority`.
//!
//! gRPC over a Unix socket has no host to name. Python and C++ clients send the socket's path, percent-encoded; Java
//! clients and Go clients before 2021 (the kubelet up to 1.25 among them) send it raw. The HTTP/2 library under tonic
//! takes neither for a host and resets the stream with PROTOCOL_ERROR before any service sees the call.
//!
//! [`AcceptAny`] sits between the accepted socket and the server. It reads the client's bytes up to the first request
//! and replaces an unreadable `:authority` by `localhost`. A client whose first request is readable, as those of
//! tonic, of recent Go and of our own daemons are, pays for this one look; from then on its bytes pass unread.
//!
//! - [`frames`], [`block`]: where the header blocks are, and how one is put together.
//! - [`hpack`]: where `:authority` is in a block, and why replacing it leaves the compression intact.
//! - [`huffman`]: reading compressed strings.
//!
//! Limit: a client that starts with a good authority and changes to a bad one later on the same connection is refused
//! as before. None is known.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::Connected;

mod block;
mod frames;
mod hpack;
mod huffman;

use frames::Filter;

/// How much is read at a time while the client is being looked at, bytes.
const CHUNK: usize = 16 << 10;
/// Pause after a failed accept: it fails for want of file descriptors, and they don't come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An accepted connection whose client may say what it likes in `:authority`.
pub struct AcceptAny<S> {
    inner: S,
    /// Gone once nothing more needs to be looked at and everything held back was given out.
    look: Option<Box<Look>>,
}

struct Look {
    filter: Filter,
    /// Decided bytes, given out up to `given`.
    out: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<S> AcceptAny<S> {
    pub fn new(inner: S) -> Self {
        let look = Look { filter: Filter::new(), out: Vec::new(), given: 0, ended: false };
        Self { inner, look: Some(Box::new(look)) }
    }
}

/// The connections of a listener. Never ends and never fails: an accept that failed is logged and tried again.
pub fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<AcceptAny<UnixStream>>> {
    futures::stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(AcceptAny::new(stream)), listener)),
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

impl Look {
    /// Gives out decided bytes; `false` when there are none.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let waiting = &self.out[self.given..];
        let now = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..now]);
        self.given += now;
        if self.given == self.out.len() {
            self.out.clear();
            self.given = 0;
        }
        now > 0
    }

    /// Whether the connection can go on without us.
    fn is_over(&self) -> bool {
        self.out.is_empty() && (self.filter.is_through() || self.ended)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AcceptAny<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while let Some(look) = &mut this.look {
            if buf.remaining() == 0 || look.give(buf) {
                return Poll::Ready(Ok(()));
            }
            if look.is_over() {
                this.look = None;
                break;
            }
            let mut chunk = [std::mem::MaybeUninit::uninit(); CHUNK];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                look.filter.finish(&mut look.out);
                look.ended = true;
            } else {
                look.filter.push(chunk.filled(), &mut look.out);
            }
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AcceptAny<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for AcceptAny<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests;
