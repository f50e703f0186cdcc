//! Images come from registries and archives: resolved, fetched, verified and unpacked.
//!
//! | module | does |
//! |---|---|
//! | [`reference`] | takes `registry/repository:tag@digest` apart |
//! | [`hosts`] | which hosts serve a registry: `hosts.toml` |
//! | [`http`] | the HTTP clients |
//! | [`auth`] | challenges, credentials, tokens |
//! | [`endpoint`] | one host: requests, redirects, answers as errors |
//! | [`registry`] | all hosts of a registry: retries, mirrors |
//! | [`download`] | one blob: resume, the next host |
//! | [`manifest`], [`platform`] | manifests, indexes, configurations; which entry is for us |

pub mod auth;
pub mod download;
pub mod endpoint;
mod error;
mod flights;
pub mod hosts;
pub mod http;
pub mod manifest;
mod platform;
pub mod progress;
pub mod reference;
pub mod registry;
mod tail;

pub use error::ImageError;
pub use reference::Reference;

#[cfg(test)]
mod tests;
