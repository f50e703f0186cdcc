//! Who writes the account of a request.
//!
//! The request's own work books its stages by [`Request::stage`]. Work below it that knows of no request books by
//! [`here`], and the calls on the core by themselves: both find the account in the task that [`Request::watch`] runs.

use std::sync::Arc;
use std::time::Instant;

use shared_proto::meter::{self, Observer, Way};
use shared_proto::seam::v1::Message;
use shared_proto::{Error, trace};

use super::account::{Account, ERROR, ITSELF, Place, short};
use crate::metrics::Metrics;

tokio::task_local! {
    static HERE: (Arc<Account>, Metrics);
}

/// One request at work. It has ended when this is dropped.
#[derive(Debug)]
pub struct Request {
    account: Arc<Account>,
    metrics: Metrics,
}

/// A stage under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    account: Arc<Account>,
    metrics: Metrics,
    at: usize,
    name: &'static str,
    began: Instant,
    _span: tracing::Span,
}

impl Request {
    pub(super) fn new(account: Arc<Account>, metrics: Metrics) -> Self {
        Self { account, metrics }
    }

    pub fn account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// Does `work`, whose calls on the core are booked, and whatever books by [`here`].
    pub async fn watch<F: Future>(&self, work: F) -> F::Output {
        let here = (self.account.clone(), self.metrics.clone());
        meter::observed(self.account.clone(), HERE.scope(here, work)).await
    }

    /// Begins a stage, which ends when the guard is dropped.
    pub fn stage(&self, stage: &'static str) -> Running {
        self.stage_of(stage, "")
    }

    /// The same, with what it is done to.
    pub fn stage_of(&self, stage: &'static str, detail: &str) -> Running {
        Running::begin(&self.account, &self.metrics, stage, detail)
    }

    /// Books the time since the request came as a stage: it waited.
    pub fn waited(&self, stage: &'static str) {
        let at = self.account.begin(Place::Cri, stage, "");
        let waited = self.account.came.elapsed();
        if let Some(stage) = self.account.lock().stages.get_mut(at) {
            (stage.start_us, stage.took_us) = (0, short(waited));
        }
        self.metrics.stage(self.account.rpc, stage, waited);
    }

    /// Keeps what came, if somebody watches.
    pub fn asked(&self, message: Option<Message>) {
        if let Some(message) = message.filter(|_| self.account.watched()) {
            self.account.keep(ITSELF, Way::There, message);
        }
    }

    /// Keeps what is answered, if somebody watches.
    pub fn answered(&self, message: &impl prost::Name) {
        if self.account.watched() {
            self.account.keep(ITSELF, Way::Back, Message::of(message));
        }
    }

    /// Waits before it is begun, or before it is answered, for somebody who goes through it step by step.
    pub async fn pause(&self, way: Way) {
        if let Some(pause) = self.account.pause(ITSELF, way) {
            pause.await;
        }
    }

    /// What came of it, if that was an error.
    pub fn failed(&self, error: &Error) {
        let message = &error.message;
        let end = (0..=ERROR.min(message.len())).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
        self.account.lock().error = Some(message[..end].into());
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let took = self.account.came.elapsed();
        let mut inner = self.account.lock();
        inner.took = Some(took);
        inner.stages.shrink_to_fit();
        inner.messages.shrink_to_fit();
        self.metrics.stage(self.account.rpc, self.account.rpc, took);
    }
}

/// Begins a stage of the request that this task works for, if it works for one.
pub fn here(stage: &'static str, detail: impl FnOnce() -> String) -> Option<Running> {
    HERE.try_with(|(account, metrics)| Running::begin(account, metrics, stage, &detail())).ok()
}

/// Whether somebody goes step by step through the request that this task works for: then there is no hurry.
pub fn stepped() -> bool {
    HERE.try_with(|(account, _)| account.steps()).unwrap_or(false)
}

impl Running {
    fn begin(account: &Arc<Account>, metrics: &Metrics, name: &'static str, detail: &str) -> Self {
        let span = trace::stage(name, detail);
        let at = account.begin(Place::Cri, name, detail);
        Self { account: account.clone(), metrics: metrics.clone(), at, name, began: Instant::now(), _span: span }
    }

    /// [`Request::pause`] of the stage.
    pub async fn pause(&self, way: Way) {
        if let Some(pause) = self.account.pause(self.at, way) {
            pause.await;
        }
    }

    /// Keeps a message to or from whoever does the work, if somebody watches; only then it is made.
    pub fn message(&self, way: Way, message: impl FnOnce() -> Message) {
        if self.account.watched() {
            self.account.keep(self.at, way, message());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.account.end(self.at, false);
        self.metrics.stage(self.account.rpc, self.name, self.began.elapsed());
    }
}
