//! The answer to `why`: a pod's accounts, and between them what the core did meanwhile.
//!
//! The core is asked only now, for the containers of this one pod. Without its answer (it is away, or another program)
//! the calls on it are still there, and the answer says why there is no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use shared_proto::api::Items;
use shared_proto::containerd::introspection::PluginInfoRequest;
use shared_proto::seam::{CORE_STAGES, v1 as seam};
use shared_proto::{Result, any};
use shared_sys::clock;

use super::{Account, PodStart, message};
use crate::{Cri, Inner, call};

/// The core answers this from memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// A call may end at the core after its caller has gone: by so much its stages may lie outside of the request.
const LATE_US: u64 = 1000;

impl Cri {
    /// What the start of a pod and of its containers was made of, and what it waits for.
    pub async fn explain(&self, req: seam::ExplainRequest) -> Result<seam::ExplainResponse> {
        let inner = &*self.0;
        let existing = inner.sandboxes.list().iter().map(|sandbox| sandbox.start.clone()).collect();
        let (start, tries) = inner.starts.find(&req.pod, existing)?;
        let accounts = start.timeline.accounts();
        // One for all: to decode messages takes time.
        let now = Instant::now();
        let mut requests: Vec<seam::Request> = accounts.iter().map(|account| request(account, now)).collect();
        let core_error = match inner.core_stages(&start.id, &accounts).await {
            Ok(stages) => {
                add(&mut requests, &accounts, &start.id, stages);
                String::new()
            }
            Err(e) => e.message,
        };
        Ok(seam::ExplainResponse {
            id: start.id.to_string(),
            namespace: start.namespace.to_string(),
            name: start.name.to_string(),
            attempt: start.attempt,
            state: inner.state_of(&start, &accounts).to_owned(),
            requests,
            core_error,
            other_tries: tries.iter().map(|start| start.id.to_string()).collect(),
            wiring: inner.wiring.name().to_owned(),
        })
    }

    /// Keeps the messages of the starts of a pod for as long as the answer is listened to.
    pub async fn watch(&self, req: seam::WatchRequest) -> Result<Items<seam::WatchEvent>> {
        let watching = self.0.starts.watches.begin(&req.pod, req.step)?;
        let stops = futures::stream::unfold(watching, |mut watching| async move {
            let stop = watching.next().await?;
            Some((Ok(seam::WatchEvent { stop: Some(stop) }), watching))
        });
        let begun = futures::stream::once(async { Ok(seam::WatchEvent { stop: None }) });
        Ok(begun.chain(stops).boxed())
    }

    /// Lets a start go on that waits for whoever watches it.
    pub async fn go_on(&self, req: seam::GoOnRequest) -> Result<seam::GoOnResponse> {
        self.0.starts.watches.go_on(req.number)?;
        Ok(seam::GoOnResponse {})
    }
}

impl Inner {
    fn state_of(&self, start: &PodStart, accounts: &[Arc<Account>]) -> &'static str {
        match (self.sandboxes.exact(&start.id), accounts.first()) {
            (Some(sandbox), _) => sandbox.life.state().name(),
            (None, Some(first)) if first.took().1 => "being created",
            (None, Some(first)) if first.error().is_some() => "failed",
            (None, _) => "removed",
        }
    }

    async fn core_stages(&self, pod: &str, accounts: &[Arc<Account>]) -> Result<Vec<seam::CoreStage>> {
        let mut ids: Vec<String> = accounts.iter().map(|account| id(account, pod).to_owned()).collect();
        ids.sort();
        ids.dedup();
        let (kind, plugin) = CORE_STAGES;
        let options = Some(any::pack(&seam::CoreStagesRequest { ids }));
        let request = PluginInfoRequest { r#type: kind.into(), id: plugin.into(), options };
        let asked = self.core.introspection.plugin_info(&self.cx, request);
        let answer = call::within("ask the core for its stages", PATIENCE, asked).await?;
        match answer.extra {
            Some(extra) => Ok(any::unpack::<seam::CoreStagesResponse>(&extra)?.stages),
            None => Ok(Vec::new()),
        }
    }
}

/// The container in the core that a request is about.
fn id<'a>(account: &'a Account, pod: &'a str) -> &'a str {
    if account.id.is_empty() { pod } else { &account.id }
}

fn request(account: &Account, now: Instant) -> seam::Request {
    let (us, running) = account.took();
    let ((asked, answered), exchanges) = account.exchanges();
    let exchanges = exchanges.into_iter().chain(std::iter::repeat((None, None)));
    let stages = account.stages().into_iter().zip(exchanges).map(|(stage, (sent, received))| {
        let (us, running) = stage.took(account.came);
        seam::Stage {
            place: stage.place.told().into(),
            name: stage.name.to_owned(),
            detail: stage.detail.into_string(),
            start_us: stage.start_us.into(),
            us,
            running,
            failed: stage.failed,
            exchange: message::exchange(sent.as_ref(), received.as_ref()),
        }
    });
    seam::Request {
        rpc: account.rpc.to_owned(),
        subject: account.subject.to_string(),
        age_us: u64::try_from(now.saturating_duration_since(account.came).as_micros()).unwrap_or(u64::MAX),
        us,
        running,
        error: account.error().map(String::from).unwrap_or_default(),
        stages: stages.collect(),
        exchange: message::exchange(asked.as_ref(), answered.as_ref()),
    }
}

/// Puts each stage of the core into the request within whose time it began.
fn add(requests: &mut [seam::Request], accounts: &[Arc<Account>], pod: &str, stages: Vec<seam::CoreStage>) {
    let came = |account: &Account| clock::monotonic_at(account.came).as_micros() as u64;
    for stage in stages {
        let home = accounts.iter().zip(&mut *requests).find(|(account, request)| {
            let came = came(account);
            let until = if request.running { u64::MAX } else { came + request.us + LATE_US };
            id(account, pod) == stage.id && (came.saturating_sub(LATE_US)..until).contains(&stage.began_us)
        });
        let Some((account, request)) = home else { continue };
        request.stages.push(seam::Stage {
            place: stage.place,
            name: stage.name,
            detail: String::new(),
            start_us: stage.began_us.saturating_sub(came(account)),
            us: stage.us,
            running: stage.running,
            failed: false,
            exchange: message::exchange(stage.sent.as_ref(), stage.received.as_ref()),
        });
    }
    // What begins at the same time lies within the other: it stands behind it.
    requests.iter_mut().for_each(|request| request.stages.sort_by_key(|stage| (stage.start_us, stage.place)));
}
