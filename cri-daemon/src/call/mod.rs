//! Deadlines and patience for calls on the core.
//!
//! Every call has a deadline: a core that hangs must not hang the kubelet's calls with it. In the wiring `split` the
//! core may be restarted under us, so a call that can be made twice is made again while the core is away, for a few
//! seconds. A call that can't (starting a process) fails at once, and what it may have done is cleaned from the record.
//!
//! [`tasks`] and [`records`] are the calls that more than one RPC makes.

pub mod records;
pub mod tasks;

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use shared_proto::{Error, Result};
use tokio::time::Instant;

use crate::instrument;

/// For calls that read or write records.
pub const RECORD: Duration = Duration::from_secs(10);
/// For calls behind which the core runs other programs: shims, runc, snapshotters.
pub const PROCESS: Duration = Duration::from_secs(120);
/// How long a call that can be repeated is repeated while the core is away.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// For everything that cleans up after a failure. Never the caller's own deadline.
pub const CLEANUP: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Gives a call `limit`; after that it is `DeadlineExceeded`, with the name of what was being done.
pub async fn within<T>(doing: impl Display, limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    // Whoever goes through it step by step takes the time that it takes.
    let limit = if instrument::stepped() { Duration::MAX } else { limit };
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|e| e.context(doing)),
        Err(_) => Err(Error::deadline(format!("{doing}: no answer after {limit:?}"))),
    }
}

/// The same for a call that can be repeated: while the core is away it is, for as long as `patience`.
pub async fn patient<T, F>(
    doing: impl Display,
    limit: Duration,
    patience: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let give_up = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        match within(&doing, limit, call()).await {
            Err(e) if e.is_transient() && Instant::now() + pause < give_up => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::Code;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_core_that_is_away_is_asked_again() {
        let asked = Cell::new(0);
        let answer = patient("ask", RECORD, PATIENCE, || async {
            asked.set(asked.get() + 1);
            if asked.get() < 4 { Err(Error::unavailable("away")) } else { Ok(asked.get()) }
        });
        assert_eq!(answer.await.unwrap(), 4);
    }

    #[tokio::test]
    async fn patience_ends_and_other_errors_are_final() {
        let patience = Duration::from_millis(200);
        let away = patient::<(), _>("ask", RECORD, patience, || async { Err(Error::unavailable("away")) });
        let started = Instant::now();
        assert_eq!(away.await.unwrap_err().code, Code::Unavailable);
        assert!(started.elapsed() > patience / 4);

        let asked = Cell::new(0);
        let wrong = patient::<(), _>("ask", RECORD, PATIENCE, || async {
            asked.set(asked.get() + 1);
            Err(Error::not_found("c"))
        });
        let e = wrong.await.unwrap_err();
        assert_eq!((e.message.as_str(), asked.get()), ("ask: c", 1));
    }

    #[tokio::test]
    async fn silence_is_an_error_with_a_name() {
        let limit = Duration::from_millis(10);
        let e = within::<()>("delete \"x\"", limit, std::future::pending()).await.unwrap_err();
        assert_eq!((e.code, e.message.as_str()), (Code::DeadlineExceeded, "delete \"x\": no answer after 10ms"));
    }
}
