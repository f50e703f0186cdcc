//! Images come from registries and archives: resolved, fetched, verified and unpacked.
//!
//! | module | does |
//! |---|---|
//! | [`reference`] | takes `registry/repository:tag@digest` apart |
//! | [`hosts`] | which hosts serve a registry: `hosts.toml` |
//! | [`http`] | the HTTP clients |
//! | [`auth`] | challenges, credentials, tokens |
//! | [`endpoint`], `answer` | one host: requests, redirects; answers as errors |
//! | [`registry`] | all hosts of a registry: retries, mirrors |
//! | [`download`] | one blob: resume, the next host |
//! | [`progress`] | what transfers report |
//! | [`target`] | names, platforms and snapshotters at the destination |
//! | `puller` | what all transfers share: leases, image records |
//! | `pull`, `plan`, `fetch`, `unpack` | registry ▶ store ▶ snapshots, as a pipeline |
//! | `archive` | OCI layouts and `docker save` files |
//! | `flights`, `tail` | nothing twice at a time; reading what still comes |
//! | [`manifest`], [`platform`] | manifests, indexes, configurations; which entry is for us |

mod answer;
mod archive;
pub mod auth;
pub mod download;
pub mod endpoint;
mod error;
mod fetch;
mod flights;
pub mod hosts;
pub mod http;
pub mod manifest;
mod plan;
mod platform;
pub mod progress;
mod pull;
mod puller;
pub mod reference;
pub mod registry;
mod tail;
pub mod target;
mod unpack;

pub use error::ImageError;
use error::inner;
pub use pull::PullRequest;
pub use puller::{Puller, Settings};
pub use reference::Reference;

#[cfg(test)]
pub(crate) mod tests;
