//! Namespaces. `Get` of an absent one succeeds with no labels: Go clients ask before they have made anything.

super::port! {
    /// See the [module](self)'s documentation.
    Namespaces, RemoteNamespaces, NamespacesServer, MeteredNamespaces:
    crate::containerd::namespaces, namespaces_client::NamespacesClient, namespaces_server::Namespaces / NamespacesServer;
    unary {
        get(GetNamespaceRequest) -> GetNamespaceResponse;
        list(ListNamespacesRequest) -> ListNamespacesResponse;
        create(CreateNamespaceRequest) -> CreateNamespaceResponse;
        update(UpdateNamespaceRequest) -> UpdateNamespaceResponse;
        delete(DeleteNamespaceRequest) -> ();
    }
}
