//! Our conformance suite: each RPC of CRI and each field of its security and resource messages, looked at by its
//! effect inside a real container.
//!
//! One file a theme. A theme is one script that runs in each wiring, in one world; see [`e2e::cases`].
//! `SEAM_PEER=containerd cargo test -p e2e --test conformance split` runs it against Debian's containerd.

mod container;
mod coverage;
mod devices;
mod mounts;
mod pod;
mod resources;
mod rpcs;
mod security;

use container::container;
use devices::devices;
use mounts::mounts;
use pod::pod;
use resources::resources;
use rpcs::{image_service, not_offered, runtime_service};
use security::security;

e2e::wirings!(container, devices, image_service, mounts, not_offered, pod, resources, runtime_service, security,);
