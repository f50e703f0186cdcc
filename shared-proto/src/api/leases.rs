//! Leases protect resources from garbage collection until they are deleted or expire (`containerd.io/gc.expire`).

super::port! {
    /// See the [module](self)'s documentation.
    Leases, RemoteLeases, LeasesServer, MeteredLeases:
    crate::containerd::leases, leases_client::LeasesClient, leases_server::Leases / LeasesServer;
    unary {
        create(CreateRequest) -> CreateResponse;
        delete(DeleteRequest) -> ();
        list(ListRequest) -> ListResponse;
        add_resource(AddResourceRequest) -> ();
        delete_resource(DeleteResourceRequest) -> ();
        list_resources(ListResourcesRequest) -> ListResourcesResponse;
    }
}
