//! Bytes that the core carries for others and never reads: specs, options, extensions.

/// A type URL and bytes, kept and given back byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    pub type_url: String,
    pub value: Vec<u8>,
}
