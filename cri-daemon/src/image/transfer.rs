//! One pull, done by the core: we ask for the transfer, answer its questions for credentials, and watch its progress.
//!
//! A pull in which not one byte arrives for a while is given up. That clock runs only while something is being
//! downloaded: unpacking a large layer reports nothing for minutes and is no reason to worry.

use std::collections::HashMap;
use std::time::Duration;

use shared_proto::containerd::transfer::{TransferOptions, TransferRequest};
use shared_proto::containerd::transfer_types as t;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Context, Core, Result, any};
use tokio::time::Instant;

use super::credentials::Credentials;
use super::platform::Platform;
use super::stream::Named;
use super::{ImageError, Labels, Reference};

/// What to pull, and how.
pub struct Pull {
    pub reference: Reference,
    pub credentials: Credentials,
    /// Of the image record.
    pub labels: Labels,
    pub snapshotter: String,
    pub platform: Platform,
    /// Folders with `HOST/hosts.toml`, separated by `:`.
    pub host_dirs: String,
    /// Give up after so long without a byte; zero = never.
    pub patience: Duration,
}

/// Returns when the image is recorded under its reference and unpacked. The core names the image in what it says itself.
pub async fn pull(core: &Core, cx: &Context, pull: &Pull) -> Result<()> {
    let named = || format!("pull {}", pull.reference);
    let streams = futures::try_join!(Named::open(core, cx, "progress"), Named::open(core, cx, "credentials"));
    let (mut progress, mut questions) = streams.with_context(named)?;
    let transfer = core.transfer.transfer(cx, request(pull, &progress.id, &questions.id));
    tokio::pin!(transfer);

    let mut watch = Watch::new(pull.patience);
    let (mut progress_open, mut questions_open) = (true, true);
    loop {
        tokio::select! {
            done = &mut transfer => return match done {
                // Perhaps it could not say anything any more.
                Err(e) if e.is_transient() => Err(e.context(named())),
                done => done,
            },
            report = progress.next(), if progress_open => match report {
                Some(Ok(report)) => watch.note(&any::unpack(&report)?),
                // The transfer itself will say what happened to the core.
                Some(Err(_)) | None => progress_open = false,
            },
            question = questions.next(), if questions_open => match question {
                Some(Ok(question)) => {
                    let question: t::AuthRequest = any::unpack(&question)?;
                    questions.send(any::pack(&pull.credentials.answer(&question.host))).await?;
                }
                Some(Err(_)) | None => questions_open = false,
            },
            () = watch.stalled() => {
                let (reference, limit) = (pull.reference.to_string(), pull.patience);
                return Err(ImageError::Stalled { reference, limit }.into());
            }
        }
    }
}

fn request(pull: &Pull, progress_stream: &str, auth_stream: &str) -> TransferRequest {
    let source = t::OciRegistry {
        reference: pull.reference.to_string(),
        resolver: Some(t::RegistryResolver {
            auth_stream: auth_stream.to_owned(),
            host_dir: pull.host_dirs.clone(),
            ..Default::default()
        }),
    };
    let destination = t::ImageStore {
        name: pull.reference.to_string(),
        labels: pull.labels.clone(),
        platforms: vec![pull.platform.to_wire()],
        unpacks: vec![t::UnpackConfiguration {
            platform: Some(pull.platform.to_wire()),
            snapshotter: pull.snapshotter.clone(),
        }],
        ..Default::default()
    };
    TransferRequest {
        source: Some(any::pack(&source)),
        destination: Some(any::pack(&destination)),
        options: Some(TransferOptions { progress_stream: progress_stream.to_owned() }),
    }
}

/// The clock of a pull.
struct Watch {
    patience: Duration,
    /// Bytes of what is being downloaded, by its name.
    downloading: HashMap<String, i64>,
    /// When the last byte came, or the last download began.
    moved: Instant,
}

impl Watch {
    fn new(patience: Duration) -> Self {
        Self { patience, downloading: HashMap::new(), moved: Instant::now() }
    }

    fn note(&mut self, report: &t::Progress) {
        if report.event != "downloading" {
            self.downloading.remove(&report.name);
            self.moved = Instant::now();
        } else if self.downloading.insert(report.name.clone(), report.progress) != Some(report.progress) {
            self.moved = Instant::now();
        }
    }

    /// When patience is at an end, as things are now.
    fn deadline(&self) -> Option<Instant> {
        let counting = !self.patience.is_zero() && !self.downloading.is_empty();
        counting.then(|| self.moved + self.patience)
    }

    async fn stalled(&self) {
        match self.deadline() {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(event: &str, name: &str, progress: i64) -> t::Progress {
        t::Progress { event: event.into(), name: name.into(), progress, ..Default::default() }
    }

    #[test]
    fn only_a_download_without_bytes_stalls() {
        let mut watch = Watch::new(Duration::from_secs(10));
        assert_eq!(watch.deadline(), None);
        watch.note(&report("downloading", "a", 1));
        let first = watch.deadline().unwrap();
        watch.note(&report("downloading", "a", 1));
        assert_eq!(watch.deadline(), Some(first), "no new byte came");
        watch.note(&report("downloading", "a", 2));
        assert!(watch.deadline().unwrap() > first);
        watch.note(&report("extracting", "a", 0));
        assert_eq!(watch.deadline(), None);
        watch.note(&report("downloading", "b", 0));
        assert_eq!(Watch { patience: Duration::ZERO, ..watch }.deadline(), None);
    }
}
