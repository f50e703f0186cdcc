//! `Write`: one answer a request, in lockstep.
//!
//! The first message names the ref and takes its lock; the others may leave the ref out. `STAT` asks how far it is.
//! `WRITE` adds data at the offset, which must be the current one (`OutOfRange`), or 0 to start again. `COMMIT` may
//! bring the last data, and ends the stream. Total and digest may come with any message; the last ones count. A known
//! digest ends the stream with `AlreadyExists`, and its ingest. A stream that ends without `COMMIT`, or at an error,
//! keeps the ingest and releases its lock.

use futures::StreamExt as _;
use shared_proto::api::Items;
use shared_proto::containerd::content as pb;
use shared_proto::{Error, Result};

use crate::content::{ContentError, Store, Writer};
use crate::domain::{Digest, Scope};
use crate::services::{convert, detached};

/// Answers the requests of one stream.
pub(super) fn answers(
    store: Store,
    scope: Scope,
    requests: Items<pb::WriteContentRequest>,
) -> Items<pb::WriteContentResponse> {
    let session = Session { store, scope, requests, writer: None, total: 0, expected: None };
    futures::stream::try_unfold(Some(session), |session| async {
        let Some(mut session) = session else { return Ok(None) };
        let Some(request) = session.requests.next().await else { return Ok(None) };
        let (answer, done) = session.answer(request?).await?;
        Ok(Some((answer, (!done).then_some(session))))
    })
    .boxed()
}

struct Session {
    store: Store,
    scope: Scope,
    requests: Items<pb::WriteContentRequest>,
    /// From the first message on.
    writer: Option<Writer>,
    /// 0 = unknown.
    total: u64,
    expected: Option<Digest>,
}

impl Session {
    /// The answer to one request, and whether the stream ends with it.
    async fn answer(&mut self, mut request: pb::WriteContentRequest) -> Result<(pb::WriteContentResponse, bool)> {
        let action = pb::WriteAction::try_from(request.action)
            .map_err(|_| Error::invalid(format!("ref {}: unknown write action {}", request.r#ref, request.action)))?;
        if let Some(total) = size(request.total).filter(|total| *total > 0) {
            self.total = total;
        }
        if !request.expected.is_empty() {
            self.expected = Some(Digest::parse(&request.expected)?);
        }
        let mut writer = match self.writer.take() {
            Some(writer) => self.check(writer, &request).await?,
            None if request.r#ref.is_empty() => {
                return Err(Error::invalid("the first message must have a ref"));
            }
            None => self.store.writer(&self.scope, &request.r#ref, self.expected.as_ref(), self.total).await?,
        };
        match action {
            pb::WriteAction::Stat => {}
            pb::WriteAction::Write | pb::WriteAction::Commit => {
                // A commit that brings no data throws none away.
                let writes = action == pb::WriteAction::Write || !request.data.is_empty();
                let data = std::mem::take(&mut request.data);
                place(&mut writer, request.offset, writes).await?;
                writer.write(data).await?;
            }
        }
        let mut answer = self.encode(&writer, action);
        if action == pb::WriteAction::Commit {
            let (total, expected) = (Some(self.total).filter(|total| *total > 0), self.expected.take());
            // Finished even when the client goes away now.
            let commit = async move { Ok(writer.commit(total, expected.as_ref(), request.labels).await?) };
            answer.digest = detached(commit).await?.to_string();
            answer.total = answer.offset;
            return Ok((answer, true));
        }
        self.writer = Some(writer);
        Ok((answer, false))
    }

    /// Looks at what a later message says about ref and digest.
    async fn check(&mut self, writer: Writer, request: &pb::WriteContentRequest) -> Result<Writer> {
        if !request.r#ref.is_empty() && request.r#ref != writer.reference() {
            let message = format!("ref {}: a stream writes one ref, not also {}", writer.reference(), request.r#ref);
            return Err(Error::invalid(message));
        }
        let Some(expected) = self.expected.clone().filter(|_| !request.expected.is_empty()) else { return Ok(writer) };
        match self.store.info(&self.scope, &expected).await {
            Err(ContentError::NotFound(_)) => Ok(writer),
            Err(e) => Err(e.into()),
            Ok(_) => {
                let reference = writer.reference().to_owned();
                self.store.hold(&self.scope, &expected).await?;
                match self.store.abort(&self.scope, &reference).await {
                    Ok(()) | Err(ContentError::NoIngest(_)) => {}
                    Err(error) => tracing::warn!(%error, reference, "an ingest could not be removed"),
                }
                Err(ContentError::Exists(expected).into())
            }
        }
    }

    fn encode(&self, writer: &Writer, action: pb::WriteAction) -> pb::WriteContentResponse {
        pb::WriteContentResponse {
            action: action.into(),
            started_at: Some(convert::timestamp(writer.started_at())),
            updated_at: Some(convert::timestamp(writer.updated_at())),
            offset: writer.offset() as i64,
            total: if self.total > 0 { self.total } else { writer.total() } as i64,
            digest: writer.digest().to_string(),
        }
    }
}

/// Makes sure that the next bytes belong where the client thinks.
async fn place(writer: &mut Writer, offset: i64, writes: bool) -> Result<()> {
    let current = writer.offset();
    match size(offset) {
        Some(0) if current == 0 || !writes => Ok(()),
        Some(0) => Ok(writer.truncate().await?),
        Some(asked) if asked == current => Ok(()),
        _ => {
            let (reference, asked) = (writer.reference().to_owned(), offset);
            Err(ContentError::Offset { reference, asked, current }.into())
        }
    }
}

/// A number of bytes; `None` if it is negative.
fn size(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}
