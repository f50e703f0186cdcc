//! What this process is allowed to do: its effective capabilities.

use std::fs;
use std::io;

/// A set of capabilities as a bit mask, bit = the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapSet(u64);

/// May raise resource limits and lower an OOM score below the own one.
pub const CAP_SYS_RESOURCE: u32 = 24;

impl CapSet {
    /// The effective set of the calling thread.
    pub fn effective() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/thread-self/status")?;
        Self::parse(&status).ok_or_else(|| io::Error::other("/proc/thread-self/status has no CapEff line"))
    }

    fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    pub fn contains(self, number: u32) -> bool {
        number < u64::BITS && self.0 & (1 << number) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mask() {
        let set =
            CapSet::parse("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n").unwrap();
        assert!(set.contains(21) && set.contains(40));
        assert!(!set.contains(CAP_SYS_RESOURCE) && !set.contains(41) && !set.contains(64));
        assert!(CapSet::parse("Name:\tx\n").is_none());
        CapSet::effective().unwrap();
    }
}
