//! How much of a core is used: the growth of a counter of processor time between two looks.
//!
//! A sampler looks now and then and keeps its last two samples. Whoever asks brings a reading of his own; the rate is
//! taken from the last sample that is old enough to say something.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// A span below this says more about the clock than about the load.
const SPAN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    usage: u64,
}

/// The samples of every cgroup, by id.
#[derive(Debug, Default)]
pub struct Rates(HashMap<String, (Sample, Option<Sample>)>);

impl Rates {
    pub fn add(&mut self, id: &str, at: Instant, usage: u64) {
        let sample = Sample { at, usage };
        match self.0.get_mut(id) {
            Some(samples) => *samples = (sample, Some(samples.0)),
            None => drop(self.0.insert(id.to_owned(), (sample, None))),
        }
    }

    /// Billionths of a core between the last sample and this reading.
    pub fn rate(&self, id: &str, at: Instant, usage: u64) -> Option<u64> {
        let (last, before) = self.0.get(id)?;
        let old = |sample: &&Sample| at.saturating_duration_since(sample.at) >= SPAN;
        let base = Some(last).filter(old).or_else(|| before.as_ref().filter(old))?;
        let span = at.saturating_duration_since(base.at).as_nanos();
        let grown = u128::from(usage.saturating_sub(base.usage));
        u64::try_from(grown * 1_000_000_000 / span).ok()
    }

    pub fn retain(&mut self, live: &HashSet<&str>) {
        self.0.retain(|id, _| live.contains(id.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_a_span() {
        let mut rates = Rates::default();
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        assert_eq!(rates.rate("c", begin, 1), None);
        rates.add("c", begin, 1_000_000_000);
        assert_eq!(rates.rate("c", after(500), 2_000_000_000), None, "too short");
        assert_eq!(rates.rate("c", after(2000), 2_000_000_000), Some(500_000_000), "half a core");
        rates.add("c", after(4000), 5_000_000_000);
        let since_the_sample_before = rates.rate("c", after(4500), 5_500_000_000);
        assert_eq!(since_the_sample_before, Some(1_000_000_000));
        assert_eq!(rates.rate("c", after(5000), 5_000_000_000), Some(0));
        assert_eq!(rates.rate("c", after(5000), 1), Some(0), "a counter never goes back");
        rates.retain(&HashSet::from(["d"]));
        assert_eq!(rates.rate("c", after(9000), 1), None);
    }
}
