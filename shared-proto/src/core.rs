//! The bundle of ports: all that the CRI side knows of the core.

use std::sync::Arc;

use tonic::transport::Channel;

use crate::api::*;
use crate::meter::Meter;

/// How the CRI side reaches the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// gRPC over a Unix socket, between two processes.
    Split,
    /// gRPC over an in-memory pipe, inside one process.
    Loopback,
    /// Plain calls, inside one process.
    Merged,
}

impl Wiring {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Wiring::Split => "split",
            Wiring::Loopback => "loopback",
            Wiring::Merged => "merged",
        }
    }
}

/// One implementor of every port. Cheap to clone.
#[derive(Clone)]
pub struct Core {
    pub containers: Arc<dyn Containers>,
    pub content: Arc<dyn Content>,
    pub diff: Arc<dyn Diff>,
    pub events: Arc<dyn Events>,
    pub images: Arc<dyn Images>,
    pub introspection: Arc<dyn Introspection>,
    pub leases: Arc<dyn Leases>,
    pub namespaces: Arc<dyn Namespaces>,
    pub sandboxes: Arc<dyn Sandboxes>,
    pub snapshots: Arc<dyn Snapshots>,
    pub streaming: Arc<dyn Streaming>,
    pub tasks: Arc<dyn Tasks>,
    pub transfer: Arc<dyn Transfer>,
    pub version: Arc<dyn Version>,
}

impl Core {
    /// The ports over a gRPC channel.
    pub fn remote(channel: Channel) -> Self {
        Self {
            containers: Arc::new(RemoteContainers::new(channel.clone())),
            content: Arc::new(RemoteContent::new(channel.clone())),
            diff: Arc::new(RemoteDiff::new(channel.clone())),
            events: Arc::new(RemoteEvents::new(channel.clone())),
            images: Arc::new(RemoteImages::new(channel.clone())),
            introspection: Arc::new(RemoteIntrospection::new(channel.clone())),
            leases: Arc::new(RemoteLeases::new(channel.clone())),
            namespaces: Arc::new(RemoteNamespaces::new(channel.clone())),
            sandboxes: Arc::new(RemoteSandboxes::new(channel.clone())),
            snapshots: Arc::new(RemoteSnapshots::new(channel.clone())),
            streaming: Arc::new(RemoteStreaming::new(channel.clone())),
            tasks: Arc::new(RemoteTasks::new(channel.clone())),
            transfer: Arc::new(RemoteTransfer::new(channel.clone())),
            version: Arc::new(RemoteVersion::new(channel)),
        }
    }

    /// The same ports, each behind counters and spans, at the side that the meter is for. `wire` says that messages are encoded on the way.
    pub fn metered(self, meter: &Meter, wire: bool) -> Self {
        Self {
            containers: MeteredContainers::wrap(self.containers, meter, wire),
            content: MeteredContent::wrap(self.content, meter, wire),
            diff: MeteredDiff::wrap(self.diff, meter, wire),
            events: MeteredEvents::wrap(self.events, meter, wire),
            images: MeteredImages::wrap(self.images, meter, wire),
            introspection: MeteredIntrospection::wrap(self.introspection, meter, wire),
            leases: MeteredLeases::wrap(self.leases, meter, wire),
            namespaces: MeteredNamespaces::wrap(self.namespaces, meter, wire),
            sandboxes: MeteredSandboxes::wrap(self.sandboxes, meter, wire),
            snapshots: MeteredSnapshots::wrap(self.snapshots, meter, wire),
            streaming: MeteredStreaming::wrap(self.streaming, meter, wire),
            tasks: MeteredTasks::wrap(self.tasks, meter, wire),
            transfer: MeteredTransfer::wrap(self.transfer, meter, wire),
            version: MeteredVersion::wrap(self.version, meter, wire),
        }
    }

    /// The ports as gRPC services, for a server's router.
    pub fn routes(&self) -> tonic::service::Routes {
        let mut routes = tonic::service::RoutesBuilder::default();
        routes
            .add_service(ContainersServer::service(self.containers.clone()))
            .add_service(ContentServer::service(self.content.clone()))
            .add_service(DiffServer::service(self.diff.clone()))
            .add_service(EventsServer::service(self.events.clone()))
            .add_service(ImagesServer::service(self.images.clone()))
            .add_service(IntrospectionServer::service(self.introspection.clone()))
            .add_service(LeasesServer::service(self.leases.clone()))
            .add_service(NamespacesServer::service(self.namespaces.clone()))
            .add_service(SandboxesServer::service(self.sandboxes.clone()))
            .add_service(SnapshotsServer::service(self.snapshots.clone()))
            .add_service(StreamingServer::service(self.streaming.clone()))
            .add_service(TasksServer::service(self.tasks.clone()))
            .add_service(TransferServer::service(self.transfer.clone()))
            .add_service(VersionServer::service(self.version.clone()));
        routes.routes()
    }
}
