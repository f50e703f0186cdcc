//! The contract between the core and everybody who talks to it.
//!
//! This crate holds messages, port traits and error codes. It does no I/O of its own and decides nothing.
//!
//! - [`containerd`], [`cri`], [`ttrpc`]: the generated messages, grouped by who speaks them.
//! - [`seam`]: messages of our own, about starts.
//! - [`any`]: type URLs as containerd's clients expect them (bare names).
//! - [`errdefs`]: the closed set of errors, and its mapping to gRPC status codes.
//! - [`context`]: what travels beside a request: namespace, lease, trace.
//! - [`api`]: one file a service, each with its port trait, its gRPC client and its gRPC server adapter.
//! - [`core`]: [`core::Core`], the bundle of ports that is all the CRI side knows of the core.
//! - [`meter`]: counts calls, bytes and time at the seam. [`trace`]: spans of the same calls.
//! - [`authority`]: lets gRPC clients in that name the socket's path as the host.
//! - [`transport`]: how a channel to a core is opened: Unix socket or in-memory pipe.
//! - `fake`, `conformance`: an in-memory core, and what every core must do (feature `fake`, for tests).
//!
//! Without the feature `grpc` only the messages, [`any`] and [`errdefs`] remain: all that a shim needs.

#![forbid(unsafe_code)]

pub mod any;
pub mod containerd;
pub mod cri;
pub mod errdefs;
pub mod seam;
pub mod ttrpc;

#[cfg(feature = "grpc")]
pub mod api;
#[cfg(feature = "grpc")]
pub mod authority;
#[cfg(feature = "fake")]
pub mod conformance;
#[cfg(feature = "grpc")]
pub mod context;
#[cfg(feature = "grpc")]
pub mod core;
#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "grpc")]
pub mod meter;
#[cfg(feature = "grpc")]
pub mod trace;
#[cfg(feature = "grpc")]
pub mod transport;

#[cfg(feature = "grpc")]
pub use context::Context;
#[cfg(feature = "grpc")]
pub use core::Core;
pub use errdefs::{Code, Error, Result};

/// The generated code, in the module tree of the proto packages. Use the regrouped modules instead.
#[allow(missing_docs, dead_code, clippy::all, clippy::pedantic)]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

/// The encoded `FileDescriptorSet` of everything under `proto/` that code is generated from.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
/// The encoded `FileDescriptorSet` of CRI v1alpha2.
pub const DESCRIPTORS_V1ALPHA2: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors-v1alpha2.bin"));
