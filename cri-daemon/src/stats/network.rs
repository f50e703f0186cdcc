//! Counters of a pod's network interfaces, from `/proc/PID/net/dev` of its pause process.
//!
//! The file is opened for each look: one that stays open would keep the pod's network namespace alive.

use super::StatsError;

/// Counters of one interface since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// The interfaces of a sandbox, `lo` apart. Blocks, for the kernel's own work only.
pub fn read(id: &str, pid: u32) -> Result<Vec<Interface>, StatsError> {
    let path = format!("/proc/{pid}/net/dev");
    let text = std::fs::read_to_string(&path).map_err(|e| match e.raw_os_error() {
        // A process that ended and waits for its parent has no network any more.
        Some(libc::EINVAL) => StatsError::Gone { id: id.to_owned() },
        Some(_) | None => StatsError::of(id, &path, e),
    })?;
    Ok(parse(&text))
}

/// Two lines of headings, then `NAME: ` and eight numbers for what came in, eight for what went out.
fn parse(text: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        let at = |index: usize| counters.get(index).copied();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_errors: at(2)?,
            tx_bytes: at(8)?,
            tx_errors: at(10)?,
        })
    };
    text.lines().skip(2).filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_whatever_the_spacing() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
             lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
             eth0: 123456      12    3    0    0     0          0         0     7890       9    4    0    0     0       0          0\n\
             net1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        let found = parse(text);
        let eth0 = Interface { name: "eth0".into(), rx_bytes: 123_456, rx_errors: 3, tx_bytes: 7890, tx_errors: 4 };
        assert_eq!(found[0], eth0);
        assert_eq!((found[1].name.as_str(), found[1].rx_bytes, found[1].tx_bytes), ("net1", 5, 6));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        assert!(matches!(read("s", u32::MAX), Err(StatsError::Gone { .. })));
        assert!(read("s", std::process::id()).is_ok());
    }
}
