//! Snapshots: the layered file systems of images and containers.
//!
//! `Prepare` on a missing parent is `NotFound`, `Remove` of one with children `FailedPrecondition`, an unknown
//! snapshotter `InvalidArgument`. The mounts that come back are used verbatim.

super::port! {
    /// See the [module](self)'s documentation.
    Snapshots, RemoteSnapshots, SnapshotsServer, MeteredSnapshots:
    crate::containerd::snapshots, snapshots_client::SnapshotsClient, snapshots_server::Snapshots / SnapshotsServer;
    unary {
        prepare(PrepareSnapshotRequest) -> PrepareSnapshotResponse;
        view(ViewSnapshotRequest) -> ViewSnapshotResponse;
        mounts(MountsRequest) -> MountsResponse;
        commit(CommitSnapshotRequest) -> ();
        remove(RemoveSnapshotRequest) -> ();
        stat(StatSnapshotRequest) -> StatSnapshotResponse;
        update(UpdateSnapshotRequest) -> UpdateSnapshotResponse;
        usage(UsageRequest) -> UsageResponse;
        cleanup(CleanupRequest) -> ();
    }
    server_stream {
        list(ListSnapshotsRequest) -> ListSnapshotsResponse as ListStream;
    }
}
