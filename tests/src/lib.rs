//! The harness of the end-to-end suites: a private world a test, driven over the sockets that real clients use.
//!
//! A [`World`] is a folder with everything in it: the configuration, both daemons' data and sockets, a CNI network
//! with its own bridge and addresses, and a registry on loopback that stands in for `registry.k8s.io` and
//! `docker.io`. Two worlds share nothing, so tests run side by side. Every suite is one script, run in each wiring by
//! [`wirings!`]. What a test leaves behind is found by [`inventory`].
//!
//! - [`slot`]: a number that no other living world has: bridge name, subnet, cgroup; [`leftovers`] of its last owner.
//! - [`world`]: start, stop, kill, switch; [`config`] writes its files; [`daemon`] owns one process.
//! - [`image`], [`fixtures`], [`registry`]: images made at run time, and where they are pulled from.
//! - [`faulty`]: a registry that fails in the ways that registries fail.
//! - [`cri`], [`pod`]: a CRI client, and the requests that a kubelet would send.
//! - [`cases`]: many small containers in one pod, counted, for the conformance suite.
//! - [`kubelet`]: a real kubelet on the world's CRI socket. [`docker`]: a real Docker Engine on the core's.
//! - [`http`]: a page, asked for from the host.
//! - [`recorder`]: the flight recorder in front of a world.
//! - [`streaming`]: SPDY and WebSocket clients for the addresses that Exec answers.
//! - [`ctr`]: Debian's client. [`skip`]: tests that can't be run here. [`logs`]: the CRI log format. [`random`]: numbers that can be repeated.
//!
//! Everything here panics with a message that names the thing: a harness that returns errors hides them.
//!
//! Environment: `SEAM_BIN_DIR` is where the daemons are (default: beside the test's own binary);
//! `SEAM_PEER=containerd` runs the CRI suites against Debian's containerd instead, to test the tests;
//! `SEAM_SHIM` is the shim of all pods: `/usr/bin/containerd-shim-runc-v2` shows that Debian's works under our core, and
//! with `SEAM_PEER` ours under Debian's; `SEAM_KEEP=1` keeps the folders of worlds; `SEAM_KUBELET` is a kubelet's binary;
//! `SEAM_SCRIPT` is the one script that the suite `ctr` compares.

#![forbid(unsafe_code)]

pub mod cases;
pub mod config;
pub mod cri;
pub mod ctr;
pub mod daemon;
pub mod docker;
pub mod faulty;
pub mod fixtures;
pub mod http;
pub mod image;
pub mod inventory;
pub mod kubectl;
pub mod kubelet;
pub mod leftovers;
pub mod logs;
pub mod pod;
pub mod random;
pub mod recorder;
pub mod registry;
pub mod skip;
pub mod slot;
pub mod streaming;
pub mod wait;
pub mod world;

pub use shared_proto::core::Wiring;
pub use wait::eventually;
pub use world::{World, faulty_world, world};

/// Makes one test a wiring out of `async fn script(wiring: Wiring)`.
///
/// ```ignore
/// e2e::wirings!(a_pod_lives, exec_answers);
/// ```
#[macro_export]
macro_rules! wirings {
    ($($script:ident),+ $(,)?) => {
        mod split {
            $( #[tokio::test(flavor = "multi_thread")]
            async fn $script() { super::$script($crate::Wiring::Split).await } )+
        }
        mod loopback {
            $( #[tokio::test(flavor = "multi_thread")]
            async fn $script() { super::$script($crate::Wiring::Loopback).await } )+
        }
        mod merged {
            $( #[tokio::test(flavor = "multi_thread")]
            async fn $script() { super::$script($crate::Wiring::Merged).await } )+
        }
    };
}
