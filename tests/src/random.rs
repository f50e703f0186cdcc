//! Random numbers that a failing test can be repeated with: `SEAM_SEED` sets the seed, every test prints it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small generator (xorshift64*): good enough to vary the moment of a kill.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded from the environment, or from the clock.
    pub fn new() -> Self {
        let seed = match std::env::var("SEAM_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|e| panic!("SEAM_SEED={text}: {e}")),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_nanos() as u64,
        };
        println!("SEAM_SEED={seed}");
        Self(seed | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    /// A time between two numbers of milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
