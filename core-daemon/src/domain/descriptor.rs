//! What an image record points at.

use super::{Digest, Labels};

/// An OCI content descriptor: the type, digest and size of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: i64,
    pub annotations: Labels,
}
