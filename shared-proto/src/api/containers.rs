//! Container records. A record is not a process: see [`crate::api::Tasks`].
//!
//! `Create` answers `AlreadyExists` for a taken id, `Get`, `Update` and `Delete` answer `NotFound` for an unknown one.
//! `Update` honours the mask paths `labels`, `labels.KEY`, `spec`, `extensions`, `extensions.KEY`, `image`,
//! `snapshot_key`, `runtime`. The CRI side lists with `ListStream`, which no message limit can break.

super::port! {
    /// See the [module](self)'s documentation.
    Containers, RemoteContainers, ContainersServer, MeteredContainers:
    crate::containerd::containers, containers_client::ContainersClient, containers_server::Containers / ContainersServer;
    unary {
        get(GetContainerRequest) -> GetContainerResponse;
        list(ListContainersRequest) -> ListContainersResponse;
        create(CreateContainerRequest) -> CreateContainerResponse;
        update(UpdateContainerRequest) -> UpdateContainerResponse;
        delete(DeleteContainerRequest) -> ();
    }
    server_stream {
        list_stream(ListContainersRequest) -> ListContainerMessage as ListStreamStream;
    }
}
