//! The clock that two processes have in common.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The time of `CLOCK_MONOTONIC`, which [`Instant`] reads as well: the same in every process of the machine.
pub fn monotonic() -> Duration {
    // Fails only for clocks that the kernel doesn't have; this one it has.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// A moment of the past by that clock.
pub fn monotonic_at(moment: Instant) -> Duration {
    monotonic().saturating_sub(moment.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order() {
        let (before, moment, after) = (monotonic(), Instant::now(), monotonic());
        let at = monotonic_at(moment);
        let slack = Duration::from_millis(1);
        assert!(before <= at + slack && at <= after + slack, "{before:?} {at:?} {after:?}");
        assert!(at > Duration::ZERO);
    }
}
