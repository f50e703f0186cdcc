//! Exits, as the core tells them.
//!
//! One stream carries the events of all tasks. It may break at any time: the core was restarted, or we were too slow.
//! Then we subscribe again *first* and after that ask the core for the state of everything that we believe to run, so
//! no exit falls between the two. A broken call is never taken for an exit.
//!
//! Each exit is handled by a task of its own ([`Handlers`]), one at a time per id, repeated with growing pauses when the
//! core fails. A hung shim delays its own container and no other.
//!
//! - [`handle`]: what an exit leads to.     - [`feed`], [`publish`]: what followers of CRI's own events are told.

mod feed;
mod handle;
mod publish;

use std::time::Duration;

use futures::StreamExt as _;
use shared_proto::api::Items;
use shared_proto::containerd::{Envelope, events as e, events_service};
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result, any};

use crate::call::{RECORD, tasks::Ended, within};
use crate::container::State;
use crate::{Cri, NAMESPACE, pod};

pub use feed::Feed;
pub use handle::{Handlers, Told};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Cri {
    /// Subscribes, waiting for a core that is away; an error means that we are stopped.
    pub(crate) async fn subscribe(&self) -> Result<Items<Envelope>> {
        let inner = &self.0;
        let filters = vec![format!("namespace=={NAMESPACE},topic~=|^/tasks/|")];
        let mut pause = FIRST_PAUSE;
        loop {
            let request = events_service::SubscribeRequest { filters: filters.clone() };
            let call = inner.core.events.subscribe(&inner.cx, request);
            match within("subscribe to the events of tasks", RECORD, call).await {
                Ok(events) => return Ok(events),
                Err(error) => tracing::info!(%error, "the core does not answer; trying again"),
            }
            let stopped = inner.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none();
            if stopped {
                return Err(Error::unavailable("stopped before the core answered"));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows the events until we are stopped.
    pub(crate) async fn follow(self, mut events: Items<Envelope>) {
        loop {
            let next = self.0.shutdown.run_until_cancelled(events.next()).await;
            match next {
                None => return,
                Some(Some(Ok(envelope))) => {
                    if let Err(error) = self.dispatch(&envelope) {
                        tracing::warn!(topic = envelope.topic, %error, "an event is not understood");
                    }
                }
                Some(broken) => {
                    let error = broken.and_then(Result::err).map_or_else(String::new, |e| e.message);
                    tracing::info!(error, "the event stream broke; subscribing again");
                    match self.subscribe().await {
                        Ok(again) => events = again,
                        Err(_) => return,
                    }
                    self.look_at_all();
                }
            }
        }
    }

    fn dispatch(&self, envelope: &Envelope) -> Result<()> {
        if envelope.namespace != NAMESPACE {
            return Ok(());
        }
        let event = envelope.event.as_ref().ok_or_else(|| Error::invalid("an event without content"))?;
        match envelope.topic.as_str() {
            "/tasks/exit" => {
                let exit: e::TaskExit = any::unpack(event).context("exit event")?;
                // The others are execs, whose callers wait for them.
                if exit.id == exit.container_id || exit.id.is_empty() {
                    let ended = Ended::new(exit.exit_status, exit.exited_at.as_ref());
                    self.handle(exit.container_id, Some(Told { pid: exit.pid, ended }));
                }
            }
            "/tasks/oom" => {
                let oom: e::TaskOom = any::unpack(event).context("out-of-memory event")?;
                if let Some(container) = self.0.containers.exact(&oom.container_id) {
                    container.life.mark_oom();
                }
            }
            // Nothing else changes what the kubelet is told.
            _ => {}
        }
        Ok(())
    }

    /// Asks the core for the state of everything that we believe to run.
    fn look_at_all(&self) {
        for container in self.0.containers.list() {
            match container.life.state() {
                State::Running { .. } | State::Starting | State::Unknown { asking: true, .. } => {
                    self.handle(container.record.id.clone(), None);
                }
                State::Created | State::Exited(_) | State::Unknown { asking: false, .. } => {}
            }
        }
        for sandbox in self.0.sandboxes.list() {
            match sandbox.life.state() {
                pod::State::Ready { .. } | pod::State::Creating | pod::State::Unknown { asking: true, .. } => {
                    self.handle(sandbox.record().id.clone(), None);
                }
                pod::State::NotReady { .. } | pod::State::Unknown { asking: false, .. } => {}
            }
        }
    }
}
