//! Which exits were published lately, so that each is published once.
//!
//! The same exit can be told three times: by the shim's event, by our own watch when that event is lost, and as a
//! guess when the shim dies. Process ids come again, so the memory is short.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long an exit is remembered: much longer than its second teller needs.
const MEMORY: Duration = Duration::from_secs(120);
/// The most exits that are remembered.
const LIMIT: usize = 8192;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    ns: String,
    id: String,
    exec: String,
    pid: u32,
}

#[derive(Default)]
pub(super) struct Exits(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    keys: HashSet<Key>,
    order: VecDeque<(Instant, Key)>,
}

impl Exits {
    /// Whether this exit has not been published yet; from now on it has.
    pub fn first(&self, ns: &str, id: &str, exec: &str, pid: u32) -> bool {
        self.first_at(Instant::now(), Key { ns: ns.into(), id: id.into(), exec: exec.into(), pid })
    }

    fn first_at(&self, now: Instant, key: Key) -> bool {
        let mut seen = self.0.lock().expect("exits lock");
        while seen.order.len() >= LIMIT || seen.order.front().is_some_and(|(at, _)| now - *at > MEMORY) {
            if let Some((_, old)) = seen.order.pop_front() {
                seen.keys.remove(&old);
            }
        }
        let first = seen.keys.insert(key.clone());
        if first {
            seen.order.push_back((now, key));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32) -> Key {
        Key { ns: "ns".into(), id: "c".into(), exec: String::new(), pid }
    }

    #[test]
    fn once_until_forgotten() {
        let exits = Exits::default();
        let start = Instant::now();
        assert!(exits.first_at(start, key(1)) && !exits.first_at(start, key(1)) && exits.first_at(start, key(2)));
        assert!(!exits.first_at(start + MEMORY, key(1)));
        assert!(exits.first_at(start + MEMORY + Duration::from_secs(1), key(1)));
        for pid in 0..2 * LIMIT as u32 {
            exits.first_at(start + MEMORY * 2, key(pid));
        }
        assert!(exits.0.lock().unwrap().keys.len() <= LIMIT);
    }
}
