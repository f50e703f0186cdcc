//! Who watches the starts of which pods: while somebody does, the messages of their requests are kept.
//!
//! A pod is watched by its name, before it is there. The watch lasts as long as its [`Watching`] lives, which is in the
//! stream that the client listens to. Without watches a request asks one empty list, and a call nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_proto::seam::v1::Message;
use shared_proto::{Error, Result};
use tokio_util::sync::CancellationToken;

/// The most watches at a time: people, not programs.
const WATCHES: usize = 16;

/// All of them.
#[derive(Debug, Default)]
pub struct Watches {
    pods: Arc<Mutex<Vec<Arc<str>>>>,
    closed: CancellationToken,
}

/// One watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watching {
    pod: Arc<str>,
    pods: Arc<Mutex<Vec<Arc<str>>>>,
    closed: CancellationToken,
}

impl Watches {
    /// Watches `pod`, which is `NAMESPACE/NAME` or `NAME`.
    pub fn begin(&self, pod: &str) -> Result<Watching> {
        if pod.is_empty() {
            return Err(Error::invalid("a pod is watched by NAMESPACE/NAME or NAME"));
        }
        let mut pods = lock(&self.pods);
        if pods.len() >= WATCHES {
            let message = format!("there are {WATCHES} watches of pods already");
            return Err(Error::new(shared_proto::Code::ResourceExhausted, message));
        }
        let pod: Arc<str> = pod.into();
        pods.push(pod.clone());
        Ok(Watching { pod, pods: self.pods.clone(), closed: self.closed.clone() })
    }

    /// Whether somebody watches this pod.
    pub fn want(&self, namespace: &str, name: &str) -> bool {
        let is_it = |pod: &str| pod.split_once('/').map_or(pod == name, |pod| pod == (namespace, name));
        lock(&self.pods).iter().any(|pod| is_it(pod))
    }

    /// The message, if anybody watches any pod: whose it is may not be known yet.
    pub fn note(&self, message: &impl prost::Name) -> Option<Message> {
        let nobody = lock(&self.pods).is_empty();
        (!nobody).then(|| Message::of(message))
    }

    /// Ends all watches, as the server stops.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

impl Watching {
    /// Returns when the server stops.
    pub async fn ended(&self) {
        self.closed.cancelled().await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut pods = lock(&self.pods);
        if let Some(at) = pods.iter().position(|pod| Arc::ptr_eq(pod, &self.pod)) {
            pods.swap_remove(at);
        }
    }
}

fn lock(pods: &Mutex<Vec<Arc<str>>>) -> MutexGuard<'_, Vec<Arc<str>>> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (one, two) = (watches.begin("shop/web").unwrap(), watches.begin("db").unwrap());
        let again = watches.begin("shop/web").unwrap();
        assert!(watches.note(&StartContainerRequest::default()).is_some());
        let wanted = |pod: &str| watches.want(pod.split_once('/').unwrap().0, pod.split_once('/').unwrap().1);
        assert_eq!(["shop/web", "bank/web", "bank/db", "shop/d"].map(wanted), [true, false, true, false]);
        drop(one);
        assert!(wanted("shop/web"), "another one still watches");
        drop((again, two));
        assert!(!wanted("shop/web") && !wanted("bank/db"));
        assert_eq!(watches.begin("").unwrap_err().code, Code::InvalidArgument);
        let all: Vec<_> = (0..WATCHES).map(|_| watches.begin("x").unwrap()).collect();
        assert_eq!(watches.begin("y").unwrap_err().code, Code::ResourceExhausted);
        drop(all);
        watches.begin("y").unwrap();
    }
}
