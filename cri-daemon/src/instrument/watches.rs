//! Who watches the starts of which pods: while somebody does, the messages of their requests are kept.
//!
//! A pod is watched by its name, before it is there. The watch lasts as long as its [`Watching`] lives, which is in the
//! stream that the client listens to. Without watches a request asks one empty list, and a call nothing.
//!
//! A watch may go step by step: then the start waits at each boundary ([`Watch::stop`]) until it is told to go on, or
//! until the watch is over. So a client that dies holds up nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_proto::seam::v1::{Message, Stop};
use shared_proto::{Error, Result};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The most watches at a time: people, not programs.
const WATCHES: usize = 16;

/// All of them.
#[derive(Debug, Default)]
pub struct Watches {
    all: List,
    stops: Arc<AtomicU64>,
    closed: CancellationToken,
}

type List = Arc<Mutex<Vec<Arc<Watch>>>>;

/// What a watched request knows of whoever watches.
#[derive(Debug)]
pub struct Watch {
    pod: Box<str>,
    /// Where stops are told, if it goes step by step.
    told: Option<mpsc::UnboundedSender<Stop>>,
    /// Those who wait, by the number of their stop.
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
    stops: Arc<AtomicU64>,
    over: CancellationToken,
}

/// One watch in its client's hands; it is over when this is dropped.
#[derive(Debug)]
pub struct Watching {
    watch: Arc<Watch>,
    told: Option<mpsc::UnboundedReceiver<Stop>>,
    all: List,
}

impl Watches {
    /// Watches `pod`, which is `NAMESPACE/NAME` or `NAME`.
    pub fn begin(&self, pod: &str, step: bool) -> Result<Watching> {
        if pod.is_empty() {
            return Err(Error::invalid("a pod is watched by NAMESPACE/NAME or NAME"));
        }
        let mut all = lock(&self.all);
        if all.len() >= WATCHES {
            let message = format!("there are {WATCHES} watches of pods already");
            return Err(Error::new(shared_proto::Code::ResourceExhausted, message));
        }
        let (tell, told) = step.then(mpsc::unbounded_channel).unzip();
        let (waiting, stops, over) = (Mutex::default(), self.stops.clone(), self.closed.child_token());
        let watch = Arc::new(Watch { pod: pod.into(), told: tell, waiting, stops, over });
        all.push(watch.clone());
        Ok(Watching { watch, told, all: self.all.clone() })
    }

    /// Who watches this pod.
    pub fn of(&self, namespace: &str, name: &str) -> Option<Arc<Watch>> {
        let is_it = |pod: &str| pod.split_once('/').map_or(pod == name, |pod| pod == (namespace, name));
        lock(&self.all).iter().find(|watch| is_it(&watch.pod)).cloned()
    }

    /// The message, if anybody watches any pod: whose it is may not be known yet.
    pub fn note(&self, message: &impl prost::Name) -> Option<Message> {
        let nobody = lock(&self.all).is_empty();
        (!nobody).then(|| Message::of(message))
    }

    /// Lets go on who waits at a stop.
    pub fn go_on(&self, number: u64) -> Result<()> {
        let waiting = lock(&self.all).iter().find_map(|watch| watch.waiting().remove(&number));
        let waiting = waiting.ok_or_else(|| Error::not_found(format!("nobody waits at stop {number}")))?;
        // Whoever is gone goes on, too.
        let _ = waiting.send(());
        Ok(())
    }

    /// Ends all watches, as the server stops.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

impl Watch {
    /// Whether it goes step by step.
    pub fn steps(&self) -> bool {
        self.told.is_some() && !self.over.is_cancelled()
    }

    /// Tells the client of a stop, and waits until it is to go on.
    pub async fn stop(&self, stop: Stop) {
        let Some(told) = &self.told else { return };
        let number = self.stops.fetch_add(1, Relaxed) + 1;
        let (go, gone) = oneshot::channel();
        self.waiting().insert(number, go);
        if told.send(Stop { number, ..stop }).is_ok() {
            tokio::select! {
                // An error is the end of the watch.
                _ = gone => {}
                () = self.over.cancelled() => {}
            }
        }
        self.waiting().remove(&number);
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// The next stop; `None`: the server stops.
    pub async fn next(&mut self) -> Option<Stop> {
        let over = self.watch.over.clone();
        match &mut self.told {
            Some(told) => over.run_until_cancelled(told.recv()).await.flatten(),
            None => {
                over.cancelled().await;
                None
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watch.over.cancel();
        lock(&self.all).retain(|watch| !Arc::ptr_eq(watch, &self.watch));
    }
}

fn lock(all: &List) -> MutexGuard<'_, Vec<Arc<Watch>>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use shared_proto::Code;
    use shared_proto::cri::v1::StartContainerRequest;

    use super::*;

    #[test]
    fn a_pod_is_watched_by_name_as_long_as_somebody_does() {
        let watches = Watches::default();
        assert!(watches.note(&StartContainerRequest::default()).is_none());
        let (one, two) = (watches.begin("shop/web", false).unwrap(), watches.begin("db", false).unwrap());
        let again = watches.begin("shop/web", false).unwrap();
        assert!(watches.note(&StartContainerRequest::default()).is_some());
        let wanted = |pod: &str| watches.of(pod.split_once('/').unwrap().0, pod.split_once('/').unwrap().1).is_some();
        assert_eq!(["shop/web", "bank/web", "bank/db", "shop/d"].map(wanted), [true, false, true, false]);
        drop(one);
        assert!(wanted("shop/web"), "another one still watches");
        drop((again, two));
        assert!(!wanted("shop/web") && !wanted("bank/db"));
        assert_eq!(watches.begin("", false).unwrap_err().code, Code::InvalidArgument);
        let all: Vec<_> = (0..WATCHES).map(|_| watches.begin("x", false).unwrap()).collect();
        assert_eq!(watches.begin("y", false).unwrap_err().code, Code::ResourceExhausted);
        drop(all);
        watches.begin("y", false).unwrap();
    }

    #[tokio::test]
    async fn a_stop_waits_for_the_client_or_for_its_end() {
        let watches = Watches::default();
        let mut client = watches.begin("shop/web", true).unwrap();
        let watch = watches.of("shop", "web").unwrap();
        let wait = |rpc: &str| {
            let (watch, rpc) = (watch.clone(), rpc.to_owned());
            tokio::spawn(async move { watch.stop(Stop { rpc, ..Default::default() }).await })
        };
        let first = wait("RunPodSandbox");
        let stop = client.next().await.unwrap();
        assert_eq!((stop.rpc.as_str(), stop.number), ("RunPodSandbox", 1));
        assert!(!first.is_finished() && watch.steps());
        assert_eq!(watches.go_on(7).unwrap_err().code, Code::NotFound);
        watches.go_on(1).unwrap();
        first.await.unwrap();
        let second = wait("StartContainer");
        assert_eq!(client.next().await.unwrap().number, 2);
        drop(client);
        second.await.unwrap();
        watch.stop(Stop::default()).await;
        assert!(!watch.steps());
        let mut client = watches.begin("db", false).unwrap();
        watches.of("n", "db").unwrap().stop(Stop::default()).await;
        watches.close();
        assert_eq!(client.next().await, None);
    }
}
