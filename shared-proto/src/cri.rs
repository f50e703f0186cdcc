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

/// Byte fields in JSON as Go writes them: standard base64.
#[cfg(feature = "grpc")]
pub(crate) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        // Go writes null for no bytes.
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}
