//! One call of the recording, made again: put into the endpoint's words, sent, and its answer held against the recorded.
//!
//! A question whose answer differs without a reason is asked again for a while, as a kubelet would: what a process does
//! by itself takes its own time. What remains is a difference. Nothing that changes something is sent twice.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::auth::Auth;
use super::compare::Difference;
use super::facts::{Facts, is_read};
use super::ids::Names;
use super::judge;
use super::known::{Known, LATER};
use super::recording::Recorded;
use crate::recorder::messages::{self, Method, short};
use crate::recorder::raw::{self, Answer};

/// The limit of a call whose client set none.
const DEADLINE: Duration = Duration::from_secs(600);
/// How long to wait before a question is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// What the calls of a replay share.
pub struct Session {
    pub channel: Channel,
    pub names: Mutex<Names>,
    pub facts: Facts,
    pub auth: Auth,
    /// The endpoint is the recorded runtime, in the same version.
    pub same_runtime: bool,
    /// The ids of the images that the endpoint had before.
    pub images: Vec<String>,
    /// How long a question is asked again.
    pub settle: Duration,
    /// What the recording made and the endpoint did not.
    pub failed: Mutex<Vec<String>>,
}

/// How a call went.
#[derive(Default)]
pub struct Outcome {
    pub seq: u64,
    pub method: String,
    pub recorded: Duration,
    pub replayed: Duration,
    /// How much later than planned it was sent.
    pub late: Duration,
    pub found: Vec<Found>,
    /// Why it was not sent, or not compared.
    pub skipped: Option<&'static str>,
    /// Whether `replayed` is an answer's time.
    pub answered: bool,
}

/// A difference, and its reason if it has one.
pub struct Found {
    pub difference: Difference,
    pub known: Option<&'static Known>,
}

impl Session {
    /// Makes a call again. A watch goes on until `ended`, or until it was cancelled in the recording.
    pub async fn perform(&self, recorded: &Recorded, ended: &CancellationToken) -> Outcome {
        let call = &recorded.call;
        let mut outcome = Outcome {
            seq: call.seq,
            method: call.method.clone(),
            recorded: Duration::from_nanos(call.took_ns),
            ..Default::default()
        };
        let (request, without_credentials) = match self.request(recorded) {
            Ok(made) => made,
            Err(why) => return Outcome { skipped: Some(why), ..outcome },
        };
        let method = messages::method(&call.method);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = tokio::select! {
            answer = self.send(recorded, request.clone(), seen.clone()) => Some(answer),
            () = cut(recorded, ended) => None,
        };
        if recorded.is_watch() {
            let messages = std::mem::take(&mut *locked(&seen));
            let refused = answer.and_then(|answer| answer.status.err());
            let found = self.watched(recorded, method.as_ref(), &messages, refused.as_ref());
            outcome.found = self.explained(recorded, found, false);
            return outcome;
        }
        let Some(answer) = answer.filter(|_| call.cut.is_none()) else {
            outcome.skipped = Some("the recording has no answer of it");
            return outcome;
        };
        (outcome.replayed, outcome.answered) = (answer.took, true);
        self.learn(recorded, method.as_ref(), &answer);
        outcome.found = self.explained(recorded, self.judged(recorded, method.as_ref(), &answer), without_credentials);
        if outcome.found.iter().any(|found| found.known.is_none()) && is_read(&call.method) {
            self.ask_again(recorded, method.as_ref(), &request, &mut outcome).await;
        }
        outcome
    }

    /// Asks until the answer is explained, or for long enough.
    async fn ask_again(&self, recorded: &Recorded, method: Option<&Method>, request: &Bytes, outcome: &mut Outcome) {
        let started = tokio::time::Instant::now();
        while started.elapsed() < self.settle {
            tokio::time::sleep(PAUSE).await;
            let answer = self.send(recorded, request.clone(), Default::default()).await;
            let found = self.explained(recorded, self.judged(recorded, method, &answer), false);
            if found.iter().all(|found| found.known.is_some()) {
                let (first, ms) = (&outcome.found[0].difference, started.elapsed().as_millis());
                let text = |value: &Option<Value>| value.as_ref().map_or("nothing".into(), Value::to_string);
                let before = format!("the same after {ms} ms, before that {}", text(&first.replayed));
                let difference = judge::whole(LATER, format!("{} {}", first.path, text(&first.recorded)), before);
                outcome.found = found;
                outcome.found.extend(self.explained(recorded, vec![difference], false));
                return;
            }
            // The newest answer is the one to tell of.
            outcome.found = found;
        }
    }

    async fn send(&self, recorded: &Recorded, request: Bytes, seen: Arc<Mutex<Vec<Bytes>>>) -> Answer {
        let deadline = recorded.call.deadline_ms.map(Duration::from_millis);
        let deadline = if recorded.is_watch() { deadline } else { deadline.or(Some(DEADLINE)) };
        let keep = |message: &Bytes| {
            if recorded.is_watch() {
                locked(&seen).push(message.clone());
            }
        };
        raw::call(self.channel.clone(), &recorded.call.method, request, deadline, keep).await
    }

    /// The request's bytes for the endpoint, and whether credentials are missing in them.
    fn request(&self, recorded: &Recorded) -> Result<(Bytes, bool), &'static str> {
        let request = &recorded.call.request;
        if let Some(base64) = &request.base64 {
            let bytes = STANDARD.decode(base64).map_err(|_| "its request is not base64")?;
            return Ok((bytes.into(), false));
        }
        let method = messages::method(&recorded.call.method).ok_or("its form is not known")?;
        let mut json = request.json.clone().ok_or("its request is not in the recording")?;
        // Those that were refused are sent as they are in the recording, to be refused again.
        let refused = matches!(recorded.call.code.as_deref(), Some("UNAUTHENTICATED" | "PERMISSION_DENIED"));
        let pulls = short(&recorded.call.method) == "PullImage" && !refused;
        let without_credentials = pulls && !self.auth.give(&mut json);
        locked(&self.names).to_endpoint(&mut json);
        let bytes = messages::to_bytes(method.request, &json).map_err(|_| "its request is not of the known form")?;
        Ok((bytes.into(), without_credentials))
    }

    /// Learns what the endpoint calls what it has made.
    fn learn(&self, recorded: &Recorded, method: Option<&Method>, answer: &Answer) {
        let field = match short(&recorded.call.method) {
            "RunPodSandbox" => "pod_sandbox_id",
            "CreateContainer" => "container_id",
            _ => return,
        };
        let id = |json: Option<&Value>| json?.get(field)?.as_str().map(str::to_owned);
        let Some(theirs) = id(recorded.call.response.json.as_ref()) else { return };
        let json = method.and_then(|method| judge::told(method, answer.messages.first()?));
        match id(json.as_ref()) {
            Some(ours) => locked(&self.names).learn(&theirs, &ours),
            None => locked(&self.failed).push(theirs),
        }
    }
}

/// Returns when the call was cut in the recording.
async fn cut(recorded: &Recorded, ended: &CancellationToken) {
    match recorded.call.cut {
        _ if recorded.is_watch() => ended.cancelled().await,
        Some(_) => tokio::time::sleep(Duration::from_nanos(recorded.call.took_ns)).await,
        None => std::future::pending().await,
    }
}

/// Nothing in this program panics half-way through a change.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
