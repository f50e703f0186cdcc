//! Percentiles, growth over time, and the confidence interval of a difference.
//!
//! Samples of two wirings are taken in turn, so pairs share the machine's mood: the difference is computed pair by
//! pair. Its interval comes from a bootstrap over the pairs' median, with a fixed seed, so that the same samples give
//! the same interval.

/// The value below which `p` (0 to 1) of the samples lie; the nearest rank. 0 for no samples.
pub fn percentile(samples: &[f64], p: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n => sorted[((p * n as f64).ceil() as usize).clamp(1, n) - 1],
    }
}

/// How much larger the median of the last five samples is than that of the third to the seventh, as a share of it: what
/// comes before has not settled. None where the two would overlap.
pub fn growth(samples: &[f64]) -> Option<f64> {
    let early = samples.get(2..7)?;
    let late = &samples[samples.len() - 5..];
    let settled = percentile(early, 0.5);
    (samples.len() >= 12).then(|| percentile(late, 0.5) / settled - 1.0)
}

/// The median of the pairwise differences, with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Difference {
    /// Whether the interval holds zero: the data does not tell the two apart.
    pub fn is_indistinguishable(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }
}

/// Resamplings of the bootstrap.
const ROUNDS: usize = 2000;

/// `a[i] - b[i]`, summed up. The shorter list decides how many pairs there are.
pub fn difference(a: &[f64], b: &[f64]) -> Difference {
    let pairs: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut medians: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let again: Vec<f64> = pairs.iter().map(|_| pairs[random.below(pairs.len())]).collect();
            percentile(&again, 0.5)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Difference { median: percentile(&pairs, 0.5), low: percentile(&medians, 0.025), high: percentile(&medians, 0.975) }
}

/// xorshift64*: enough for resampling, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&[3.0], 0.99), 3.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn growth_counts_from_the_third_sample() {
        let mut samples = vec![1.0, 5.0, 10.0, 10.0, 10.0, 10.0, 99.0, 10.0, 11.0, 11.0, 11.0];
        assert_eq!(growth(&samples), None);
        samples.push(10.0);
        assert!((growth(&samples).unwrap() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_real_difference_is_seen_through_shared_noise() {
        let mut random = Random(7);
        let mood: Vec<f64> = (0..50).map(|_| random.below(1000) as f64).collect();
        let a: Vec<f64> = mood.iter().map(|m| m + 2.0 + random.below(100) as f64 / 100.0).collect();
        let b: Vec<f64> = mood.iter().map(|m| m + random.below(100) as f64 / 100.0).collect();
        let d = difference(&a, &b);
        assert!((1.5..2.5).contains(&d.median) && !d.is_indistinguishable(), "{d:?}");
        assert!(difference(&b, &b).is_indistinguishable());
    }
}
