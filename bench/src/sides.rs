//! The sides of a comparison: wirings of ours, and Debian's containerd.
//!
//! All have the same engine, CNI network, images and requests. A bench gives each side a world of its own, one after
//! the other, so that no side's processes run beside another's, and rotates their order from round to round.

use std::path::Path;

use e2e::config::Options;
use e2e::{Wiring, World};

use crate::trio;

pub struct Side {
    pub name: &'static str,
    wiring: Wiring,
    peer: Option<&'static str>,
}

pub const PEER: &str = "containerd";
pub const SIDES: [Side; 3] = [
    Side { name: "merged", wiring: Wiring::Merged, peer: None },
    Side { name: "split", wiring: Wiring::Split, peer: None },
    Side { name: PEER, wiring: Wiring::Split, peer: Some(PEER) },
];

/// The same with the third wiring.
pub const ALL: [Side; 4] = {
    let [merged, split, peer] = SIDES;
    [split, Side { name: "loopback", wiring: Wiring::Loopback, peer: None }, merged, peer]
};

/// The sides of all rounds, by turns: in each round each side once, in an order that rotates. Says on stderr which one
/// is next.
pub fn turns(rounds: usize) -> impl Iterator<Item = usize> {
    (0..rounds).flat_map(move |round| {
        trio::turns(round).into_iter().inspect(move |which| {
            eprintln!("round {} of {rounds}: {}", round + 1, SIDES[*which].name);
        })
    })
}

impl Side {
    /// None: it is not ours.
    pub fn wiring(&self) -> Option<Wiring> {
        self.peer.is_none().then_some(self.wiring)
    }

    /// A world of this side, running.
    pub async fn world(&self, engine: &Path) -> World {
        let options = Options { log_level: "info", version: 2, peer: self.peer, ..Options::new(self.wiring) };
        World::start(self.wiring, Options { engine: Some(engine.to_owned()), ..options }).await
    }
}
