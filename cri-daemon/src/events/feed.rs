//! The log of what happened to pods and containers, for GetContainerEvents.
//!
//! There is one log, and its entries are numbered. Every subscriber has a position of its own in it: a slow one holds
//! nothing up and costs nothing. The log is bounded in time and in bytes; a subscriber whose next entry is gone is told
//! so (`ResourceExhausted`) instead of being shown a history with a hole. A new one begins with the oldest entry, so
//! whoever comes back within [`AGE`] misses nothing, and hears some of it twice.
//!
//! A change of a state and its entry are made under one lock ([`Feed::record`]). So entries are in the order of the
//! changes, a container's end never comes before its start, and each entry shows the states of its own time. Only what
//! happens during recovery is shown later, when all pods and containers are known ([`Feed::open`]).
//!
//! Limits: the log is in memory, and that of a daemon that has just begun is empty; recovery tells the ends that it
//! finds. A client can't say what it has heard already, so one that comes back after more than [`BYTES`] of events is
//! not told that the oldest are gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use prost::Message as _;
use shared_proto::api::Items;
use shared_proto::cri::v1::{ContainerEventResponse, ContainerEventType, PodSandboxStatus};
use shared_proto::{Code, Error, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long an entry is kept.
pub(super) const AGE: Duration = Duration::from_secs(5 * 60);
/// How many bytes all entries may have.
const BYTES: usize = 16 << 20;

/// See the [module](self).
pub struct Feed {
    age: Duration,
    bytes: usize,
    log: Mutex<Log>,
    /// Changes with each entry.
    news: watch::Sender<()>,
    closed: CancellationToken,
}

/// What happened to whom; an event is this with everybody's status.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// The container, or the sandbox itself.
    pub id: String,
    pub sandbox: String,
    pub kind: ContainerEventType,
    /// The sandbox's status, when it is not among the others any more.
    pub status: Option<PodSandboxStatus>,
}

struct Log {
    /// What is to be shown when everything is known; `None`: it is.
    held: Option<Vec<News>>,
    /// The number of the oldest entry.
    first: u64,
    entries: VecDeque<Entry>,
    /// Of all entries.
    bytes: usize,
}

struct Entry {
    at: Instant,
    size: usize,
    event: Arc<ContainerEventResponse>,
}

impl Default for Feed {
    fn default() -> Self {
        Self::bounded(AGE, BYTES)
    }
}

impl Feed {
    fn bounded(age: Duration, bytes: usize) -> Self {
        let log = Log { held: Some(Vec::new()), first: 0, entries: VecDeque::new(), bytes: 0 };
        let (log, news) = (Mutex::new(log), watch::Sender::new(()));
        Self { age, bytes, log, news, closed: CancellationToken::new() }
    }

    /// Lets something happen and notes the news that it answers, under one lock. `show` makes an event of each. Neither
    /// may wait, or record in turn.
    pub fn record(&self, happen: impl FnOnce() -> Vec<News>, show: impl Fn(News) -> ContainerEventResponse) {
        let mut log = self.log();
        let news = happen();
        match &mut log.held {
            Some(held) => held.extend(news),
            None => self.add(log, news, show),
        }
    }

    /// Everything is known now: shows what happened until here, and from here on what happens.
    pub fn open(&self, show: impl Fn(News) -> ContainerEventResponse) {
        let mut log = self.log();
        if let Some(held) = log.held.take() {
            self.add(log, held, show);
        }
    }

    fn add(&self, mut log: MutexGuard<'_, Log>, news: Vec<News>, show: impl Fn(News) -> ContainerEventResponse) {
        for event in news.into_iter().map(show) {
            let size = event.encoded_len();
            log.bytes += size;
            log.entries.push_back(Entry { at: Instant::now(), size, event: Arc::new(event) });
        }
        log.cut(self.age, self.bytes);
        drop(log);
        self.news.send_replace(());
    }

    /// Everything that is kept, and then everything that happens, until [`Feed::close`].
    pub fn subscribe(self: &Arc<Self>) -> Items<ContainerEventResponse> {
        let position = {
            let mut log = self.log();
            log.cut(self.age, self.bytes);
            log.first
        };
        let reader = (self.clone(), self.news.subscribe(), position);
        futures::stream::unfold(Some(reader), |reader| async move {
            let (feed, mut news, mut position) = reader?;
            loop {
                if feed.closed.is_cancelled() {
                    let problem = "the daemon stops; subscribe again when it is back";
                    return Some((Err(Error::unavailable(problem)), None));
                }
                match feed.at(position) {
                    Err(e) => return Some((Err(e), None)),
                    Ok(Some(event)) => {
                        position += 1;
                        return Some((Ok(event), Some((feed, news, position))));
                    }
                    // An entry that came since then has changed `news`, too. Its sender does not end before us.
                    Ok(None) => {
                        let _ = feed.closed.run_until_cancelled(news.changed()).await;
                    }
                }
            }
        })
        .boxed()
    }

    /// Ends all subscriptions: the server stops, and they never end by themselves.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// The entry with this number; `None`: it has not happened yet.
    fn at(&self, number: u64) -> Result<Option<ContainerEventResponse>> {
        let found = {
            let log = self.log();
            match number.checked_sub(log.first) {
                Some(index) => {
                    let index = usize::try_from(index).ok();
                    Ok(index.and_then(|index| log.entries.get(index)).map(|entry| entry.event.clone()))
                }
                None => Err(log.first - number),
            }
        };
        match found {
            Ok(event) => Ok(event.map(Arc::unwrap_or_clone)),
            Err(lost) => {
                let problem = format!("{lost} events were not read in time and are lost; subscribe again and list");
                tracing::warn!(lost, "a client that follows the events of containers is too slow");
                Err(Error::new(Code::ResourceExhausted, problem))
            }
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Drops what is too old or too much. The newest stays, however large.
    fn cut(&mut self, age: Duration, bytes: usize) {
        while let Some(oldest) = self.entries.front() {
            let much = self.bytes > bytes && self.entries.len() > 1;
            if !much && oldest.at.elapsed() <= age {
                return;
            }
            self.bytes -= oldest.size;
            self.first += 1;
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
