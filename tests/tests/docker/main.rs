//! Docker Engine 20.10 from Debian on our core: `dockerd --containerd=SOCKET`, asked with its own client.
//!
//! - [`life`]: what is done with one container: run, terminals, exec, signals, pause, limits, statistics, events.
//! - [`files`]: images, registries, volumes, copies, commits, prunes.
//! - [`network`]: published ports, services that find each other by name.
//! - [`policies`]: restarts, health, ends for lack of memory.
//! - [`kills`]: dockerd, the core and a shim are killed under running containers.
//! - [`own`]: dockerd starts our core itself, with a configuration that it writes.
//! - [`beside`]: pods in `k8s.io` on the same core at the same time.
//!
//! The core takes the shim that lies beside it, which is ours; [`kills`] is done with Debian's as well. With
//! `SEAM_PEER=containerd` the scripts are proven on Debian's containerd, which can't do all of it: what it lacks is said
//! where it is left out. Where `docker.io` can't be installed, the tests say so and `make test` counts them as skipped.

mod beside;
mod files;
mod kills;
mod life;
mod network;
mod own;
mod policies;

use e2e::config::Options;
use e2e::docker::{Docker, lacks};
use e2e::inventory::Inventory;
use e2e::{Wiring, World};

/// A world with a dockerd, and what was there before any container.
pub struct Node {
    pub docker: Docker,
    before: Inventory,
    // Dropped last.
    pub world: World,
}

impl Node {
    /// `None`, and said so, where there is no Docker.
    pub async fn start(wiring: Wiring) -> Option<Self> {
        Self::start_with(Options::new(wiring), wiring).await
    }

    pub async fn start_with(options: Options, wiring: Wiring) -> Option<Self> {
        if let Some(reason) = lacks() {
            e2e::skip::skip(&reason);
            return None;
        }
        let world = World::start(wiring, options).await;
        let before = world.inventory().await;
        let docker = Docker::start(&world).await;
        Some(Self { docker, before, world })
    }

    /// The shim of a container: its pid and its binary.
    pub fn shim(&self, id: &str) -> (i32, String) {
        let of_it = |(_, line): &(i32, String)| line.contains(&format!("-id {id}"));
        let found: Vec<_> = self.world.processes().into_iter().filter(of_it).collect();
        assert_eq!(found.len(), 1, "one shim for {id}: {found:?}");
        (found[0].0, found[0].1.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Removes all containers and ends dockerd; nothing of them may be left.
    pub async fn end(self) {
        self.docker.end();
        self.world.assert_as_before(&self.before).await;
    }
}
