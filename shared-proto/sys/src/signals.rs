//! The signals that end a daemon, and how much time is left for its work then.
//!
//! The first SIGTERM or SIGINT asks it to end: what was begun may go on, each part within its limit. A second one says
//! that there is no time for that: every part that still goes on is cut.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from when it is made, so that no signal is missed.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hurried: bool,
}

/// Why work was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It took longer than its limit.
    Late(Duration),
    /// A second signal came.
    Hurried,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cut::Late(limit) => write!(f, "not done within {limit:?}"),
            Cut::Hurried => f.write_str("a second signal came"),
        }
    }
}

impl Signals {
    pub fn listen() -> std::io::Result<Self> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { term, int, hurried: false })
    }

    /// Waits for a signal, and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }

    /// To be used after the first signal: lets work go on until its limit or another signal.
    pub async fn let_finish<T>(&mut self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Cut> {
        let limit = if self.hurried { Duration::ZERO } else { limit };
        let work = tokio::time::timeout(limit, work);
        tokio::select! {
            // What is done counts as done, whatever else has happened.
            biased;
            done = work => done.map_err(|_| if self.hurried { Cut::Hurried } else { Cut::Late(limit) }),
            signal = self.next() => {
                self.hurried = true;
                tracing::warn!(signal, "hurrying: what is not done yet is cut");
                Err(Cut::Hurried)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because signals come to the whole process.
    #[tokio::test]
    async fn a_second_signal_hurries() {
        let raise = || nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        let mut signals = Signals::listen().unwrap();
        raise();
        assert_eq!(signals.next().await, "SIGTERM");
        let limit = Duration::from_millis(20);
        assert_eq!(signals.let_finish(limit, async { 5 }).await, Ok(5));
        assert_eq!(signals.let_finish(limit, std::future::pending::<()>()).await, Err(Cut::Late(limit)));
        let work = async {
            raise();
            std::future::pending::<()>().await;
        };
        assert_eq!(signals.let_finish(Duration::from_secs(60), work).await, Err(Cut::Hurried));
        let began = std::time::Instant::now();
        assert_eq!(signals.let_finish(Duration::from_secs(60), std::future::pending::<()>()).await, Err(Cut::Hurried));
        assert_eq!(signals.let_finish(Duration::from_secs(60), async { 6 }).await, Ok(6), "what is done is done");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
