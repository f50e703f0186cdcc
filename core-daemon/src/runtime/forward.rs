//! The ttrpc socket on which shims deliver their events.
//!
//! An event first brings the manager up to date, then goes to the subscribers, byte for byte: whoever hears of an exit
//! and asks for the state gets the new one. An exit that was published already is dropped.

use std::future::Future;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use shared_proto::containerd::Envelope;
use shared_proto::containerd::events::{TaskExecStarted, TaskExit, TaskPaused, TaskResumed, TaskStart};
use shared_proto::ttrpc::EVENTS;
use shared_proto::ttrpc::events::ForwardRequest;
use shared_proto::{Error, any};
use shared_ttrpc::{Answer, Context, Server, Service, decode, encode};

use super::manager::Tasks;
use super::shim::exit_of;
use super::task::Task;
use crate::domain::{Id, Namespace, Payload};
use crate::events::{Event, check_topic};

/// Serves the socket until `shutdown`, then answers what has begun.
pub async fn serve_ttrpc(
    listener: UnixListener,
    tasks: Tasks,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    Server::new().service(EVENTS, Arc::new(Forward(tasks))).serve(listener, shutdown).await;
    Ok(())
}

struct Forward(Tasks);

impl Service for Forward {
    fn call(&self, _: Context, method: &str, payload: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let answer = match method {
            "Forward" => decode::<ForwardRequest>(payload).and_then(|request| {
                let envelope = request.envelope.ok_or_else(|| Error::invalid("no envelope"))?;
                self.0.forward(envelope)
            }),
            other => Err(Error::unimplemented(format!("method {other} is not offered"))),
        };
        Box::pin(std::future::ready(answer.and_then(|()| encode(&()))))
    }
}

impl Tasks {
    /// Takes in an event of a shim and passes it on.
    pub fn forward(&self, envelope: Envelope) -> Result<(), Error> {
        let ns = Namespace::parse(&envelope.namespace)?;
        check_topic(&envelope.topic)?;
        let event = envelope.event.ok_or_else(|| Error::invalid("an event must not be empty"))?;
        if !self.note(&ns, &event) {
            tracing::debug!(%ns, topic = envelope.topic, "an exit that was published before");
            return Ok(());
        }
        let at = envelope.timestamp.map_or_else(SystemTime::now, |t| {
            UNIX_EPOCH + Duration::new(u64::try_from(t.seconds).unwrap_or(0), u32::try_from(t.nanos).unwrap_or(0))
        });
        let payload = Payload { type_url: event.type_url, value: event.value };
        self.0.exchange.publish(Event { at, ns: envelope.namespace, topic: envelope.topic, payload });
        Ok(())
    }

    /// Learns from an event; `false` if it must not be published again.
    fn note(&self, ns: &Namespace, event: &prost_types::Any) -> bool {
        if any::is::<TaskExit>(event) {
            let Ok(exit) = any::unpack::<TaskExit>(event) else { return true };
            let exec = if exit.id == exit.container_id { "" } else { exit.id.as_str() };
            self.learn(ns, &exit.container_id, |task| {
                task.exited(exec, exit_of(exit.pid, exit.exit_status, exit.exited_at));
            });
            return self.0.exits.first(ns.as_str(), &exit.container_id, exec, exit.pid);
        }
        if any::is::<TaskStart>(event) {
            if let Ok(start) = any::unpack::<TaskStart>(event) {
                self.learn(ns, &start.container_id, |task| {
                    task.with("", |init| init.started(start.pid));
                });
            }
        } else if any::is::<TaskExecStarted>(event) {
            if let Ok(start) = any::unpack::<TaskExecStarted>(event) {
                self.learn(ns, &start.container_id, |task| {
                    task.with(&start.exec_id, |process| process.started(start.pid));
                });
            }
        } else if any::is::<TaskPaused>(event) {
            if let Ok(paused) = any::unpack::<TaskPaused>(event) {
                self.doubt(ns, &paused.container_id);
            }
        } else if any::is::<TaskResumed>(event)
            && let Ok(resumed) = any::unpack::<TaskResumed>(event)
        {
            self.doubt(ns, &resumed.container_id);
        }
        true
    }

    /// Pausing and resuming alternate, and an event may come after the next answer: ask when it matters.
    fn doubt(&self, ns: &Namespace, id: &str) {
        self.learn(ns, id, |task| {
            task.with("", |init| init.sure = false);
        });
    }

    fn learn(&self, ns: &Namespace, id: &str, what: impl FnOnce(&Task)) {
        if let Ok(id) = Id::parse(id)
            && let Ok(task) = self.0.registry.get(ns, &id)
        {
            what(&task);
        }
    }
}
