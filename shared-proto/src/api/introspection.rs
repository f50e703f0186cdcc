//! Which plugins the core has, and who the core is. The CRI side reads the snapshotter's root from here.

super::port! {
    /// See the [module](self)'s documentation.
    Introspection, RemoteIntrospection, IntrospectionServer, MeteredIntrospection:
    crate::containerd::introspection, introspection_client::IntrospectionClient, introspection_server::Introspection / IntrospectionServer;
    unary {
        plugins(PluginsRequest) -> PluginsResponse;
        server(()) -> ServerResponse;
        plugin_info(PluginInfoRequest) -> PluginInfoResponse;
    }
}
