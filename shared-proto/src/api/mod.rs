//! One port a containerd service: the only way from the CRI side to the core.
//!
//! [`port!`] writes, from one list of methods:
//!
//! - the **port trait** (`Containers`), which speaks the proto messages and [`Error`];
//! - the **remote client** (`RemoteContainers`), the port over a gRPC channel;
//! - the **server adapter** (`ContainersServer`), the gRPC service over any implementor of the port;
//! - the **meter** (`MeteredContainers`), the port over another implementor, with counters and spans.
//!
//! The core implements the trait in `core-daemon/src/services`, the tests' fake in [`crate::fake`]. A method takes
//! the [`Context`] and one message, and answers one message or a stream of them. So `merged` is a virtual call,
//! and `split` the same call with two encodings between.

use futures::stream::BoxStream;

use crate::errdefs::{Error, Result};

use crate::context::Context;

mod containers;
mod content;
mod diff;
mod events;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod sandboxes;
mod snapshots;
mod streaming;
mod tasks;
mod transfer;
mod version;

pub use containers::*;
pub use content::*;
pub use diff::*;
pub use events::*;
pub use images::*;
pub use introspection::*;
pub use leases::*;
pub use namespaces::*;
pub use sandboxes::*;
pub use snapshots::*;
pub use streaming::*;
pub use tasks::*;
pub use transfer::*;
pub use version::*;

/// A stream of messages through a port, in either direction. An `Err` is its last item.
pub type Items<T> = BoxStream<'static, Result<T>>;

