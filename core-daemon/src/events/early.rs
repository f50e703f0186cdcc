//! What the clients of an earlier core have missed, for those that come back in the first moments of this one.
//!
//! Docker Engine learns that a container runs, or has ended, from one event and asks nobody afterwards; its connection
//! comes back seconds after the core has. The shims' connections come back sooner, and what they tell must wait for it.
//! So ends are kept, and starts of what still runs: the answer to a client's `Start` may have gone with the old core.
//! Whoever subscribes twice in this time hears the same twice, and both are still true then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost_types::Any;
use shared_proto::any;
use shared_proto::containerd::events::{TaskExit, TaskStart};

use super::{Event, QUEUE};

/// How long after its start a core still waits for clients of the one before. gRPC clients in Go try again after three
/// seconds at most, plus what a busy machine adds.
const WINDOW: Duration = Duration::from_secs(30);
/// The most events that are kept.
const LIMIT: usize = QUEUE / 2;
/// What is kept.
const TOPICS: &[&str] = &["/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/delete"];

/// The kept events. The default keeps nothing.
#[derive(Default)]
pub(super) struct Early {
    until: Option<Instant>,
    kept: VecDeque<Kept>,
}

struct Kept {
    event: Arc<Event>,
    run: Option<Run>,
}

/// A task's init process that has started, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    id: String,
    pid: u32,
    ended: bool,
}

impl Run {
    fn of(event: &Event) -> Option<Self> {
        let any = Any { type_url: event.payload.type_url.clone(), value: event.payload.value.clone() };
        if let Ok(start) = any::unpack::<TaskStart>(&any) {
            return Some(Self { id: start.container_id, pid: start.pid, ended: false });
        }
        let exit = any::unpack::<TaskExit>(&any).ok().filter(|exit| exit.id == exit.container_id)?;
        Some(Self { id: exit.container_id, pid: exit.pid, ended: true })
    }
}

impl Early {
    /// Keeps what is published in the first moments after `start`.
    pub fn from(start: Instant) -> Self {
        Self { until: Some(start + WINDOW), kept: VecDeque::new() }
    }

    /// Takes note of an event; beyond the limit the oldest goes.
    pub fn keep(&mut self, event: &Arc<Event>, now: Instant) {
        if self.is_over(now) || !TOPICS.contains(&event.topic.as_str()) {
            return;
        }
        let run = Run::of(event);
        if let Some(run) = &run {
            let same = |kept: &Kept, ended| {
                kept.event.ns == event.ns && kept.run.as_ref() == Some(&Run { ended, ..run.clone() })
            };
            if run.ended {
                self.kept.retain(|kept| !same(kept, false));
            } else if self.kept.iter().any(|kept| same(kept, true) || same(kept, false)) {
                return;
            }
        }
        if self.kept.len() == LIMIT {
            tracing::warn!(
                limit = LIMIT,
                "so much happened at once that clients that come back will miss the oldest of it"
            );
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { event: event.clone(), run });
    }

    /// What a subscriber that comes now has missed, oldest first.
    pub fn kept(&mut self, now: Instant) -> impl Iterator<Item = &Arc<Event>> {
        self.is_over(now);
        self.kept.iter().map(|kept| &kept.event)
    }

    /// Whether the first moments are over; then nothing is kept any more.
    fn is_over(&mut self, now: Instant) -> bool {
        let over = self.until.is_none_or(|until| now >= until);
        if over {
            *self = Self::default();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::domain::Payload;

    fn event(topic: &str, any: Any) -> Arc<Event> {
        let payload = Payload { type_url: any.type_url, value: any.value };
        Arc::new(Event { at: SystemTime::now(), ns: "moby".into(), topic: topic.into(), payload })
    }

    fn started(pid: u32) -> Arc<Event> {
        event("/tasks/start", any::pack(&TaskStart { container_id: "c".into(), pid }))
    }

    fn ended(process: &str, pid: u32) -> Arc<Event> {
        let exit = TaskExit { container_id: "c".into(), id: process.into(), pid, ..Default::default() };
        event("/tasks/exit", any::pack(&exit))
    }

    fn other(topic: &str) -> Arc<Event> {
        event(topic, Any::default())
    }

    #[test]
    fn events_are_kept_for_a_while() {
        let start = Instant::now();
        let mut early = Early::from(start);
        for event in [other("/tasks/oom"), ended("c", 7), other("/images/create"), other("/tasks/paused")] {
            early.keep(&event, start);
        }
        for _ in 0..2 {
            let topics: Vec<_> = early.kept(start).map(|event| event.topic.clone()).collect();
            assert_eq!(topics, ["/tasks/oom", "/tasks/exit"]);
        }
        assert_eq!(early.kept(start + WINDOW).count(), 0);
        early.keep(&ended("c", 8), start + WINDOW);
        assert_eq!(early.kept(start).count(), 0);
        let mut none = Early::default();
        none.keep(&ended("c", 7), start);
        assert_eq!(none.kept(start).count(), 0);
    }

    #[test]
    fn a_start_is_kept_while_it_is_true() {
        let start = Instant::now();
        let mut early = Early::from(start);
        for event in [started(7), started(7), ended("exec", 7), started(8)] {
            early.keep(&event, start);
        }
        let pids = |early: &Early| -> Vec<_> {
            early.kept.iter().map(|kept| kept.run.as_ref().map(|run| (run.pid, run.ended))).collect()
        };
        assert_eq!(pids(&early), [Some((7, false)), None, Some((8, false))]);
        early.keep(&ended("c", 7), start);
        // Found out late.
        early.keep(&started(7), start);
        assert_eq!(pids(&early), [None, Some((8, false)), Some((7, true))]);
    }

    #[test]
    fn not_more_is_kept_than_a_subscriber_can_take() {
        let start = Instant::now();
        let mut early = Early::from(start);
        for pid in 0..QUEUE as u32 {
            early.keep(&ended("c", pid), start);
        }
        assert_eq!(early.kept(start).count(), LIMIT);
    }
}
