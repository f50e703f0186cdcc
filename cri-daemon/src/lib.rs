//! The kubelet's side: turns CRI calls into calls on the core's ports.
//!
//! The library knows the core only as [`Core`], the bundle of ports, so it is the same whether the core is another
//! process (`split`), this one over gRPC (`loopback`) or this one by plain calls (`merged`). Records live in the core
//! (container extensions); what this process keeps in memory and in its small status files can be rebuilt from there.
//!
//! Where a call goes: `server` maps a gRPC method onto the method of [`Cri`] of the same name, which has a file of its
//! own below [`runtime`] (pods and containers) or `image`.
//!
//! - [`pod`], [`container`]: records, states, stores; what a failed or removed one leaves to clean up.
//! - [`spec`], [`network`], [`logs`], [`host`]: the OCI spec, CNI, container logs, the machine.
//! - [`image`]: the images, and the ImageService's RPCs.
//! - [`instrument`]: where a start's time went.
//! - [`store`], [`names`]: look-up by id prefix; one request under a name at a time.
//! - [`call`]: deadlines and patience for calls on the core.

#![forbid(unsafe_code)]

pub mod call;
pub mod container;
pub mod host;
pub mod image;
pub mod instrument;
pub mod logs;
pub mod names;
pub mod network;
pub mod paths;
pub mod pod;
pub mod runtime;
pub mod spec;
pub mod store;
mod versioned;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use shared_config::Config;
use shared_proto::core::Wiring;
use shared_proto::meter::Meter;
use shared_proto::{Context, Core};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The namespace of everything that CRI owns in the core.
pub const NAMESPACE: &str = "k8s.io";

/// The CRI service, for any server. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Cri(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub core: Core,
    /// The surroundings of every call on the core.
    pub cx: Context,
    pub meter: Meter,
    pub wiring: Wiring,
    pub config: Config,
    pub host: Arc<dyn host::Host>,
    pub network: network::Network,
    pub logs: logs::Logs,
    pub images: image::Images,
    pub sandboxes: pod::Store,
    pub containers: container::Store,
    /// Work that outlives its caller; drained at the end.
    pub work: TaskTracker,
    /// Ends the event loop and everything that waits for the core to come back.
    pub shutdown: CancellationToken,
    /// Whether recovery is done: until then calls are `Unavailable`.
    pub ready: AtomicBool,
}

impl Cri {
    /// A CRI service over these ports, which [`Cri::recover`] makes ready. `meter` is the one behind `core`.
    pub fn new(core: Core, meter: Meter, wiring: Wiring, config: Config, host: Arc<dyn host::Host>) -> Self {
        Self(Arc::new(Inner {
            cx: Context::new(NAMESPACE),
            meter,
            wiring,
            network: network::Network::new(&config.runtime.cni, Path::new(network::CACHE_DIR)),
            logs: logs::Logs::new(),
            images: image::Images::new(core.clone(), &config),
            core,
            config,
            host,
            sandboxes: pod::Store::default(),
            containers: container::Store::default(),
            work: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            ready: AtomicBool::new(false),
        }))
    }
}
