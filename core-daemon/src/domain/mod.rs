//! Pure types of the core: no I/O, no wire formats.
//!
//! Names are validated once, where they enter ([`names`], [`digest`], [`labels`]); past that the types are the proof.

pub mod descriptor;
pub mod digest;
pub mod filter;
pub mod labels;
pub mod names;
pub mod payload;

pub use descriptor::Descriptor;
pub use digest::Digest;
pub use filter::Filters;
pub use labels::Labels;
pub use names::{Id, LeaseId, Namespace};
pub use payload::Payload;

/// Input that can't be accepted, with the reason. Always the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl From<Invalid> for shared_proto::Error {
    fn from(e: Invalid) -> Self {
        shared_proto::Error::invalid(e.0)
    }
}

/// On whose behalf something is done: the namespace, and the lease that what is made is added to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub ns: Namespace,
    pub lease: Option<LeaseId>,
}

impl Scope {
    /// Validates what came beside a request. A missing namespace is `FailedPrecondition`, a malformed one
    /// `InvalidArgument`.
    pub fn of(cx: &shared_proto::Context) -> shared_proto::Result<Self> {
        let ns = Namespace::parse(cx.namespace()?)?;
        let lease = cx.lease.as_deref().filter(|l| !l.is_empty()).map(LeaseId::parse).transpose()?;
        Ok(Self { ns, lease })
    }
}
