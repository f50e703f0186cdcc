//! Layer archives to mounts, and back.
//!
//! `Apply` answers the descriptor of the *uncompressed* archive, which clients hold against the image's diff id.

super::port! {
    /// See the [module](self)'s documentation.
    Diff, RemoteDiff, DiffServer, MeteredDiff:
    crate::containerd::diff, diff_client::DiffClient, diff_server::Diff / DiffServer;
    unary {
        apply(ApplyRequest) -> ApplyResponse;
        diff(DiffRequest) -> DiffResponse;
    }
}
