//! The version of the core.

super::port! {
    /// See the [module](self)'s documentation.
    Version, RemoteVersion, VersionServer, MeteredVersion:
    crate::containerd::version, version_client::VersionClient, version_server::Version / VersionServer;
    unary {
        version(()) -> VersionResponse;
    }
}
