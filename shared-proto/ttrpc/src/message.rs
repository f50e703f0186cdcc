//! The two messages of the protocol itself.

use std::time::Duration;

use bytes::Bytes;
use shared_proto::containerd::rpc::Status;

/// Metadata key of the namespace that a call belongs to.
pub const NAMESPACE: &str = "containerd-namespace-ttrpc";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// How long the caller will wait; 0 = for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What travels beside a request, as a handler sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// Pairs in the order of the wire; keys are lower case.
    pub metadata: Vec<(String, String)>,
    /// How long the caller waits, if it said so. The server does not enforce it: a handler finishes what it began.
    pub timeout: Option<Duration>,
}

impl Context {
    /// The first value of a metadata key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The namespace of the call, if it has one.
    pub fn namespace(&self) -> Option<&str> {
        self.get(NAMESPACE).filter(|ns| !ns.is_empty())
    }

    pub(crate) fn of(metadata: Vec<KeyValue>, timeout_nano: i64) -> Self {
        Self {
            metadata: metadata.into_iter().map(|pair| (pair.key, pair.value)).collect(),
            timeout: u64::try_from(timeout_nano).ok().filter(|n| *n > 0).map(Duration::from_nanos),
        }
    }
}
