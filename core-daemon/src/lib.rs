//! The core: images, snapshots, tasks and events behind the containerd API.
//!
//! `services` ▶ {`images`, `runtime`, `gc`} ▶ {`metadata`, `content`, `snapshots`, `diff`} ▶ `domain`; an arrow never
//! points up. The composition root is `app`. Beside them all: [`metrics`], and [`stages`] of the last starts.

#![forbid(unsafe_code)]

pub mod app;
pub mod content;
pub mod diff;
pub mod domain;
pub mod events;
pub mod gc;
pub mod images;
#[cfg(feature = "merged")]
mod merged;
pub mod metadata;
pub mod metrics;
pub mod oci_hook;
pub mod runtime;
mod server;
pub mod services;
pub mod snapshots;
pub mod stages;
#[cfg(test)]
mod testing;
