//! The three wirings, each in a world of its own, all up at the same time.
//!
//! Whatever is done, is done in each by turns: the machine's mood hits all three alike.

use anyhow::Context as _;
use e2e::config::Options;
use e2e::{Wiring, World};
use shared_proto::cri::v1::StatusRequest;

pub const WIRINGS: [Wiring; 3] = [Wiring::Split, Wiring::Loopback, Wiring::Merged];

/// The log level of the daemons in every measurement.
pub const LOG_LEVEL: &str = "info";

/// The usual options of a measurement.
pub fn options(wiring: Wiring) -> Options {
    Options { log_level: LOG_LEVEL, ..Options::new(wiring) }
}

/// The worlds, with the usual images, in the order of [`WIRINGS`].
pub async fn start(options: impl Fn(Wiring) -> Options) -> Vec<World> {
    start_with(options, |_| {}).await
}

/// The same; what else a world needs is done before its daemons start.
pub async fn start_with(options: impl Fn(Wiring) -> Options, prepare: impl Fn(&mut World)) -> Vec<World> {
    let mut worlds = Vec::new();
    for wiring in WIRINGS {
        let mut world = World::prepare(wiring, options(wiring));
        prepare(&mut world);
        world.run().await;
        world.pull(e2e::fixtures::PAUSE).await;
        world.pull(e2e::fixtures::BUSYBOX).await;
        worlds.push(world);
    }
    worlds
}

/// Whose turn it is in a round: each side is first as often as the others.
pub fn turns(round: usize) -> [usize; 3] {
    [0, 1, 2].map(|turn| (round + turn) % 3)
}

/// What crossed the seam: calls, bytes, milliseconds inside calls.
#[derive(Default, Clone, Copy)]
pub struct Seam {
    pub calls: f64,
    pub bytes: f64,
    pub millis: f64,
}

/// The seam's counters, as the verbose status reports them, summed over all methods.
pub async fn seam(world: &World) -> anyhow::Result<Seam> {
    let info = world.cri().status(StatusRequest { verbose: true }).await.info;
    let text = info.get("seam").context("the verbose status has no entry \"seam\"")?;
    let value: serde_json::Value = serde_json::from_str(text)?;
    let samples = value["samples"].as_array().context("no samples in \"seam\"")?;
    let total = |key: &str| samples.iter().filter_map(|s| s[key].as_f64()).sum::<f64>();
    Ok(Seam { calls: total("calls"), bytes: total("bytes_out") + total("bytes_in"), millis: total("us") / 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_in_turn() {
        assert_eq!([0, 1, 2, 3].map(turns), [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