/// Writes a port and its three adapters; see the module's documentation.
macro_rules! port {
    (
        $(#[$doc:meta])*
        $port:ident, $remote:ident, $server:ident, $metered:ident:
        $package:path, $client_mod:ident::$client:ident, $server_mod:ident::$rpc_trait:ident / $rpc_server:ident;
        unary {
            $( $(#[$udoc:meta])* $unary:ident($ureq:ty) -> $uresp:ty; )*
        }
        $( server_stream {
            $( $(#[$sdoc:meta])* $stream:ident($sreq:ty) -> $sresp:ty as $sassoc:ident; )*
        } )?
        $( bidi {
            $( $(#[$bdoc:meta])* $bidi:ident($breq:ty) -> $bresp:ty as $bassoc:ident; )*
        } )?
    ) => {
        use std::borrow::Cow;
        use std::sync::Arc;

        #[allow(unused_imports)] // Not every port streams.
        use futures::{StreamExt as _, TryStreamExt as _};
        #[allow(unused_imports)]
        use $package::{self as pb, *};
        use tracing::Instrument as _;

        #[allow(unused_imports)]
        use $crate::api::Items;
        use $crate::context::Context;
        use $crate::errdefs::Result;
        use $crate::meter::{Counter, Meter, Side};
        use $crate::transport::MAX_MESSAGE;

        $(#[$doc])*
        #[async_trait::async_trait]
        pub trait $port: Send + Sync + 'static {
            $( $(#[$udoc])* async fn $unary(&self, cx: &Context, req: $ureq) -> Result<$uresp>; )*
            $($( $(#[$sdoc])* async fn $stream(&self, cx: &Context, req: $sreq) -> Result<Items<$sresp>>; )*)?
            $($( $(#[$bdoc])* async fn $bidi(&self, cx: &Context, req: Items<$breq>) -> Result<Items<$bresp>>; )*)?
        }

        #[doc = concat!("[`", stringify!($port), "`] over a gRPC channel.")]
        #[derive(Clone)]
        pub struct $remote(pb::$client_mod::$client<tonic::transport::Channel>);

        impl $remote {
            pub fn new(channel: tonic::transport::Channel) -> Self {
                let client = pb::$client_mod::$client::new(channel)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE);
                Self(client)
            }
        }

        #[async_trait::async_trait]
        impl $port for $remote {
            $( async fn $unary(&self, cx: &Context, req: $ureq) -> Result<$uresp> {
                $crate::api::check_size(&req)?;
                let mut request = tonic::Request::new(req);
                cx.write_to(request.metadata_mut())?;
                Ok(self.0.clone().$unary(request).await?.into_inner())
            } )*
            $($( async fn $stream(&self, cx: &Context, req: $sreq) -> Result<Items<$sresp>> {
                let mut request = tonic::Request::new(req);
                cx.write_to(request.metadata_mut())?;
                Ok(self.0.clone().$stream(request).await?.into_inner().map_err(Into::into).boxed())
            } )*)?
            $($( async fn $bidi(&self, cx: &Context, req: Items<$breq>) -> Result<Items<$bresp>> {
                let mut request = tonic::Request::new($crate::api::UntilError(req));
                cx.write_to(request.metadata_mut())?;
                Ok(self.0.clone().$bidi(request).await?.into_inner().map_err(Into::into).boxed())
            } )*)?
        }

        #[doc = concat!("The gRPC service over any [`", stringify!($port), "`].")]
        #[derive(Clone)]
        pub struct $server(Arc<dyn $port>);

        impl $server {
            /// The service, ready to be added to a router.
            pub fn service(port: Arc<dyn $port>) -> pb::$server_mod::$rpc_server<Self> {
                pb::$server_mod::$rpc_server::new(Self(port))
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE)
            }
        }

        #[async_trait::async_trait]
        impl pb::$server_mod::$rpc_trait for $server {
            $( async fn $unary(&self, request: tonic::Request<$ureq>) -> Result<tonic::Response<$uresp>, tonic::Status> {
                let cx = Context::from_metadata(request.metadata());
                Ok(tonic::Response::new(self.0.$unary(&cx, request.into_inner()).await?))
            } )*
            $($( type $sassoc = futures::stream::BoxStream<'static, Result<$sresp, tonic::Status>>;
            async fn $stream(&self, request: tonic::Request<$sreq>) -> Result<tonic::Response<Self::$sassoc>, tonic::Status> {
                let cx = Context::from_metadata(request.metadata());
                let items = self.0.$stream(&cx, request.into_inner()).await?;
                Ok(tonic::Response::new(items.map_err(Into::into).boxed()))
            } )*)?
            $($( type $bassoc = futures::stream::BoxStream<'static, Result<$bresp, tonic::Status>>;
            async fn $bidi(&self, request: tonic::Request<tonic::Streaming<$breq>>) -> Result<tonic::Response<Self::$bassoc>, tonic::Status> {
                let cx = Context::from_metadata(request.metadata());
                let items = self.0.$bidi(&cx, request.into_inner().map_err(Into::into).boxed()).await?;
                Ok(tonic::Response::new(items.map_err(Into::into).boxed()))
            } )*)?
        }

        #[doc = concat!("A [`", stringify!($port), "`] with counters and spans around another.")]
        pub struct $metered {
            inner: Arc<dyn $port>,
            side: Side,
            wire: bool,
            $( $unary: Arc<Counter>, )*
            $($( $stream: Arc<Counter>, )*)?
            $($( $bidi: Arc<Counter>, )*)?
        }

        impl $metered {
            /// Wraps `inner`; `wire` says that its messages are encoded, so that their sizes are worth counting.
            pub fn wrap(inner: Arc<dyn $port>, meter: &Meter, wire: bool) -> Arc<dyn $port> {
                Arc::new(Self {
                    $( $unary: meter.register(concat!(stringify!($port), ".", stringify!($unary))), )*
                    $($( $stream: meter.register(concat!(stringify!($port), ".", stringify!($stream))), )*)?
                    $($( $bidi: meter.register(concat!(stringify!($port), ".", stringify!($bidi))), )*)?
                    side: meter.side(),
                    inner,
                    wire,
                })
            }

            fn span<'a>(&self, method: &'static str, cx: &'a Context) -> (tracing::Span, Cow<'a, Context>) {
                $crate::api::span(self.side, stringify!($port), method, cx)
            }
        }

        #[async_trait::async_trait]
        impl $port for $metered {
            $( async fn $unary(&self, cx: &Context, req: $ureq) -> Result<$uresp> {
                let counter = &self.$unary;
                if self.wire {
                    counter.sent(prost::Message::encoded_len(&req));
                }
                let (span, cx) = self.span(stringify!($unary), cx);
                let timer = counter.start();
                let cx = timer.sends(cx, &req);
                timer.pause($crate::meter::Way::There).await;
                let answer = self.inner.$unary(&cx, req).instrument(span).await;
                timer.receives(&answer);
                timer.pause($crate::meter::Way::Back).await;
                timer.stop(&answer);
                if let (true, Ok(message)) = (self.wire, &answer) {
                    counter.received(prost::Message::encoded_len(message));
                }
                answer
            } )*
            $($( async fn $stream(&self, cx: &Context, req: $sreq) -> Result<Items<$sresp>> {
                let counter = self.$stream.clone();
                let (span, cx) = self.span(stringify!($stream), cx);
                let timer = counter.start();
                let answer = self.inner.$stream(&cx, req).instrument(span).await;
                timer.stop(&answer);
                Ok($crate::api::count_items(answer?, counter, self.wire, Counter::received))
            } )*)?
            $($( async fn $bidi(&self, cx: &Context, req: Items<$breq>) -> Result<Items<$bresp>> {
                let counter = self.$bidi.clone();
                let req = $crate::api::count_items(req, counter.clone(), self.wire, Counter::sent);
                let (span, cx) = self.span(stringify!($bidi), cx);
                let timer = counter.start();
                let answer = self.inner.$bidi(&cx, req).instrument(span).await;
                timer.stop(&answer);
                Ok($crate::api::count_items(answer?, counter, self.wire, Counter::received))
            } )*)?
        }
    };
}
pub(crate) use port;

/// The span of a call, and the surroundings in which it goes on.
fn span<'a>(
    side: crate::meter::Side,
    service: &'static str,
    method: &'static str,
    cx: &'a Context,
) -> (tracing::Span, std::borrow::Cow<'a, Context>) {
    use std::borrow::Cow;
    match side {
        crate::meter::Side::Core => (crate::trace::served(service, method, cx), Cow::Borrowed(cx)),
        crate::meter::Side::Caller => crate::trace::caller(service, method, cx),
    }
}

/// Counts the encoded bytes of a stream's items, where they are encoded at all.
fn count_items<M: prost::Message + 'static>(
    items: Items<M>,
    counter: std::sync::Arc<crate::meter::Counter>,
    wire: bool,
    count: fn(&crate::meter::Counter, usize),
) -> Items<M> {
    use futures::TryStreamExt as _;
    if !wire {
        return items;
    }
    Box::pin(items.inspect_ok(move |message| count(&counter, message.encoded_len())))
}

/// A request stream as gRPC clients send it: plain items, up to the first error.
///
/// A type of its own, because the compiler can't see through a boxed stream inside the generated futures.
struct UntilError<M>(Items<M>);

impl<M> futures::Stream for UntilError<M> {
    type Item = M;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx).map(|item| item.and_then(Result::ok))
    }
}

/// Refuses what no server would take, before it breaks the connection for others.
fn check_size(message: &impl prost::Message) -> Result<()> {
    let (size, limit) = (message.encoded_len(), crate::transport::MAX_MESSAGE);
    if size <= limit {
        return Ok(());
    }
    Err(Error::new(crate::Code::ResourceExhausted, format!("a message of {size} bytes is over the limit of {limit}")))
}

/// An empty stream, for ports that have nothing to say.
pub fn no_items<T: Send + 'static>() -> Items<T> {
    Box::pin(futures::stream::empty::<Result<T, Error>>())
}
