//! The version of the core.

use async_trait::async_trait;
use shared_proto::api;
use shared_proto::containerd::version::VersionResponse;
use shared_proto::{Context, Result};

/// What clients are told. They compare it with versions of containerd, to find out what they may call; so it says
/// which API is served, that of the last 1.x, and who serves it stands behind the plus, where semantic versions keep
/// what is not compared.
pub const VERSION: &str = concat!("1.7.99+seam.", env!("CARGO_PKG_VERSION"));

/// The commit that was built, if the build said so.
pub const REVISION: &str = match option_env!("SEAM_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The version service.
#[derive(Debug, Clone, Copy, Default)]
pub struct VersionService;

impl VersionService {
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl api::Version for VersionService {
    async fn version(&self, _: &Context, (): ()) -> Result<VersionResponse> {
        Ok(VersionResponse { version: VERSION.into(), revision: REVISION.into() })
    }
}
