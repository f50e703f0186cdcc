//! When each call is made: no sooner than in the recording, and never before what had been answered by then.
//!
//! Two conditions make a call go out: its offset has come (divided by the speed), and every call that had been answered
//! when it was sent in the recording has been answered again. So whatever followed from something follows from it again
//! (a container is created in a pod that is there, a list is asked for after the stop that it shows), and what went on
//! side by side goes on side by side. An endpoint that is slower than the recording stretches it: how late calls were
//! sent is a result.
//!
//! A stream that somebody cut (the watch of events) is waited for by nobody; it is cut again when all else is done.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::recording::Recorded;
use super::session::{Outcome, Session};

/// Which calls have been answered again, in the order of their ends in the recording.
struct Progress {
    /// When the calls ended that are waited for, sorted.
    ends: Vec<u64>,
    /// The place of each call in `ends`.
    place: Vec<Option<usize>>,
    answered: Mutex<Vec<bool>>,
    /// How many from the beginning on have all been answered.
    whole: watch::Sender<usize>,
}

impl Progress {
    fn new(calls: &[Recorded]) -> Self {
        let mut by_end: Vec<usize> = (0..calls.len()).filter(|&at| !calls[at].is_watch()).collect();
        by_end.sort_by_key(|&at| calls[at].end_ns());
        let mut place = vec![None; calls.len()];
        for (position, &at) in by_end.iter().enumerate() {
            place[at] = Some(position);
        }
        let ends = by_end.iter().map(|&at| calls[at].end_ns()).collect();
        Self { ends, place, answered: Mutex::new(vec![false; by_end.len()]), whole: watch::Sender::new(0) }
    }

    /// How many calls had been answered when this one was sent.
    fn before(&self, call: &Recorded) -> usize {
        // Not at the same nanosecond: such a one may not have been sent here yet.
        self.ends.partition_point(|&end| end < call.call.start_ns)
    }

    fn is_answered(&self, at: usize) {
        let Some(place) = self.place[at] else { return };
        let mut answered = self.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        answered[place] = true;
        let mut whole = *self.whole.borrow();
        while answered.get(whole) == Some(&true) {
            whole += 1;
        }
        self.whole.send_replace(whole);
    }

    async fn wait_for(&self, calls: usize) {
        // The sender is here: it can't be gone.
        let _ = self.whole.subscribe().wait_for(|&whole| whole >= calls).await;
    }
}

/// Makes the calls of a recording again. `speed` is how many times as fast; none is as fast as their order allows.
pub async fn play(session: Arc<Session>, calls: Arc<Vec<Recorded>>, speed: Option<f64>) -> Vec<Outcome> {
    let (progress, ended) = (Arc::new(Progress::new(&calls)), CancellationToken::new());
    let (mut running, mut watches) = (JoinSet::new(), JoinSet::new());
    let first = calls.first().map_or(0, |recorded| recorded.call.start_ns);
    let started = Instant::now();
    for at in 0..calls.len() {
        let recorded = &calls[at];
        let offset = Duration::from_nanos(recorded.call.start_ns - first);
        let due = speed.map(|speed| started + offset.div_f64(speed));
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
        progress.wait_for(progress.before(recorded)).await;
        let late = due.map_or(Duration::ZERO, |due| due.elapsed());
        let (session, calls, progress, ended) = (session.clone(), calls.clone(), progress.clone(), ended.clone());
        let tasks = if recorded.is_watch() { &mut watches } else { &mut running };
        tasks.spawn(async move {
            let outcome = session.perform(&calls[at], &ended).await;
            progress.is_answered(at);
            Outcome { late, ..outcome }
        });
    }
    let mut outcomes = running.join_all().await;
    if !watches.is_empty() {
        // The last events are on their way.
        tokio::time::sleep(session.settle.min(Duration::from_secs(1))).await;
    }
    ended.cancel();
    outcomes.extend(watches.join_all().await);
    outcomes.sort_by_key(|outcome| outcome.seq);
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::format::{Call, Cut};

    fn call(seq: u64, start_ns: u64, end_ns: u64) -> Recorded {
        let method = "/runtime.v1.RuntimeService/Version".into();
        Recorded {
            call: Call { seq, method, start_ns, took_ns: end_ns - start_ns, ..Default::default() },
            ..Default::default()
        }
    }

    #[test]
    fn a_call_waits_for_what_had_been_answered() {
        let mut watch = call(1, 0, 90);
        watch.call.method = "/runtime.v1.RuntimeService/GetContainerEvents".into();
        watch.call.cut = Some(Cut::Client);
        let calls = vec![watch, call(2, 10, 50), call(3, 20, 30), call(4, 40, 45), call(5, 60, 60), call(6, 60, 70)];
        let progress = Progress::new(&calls);
        let before: Vec<usize> = calls.iter().map(|recorded| progress.before(recorded)).collect();
        assert_eq!(before, [0, 0, 0, 1, 3, 3]);
        let whole = |at: usize| {
            progress.is_answered(at);
            *progress.whole.borrow()
        };
        // In the order of ends: 3, 4, 2, 5, 6.
        assert_eq!([whole(0), whole(3), whole(1), whole(2)], [0, 0, 0, 3]);
        assert_eq!([whole(5), whole(4)], [3, 5]);
    }
}
