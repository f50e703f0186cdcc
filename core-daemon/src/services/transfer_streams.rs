//! What a transfer and its client say to each other over streams: progress, credentials, bytes.
//!
//! Bytes come as `Data`, by credit: the client may send as many bytes as `WindowUpdate`s gave it. We start with
//! [`WINDOW`], and give more when half of it is used up, so that a quick client is held up by our disk and by nothing
//! else, and a slow one costs no memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared_proto::containerd::Descriptor;
use shared_proto::containerd::transfer_types::{
    self as types, AuthRequest, AuthResponse, AuthType, Data, WindowUpdate,
};
use shared_proto::{Error, Result, any};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::streaming::{Stream, StreamManager};
use crate::images::ImageError;
use crate::images::auth::{Credential, Credentials};
use crate::images::progress::{Progress, Sink};

/// How long a client may think about credentials.
const ANSWER: Duration = Duration::from_secs(30);
/// Progress reports that may wait for a slow client; more are dropped.
const REPORTS: usize = 4096;
/// Bytes that a client may send ahead.
const WINDOW: i32 = 4 << 20;
/// Messages of bytes that may wait for the disk, each at most as long as the window.
const CHUNKS: usize = 8;

/// Sends reports to the stream of this name; nowhere if the name is empty.
pub(super) fn progress_sink(streams: &StreamManager, ns: &str, name: &str) -> Result<Sink> {
    if name.is_empty() {
        return Ok(Arc::new(|_| {}));
    }
    let mut stream = streams.take(ns, name)?;
    let (sender, mut reports) = mpsc::channel::<Progress>(REPORTS);
    // Ends with the last sender, or when the client is gone.
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            if stream.send(any::pack(&message(report))).await.is_err() {
                return;
            }
        }
    });
    Ok(Arc::new(move |report| {
        // A client that doesn't read must not stop the transfer.
        let _ = sender.try_send(report);
    }))
}

fn message(report: Progress) -> types::Progress {
    let desc = report.descriptor.map(|d| Descriptor {
        media_type: d.media_type,
        digest: d.digest.to_string(),
        size: d.size as i64,
        annotations: d.annotations.into_iter().collect(),
    });
    types::Progress {
        event: report.event,
        name: report.name,
        parents: report.parents,
        progress: report.progress as i64,
        total: report.total as i64,
        desc,
    }
}

/// Asks the client for credentials, one host at a time.
pub(super) struct AskClient {
    /// Held while the client answers: the stream has no way to tell two questions apart.
    stream: Mutex<Stream>,
    reference: String,
}

impl AskClient {
    pub fn new(stream: Stream, reference: &str) -> Self {
        Self { stream: Mutex::new(stream), reference: reference.to_owned() }
    }
}

#[async_trait::async_trait]
impl Credentials for AskClient {
    async fn get(&self, host: &str, challenges: &[String]) -> Result<Credential, ImageError> {
        let failed = |reason: String| ImageError::Credentials { host: host.to_owned(), reason };
        let question = AuthRequest {
            host: host.to_owned(),
            reference: self.reference.clone(),
            wwwauthenticate: challenges.to_vec(),
        };
        let mut stream = self.stream.lock().await;
        let answer = tokio::time::timeout(ANSWER, async {
            stream.send(any::pack(&question)).await?;
            let answer = stream.receive().await.ok_or_else(|| Error::unavailable("it closed the stream"))??;
            any::unpack::<AuthResponse>(&answer)
        });
        let answer = answer.await.map_err(|_| failed(format!("no answer within {} s", ANSWER.as_secs())))?;
        let answer = answer.map_err(|e| failed(e.message))?;
        let (user, secret) = (answer.username.clone(), answer.secret.clone());
        Ok(match answer.auth_type() {
            AuthType::None => Credential::Anonymous,
            _ if secret.is_empty() && user.is_empty() => Credential::Anonymous,
            AuthType::Credentials if user.is_empty() => Credential::Identity { token: secret },
            AuthType::Credentials => Credential::Password { user, secret },
            AuthType::Refresh => Credential::Identity { token: secret },
            AuthType::Header => Credential::Header { value: secret },
        })
    }
}

/// The bytes that the client sends; the channel closes when it has sent all.
pub(super) fn incoming_bytes(mut stream: Stream, stop: &CancellationToken) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let stop = stop.clone();
    // Ends with the stream, with the receiver, or when told to stop.
    tokio::spawn(async move {
        let pump = pump(&mut stream, &sender);
        let done = tokio::select! {
            done = pump => done,
            () = stop.cancelled() => Err(Error::new(shared_proto::Code::Canceled, "cancelled")),
        };
        if let Err(e) = done {
            let _ = sender.send(Err(io::Error::other(e.message))).await;
        }
    });
    receiver
}

async fn pump(stream: &mut Stream, sender: &mpsc::Sender<io::Result<Bytes>>) -> Result<()> {
    let grant = |update: i32| any::pack(&WindowUpdate { update });
    let mut credit = WINDOW;
    stream.send(grant(WINDOW)).await?;
    while let Some(message) = stream.receive().await {
        let data: Data = any::unpack(&message?)?;
        let length = i32::try_from(data.data.len()).unwrap_or(i32::MAX);
        if length > credit {
            return Err(Error::precondition(format!("{length} bytes came, but only {credit} were allowed")));
        }
        credit -= length;
        if sender.send(Ok(Bytes::from(data.data))).await.is_err() {
            // Nobody wants the rest.
            return Ok(());
        }
        if credit <= WINDOW / 2 {
            stream.send(grant(WINDOW - credit)).await?;
            credit = WINDOW;
        }
    }
    Ok(())
}
