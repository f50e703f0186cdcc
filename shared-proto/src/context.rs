//! What travels beside a request: namespace, lease, trace.
//!
//! Over gRPC these are headers (containerd's names); by plain call they are this struct.

use crate::errdefs::{Error, Result};

/// Header that names the namespace of a call.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// Header that names the lease that what a call creates is added to.
pub const LEASE_HEADER: &str = "containerd-lease";
/// W3C trace context header.
pub const TRACE_HEADER: &str = "traceparent";
/// Header that says that somebody watches the call.
pub const WATCHED_HEADER: &str = "seam-watched";

/// The surroundings of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// The namespace, if the caller gave one. Use [`Context::namespace`] where it is mandatory.
    pub namespace: Option<String>,
    /// The lease that protects what this call creates.
    pub lease: Option<String>,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
    /// Whether somebody watches: then messages that are sent for this call are kept.
    pub watched: bool,
}

impl Context {
    /// A call in `namespace`.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    /// The same call under a lease.
    pub fn with_lease(&self, lease: impl Into<String>) -> Self {
        Self { lease: Some(lease.into()), ..self.clone() }
    }

    /// The namespace, or the error that containerd gives for a missing header.
    pub fn namespace(&self) -> Result<&str> {
        self.namespace.as_deref().filter(|n| !n.is_empty()).ok_or_else(|| Error::precondition("namespace is required"))
    }

    /// Reads the headers of a gRPC request. Headers that aren't ASCII count as absent.
    pub fn from_metadata(metadata: &tonic::metadata::MetadataMap) -> Self {
        let get = |key| metadata.get(key).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Self {
            namespace: get(NAMESPACE_HEADER),
            lease: get(LEASE_HEADER),
            traceparent: get(TRACE_HEADER),
            watched: metadata.contains_key(WATCHED_HEADER),
        }
    }

    /// Writes the headers of a gRPC request.
    pub fn write_to(&self, metadata: &mut tonic::metadata::MetadataMap) -> Result<()> {
        for (key, value) in
            [(NAMESPACE_HEADER, &self.namespace), (LEASE_HEADER, &self.lease), (TRACE_HEADER, &self.traceparent)]
        {
            if let Some(value) = value {
                let value = value.parse().map_err(|_| Error::invalid(format!("{key} is not ASCII: {value:?}")))?;
                metadata.insert(key, value);
            }
        }
        if self.watched {
            metadata.insert(WATCHED_HEADER, tonic::metadata::MetadataValue::from_static("1"));
        }
        Ok(())
    }
}
