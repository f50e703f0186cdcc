//! Sandbox records (containerd 1.7 and later). The CRI side keeps its sandboxes as container records instead.

super::port! {
    /// See the [module](self)'s documentation.
    Sandboxes, RemoteSandboxes, SandboxesServer, MeteredSandboxes:
    crate::containerd::sandbox, store_client::StoreClient, store_server::Store / StoreServer;
    unary {
        create(StoreCreateRequest) -> StoreCreateResponse;
        update(StoreUpdateRequest) -> StoreUpdateResponse;
        delete(StoreDeleteRequest) -> StoreDeleteResponse;
        list(StoreListRequest) -> StoreListResponse;
        get(StoreGetRequest) -> StoreGetResponse;
    }
}
