//! `cri-daemon record`: the flight recorder as a command, from opening the file to the sum at the end.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message as _;
use shared_proto::cri::v1::{VersionRequest, VersionResponse};
use shared_proto::transport;
use shared_sys::socket;

use crate::recorder::format::{FORMAT, Header, Target, VERSION};
use crate::recorder::journal::Journal;
use crate::recorder::lines::Lines;
use crate::recorder::{proxy, raw};

/// The kubelet's own limit for this question.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

pub struct Options {
    pub listen: PathBuf,
    pub to: PathBuf,
    pub output: PathBuf,
    pub unknown: bool,
}

/// Records until SIGINT or SIGTERM.
pub async fn record(options: Options) -> anyhow::Result<()> {
    let Options { listen, to, output, unknown } = options;
    if listen == to {
        bail!("--listen and --to are the same socket: {}", to.display());
    }
    let target = target(&to).await?;
    let shown = output.display();
    // A recording may hold what was not known to be a secret.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&output);
    let file = file.with_context(|| format!("make {shown}"))?;
    let name = format!("{} {}", target.runtime_name, target.runtime_version);
    let header = Header {
        format: FORMAT.into(),
        version: VERSION,
        started: prost_types::Timestamp::from(SystemTime::now()).to_string(),
        recorder: format!("cri-daemon {}", env!("CARGO_PKG_VERSION")),
        target,
    };
    let (journal, writer) =
        Journal::begin(file, &output, header, Lines::new(unknown)).with_context(|| format!("write {shown}"))?;
    let listener = socket::bind(&listen, socket::Access::default())?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    eprintln!("Recording {} ({name}) into {shown}; clients connect to {}.", to.display(), listen.display());
    let shutdown = async {
        super::interrupted().await;
        // Who comes now finds nobody, instead of a recorder that is about to go.
        let _ = std::fs::remove_file(&listen);
    };
    proxy::serve(listener, to.clone(), journal, shutdown).await;
    let total = tokio::task::spawn_blocking(move || writer.join()).await.context("wait for the writer")?;
    let Ok(total) = total else { bail!("the writer of {shown} has ended before its time") };
    let dropped = total.dropped;
    match dropped.lines {
        0 => eprintln!("{shown}: {} calls.", total.calls),
        lines => eprintln!("{shown}: {} calls; {lines} lines with {} bytes are missing.", total.calls, dropped.bytes),
    }
    Ok(())
}

/// Who answers at a CRI socket, of either version of CRI.
pub async fn target(socket: &Path) -> anyhow::Result<Target> {
    let channel = transport::unix_now(socket).await.map_err(|e| anyhow::anyhow!("{e}; is this a CRI socket?"))?;
    let request = Bytes::from(VersionRequest { version: "0.1.0".into() }.encode_to_vec());
    let ask = |method| raw::call(channel.clone(), method, request.clone(), Some(VERSION_DEADLINE), |_| ());
    let mut answer = ask("/runtime.v1.RuntimeService/Version").await;
    if answer.status.as_ref().is_err_and(|status| status.code() == tonic::Code::Unimplemented) {
        answer = ask("/runtime.v1alpha2.RuntimeService/Version").await;
    }
    let named = || format!("ask {} for its version", socket.display());
    answer.status.map_err(shared_proto::Error::from).with_context(named)?;
    let answer = VersionResponse::decode(answer.messages.pop().unwrap_or_default()).with_context(named)?;
    Ok(Target {
        runtime_name: answer.runtime_name,
        runtime_version: answer.runtime_version,
        runtime_api_version: answer.runtime_api_version,
    })
}
