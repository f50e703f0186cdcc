//! The ttrpc protocol over prost messages: how the core and the shims talk.
//!
//! ttrpc is gRPC without HTTP/2: frames of ten bytes of header and one message, on a Unix socket (see [`frame`]).
//! A connection carries any number of calls at a time; answers come in any order.
//!
//! - [`Client`]: many calls on one connection, each with a deadline. A dropped call harms no other. [`Client::closed`]
//!   tells that the peer is gone.
//! - [`Server`]: every request in a task of its own, which a disconnecting client does not cancel; graceful shutdown.
//! - [`Context`]: what travels beside a request: metadata (the namespace) and the caller's time limit.
//!
//! Both ends work on a runtime of one thread and keep no buffer per idle connection beyond a few hundred bytes.
//!
//! Limits: unary calls only, a request that opens a stream is answered `Unimplemented`; [`frame::MAX_MESSAGE`] bytes
//! a message; [`server::MAX_IN_FLIGHT`] requests at a time and connection.

#![forbid(unsafe_code)]

mod client;
mod error;
pub mod frame;
mod message;
pub mod server;

pub use client::{Client, Options};
pub use error::CallError;
pub use message::{Context, NAMESPACE};
pub use server::{Answer, Server, Service, decode, encode};
