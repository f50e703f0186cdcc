//! Messages and services of the Container Runtime Interface.
//!
//! v1alpha2 has no messages of its own here: at CRI 0.20 its wire format is a subset of v1 (a test holds the two
//! descriptors against each other), so a v1 server answers it once the method's path is rewritten.

/// CRI v1, as of CRI 0.36.
pub mod v1 {
    pub use crate::generated::runtime::v1::*;
}

/// The method paths of CRI v1alpha2 (`/runtime.v1alpha2.RuntimeService/Version`, …), sorted.
pub const V1ALPHA2_METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/v1alpha2_methods.rs"));
