//! `cri-daemon load`: hands an image archive to the core, for the kubelet.
//!
//! The bytes go to the core's import by transfer, with its flow control; nothing is read that the core has no room
//! for. Then we wait until CRI has heard of the new images, so that who comes next finds them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use cri_daemon::NAMESPACE;
use cri_daemon::image::stream::Named;
use shared_config::Config;
use shared_proto::containerd::transfer::{TransferOptions, TransferRequest};
use shared_proto::containerd::transfer_types as t;
use shared_proto::cri::v1;
use shared_proto::{Context, Core, any, transport};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::client::{Client, said};

/// The longest message of bytes.
const CHUNK: usize = 512 << 10;
/// How long CRI may take to hear of an image.
const HEARD: Duration = Duration::from_secs(5);
/// How long the last reports may take after the transfer is over.
const REPORTS: Duration = Duration::from_secs(2);

/// Imports the archive at `path` and prints the names of its images.
pub async fn load(config: &Config, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let mut file = File::open(path).await.with_context(|| format!("open {shown}"))?;
    let channel = transport::unix_now(&config.grpc.address).await;
    let core = channel.map_err(|e| anyhow::anyhow!("{e}; is core-daemon running, and is this its socket?"))?;
    let core = Core::remote(core);
    let names = import(&core, config, &mut file).await.with_context(|| format!("load {shown}"))?;
    if names.is_empty() {
        println!("{shown}: no image in it has a name; its content is stored");
    }
    for name in &names {
        println!("loaded {name}");
    }
    wait_for_cri(&config.cri.address, &names).await;
    Ok(())
}

async fn import(core: &Core, config: &Config, file: &mut File) -> anyhow::Result<BTreeSet<String>> {
    let cx = Context::new(NAMESPACE);
    let (mut bytes, mut progress) =
        futures::try_join!(Named::open(core, &cx, "archive"), Named::open(core, &cx, "progress"))?;
    let source = t::ImageImportStream { stream: bytes.id.clone(), ..Default::default() };
    let unpack = t::UnpackConfiguration { platform: None, snapshotter: config.images.snapshotter.clone() };
    let destination = t::ImageStore { unpacks: vec![unpack], ..Default::default() };
    let transfer = core.transfer.transfer(
        &cx,
        TransferRequest {
            source: Some(any::pack(&source)),
            destination: Some(any::pack(&destination)),
            options: Some(TransferOptions { progress_stream: progress.id.clone() }),
        },
    );
    tokio::pin!(transfer);

    let mut names = BTreeSet::new();
    let mut note = |report: &prost_types::Any| -> anyhow::Result<()> {
        let report: t::Progress = any::unpack(report)?;
        if report.event == "saved" {
            names.insert(report.name);
        }
        Ok(())
    };
    {
        let send = send(&mut bytes, file);
        tokio::pin!(send);
        let (mut sending, mut reporting) = (true, true);
        loop {
            tokio::select! {
                done = &mut transfer => break done?,
                // The core has read enough, or failed and will say why: only our own trouble with the file ends this.
                sent = &mut send, if sending => {
                    sending = false;
                    sent?;
                }
                report = progress.next(), if reporting => match report {
                    Some(Ok(report)) => note(&report)?,
                    Some(Err(_)) | None => reporting = false,
                },
            }
        }
    }
    // Reports that were still under way.
    let rest = async {
        while let Some(Ok(report)) = progress.next().await {
            note(&report)?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(REPORTS, rest).await {
        Ok(read) => read?,
        Err(_) => tracing::debug!("the core left its reports open"),
    }
    Ok(names)
}

/// Sends the file as fast as the core gives credit, and then says that this was all.
async fn send(stream: &mut Named, file: &mut File) -> anyhow::Result<()> {
    let mut credit = 0;
    let mut chunk = vec![0; CHUNK];
    loop {
        while credit == 0 {
            let Some(Ok(update)) = stream.next().await else { return Ok(()) };
            let update: t::WindowUpdate = any::unpack(&update)?;
            credit += usize::try_from(update.update).unwrap_or_default();
        }
        let n = file.read(&mut chunk[..CHUNK.min(credit)]).await.context("read it")?;
        if n == 0 {
            stream.close();
            return Ok(());
        }
        credit -= n;
        let data = t::Data { data: chunk[..n].to_vec() };
        if stream.send(any::pack(&data)).await.is_err() {
            return Ok(());
        }
    }
}

/// Best effort: images can be loaded while CRI is down.
async fn wait_for_cri(address: &Path, names: &BTreeSet<String>) {
    let Ok(mut client) = Client::connect(address).await else { return };
    let known = async {
        for name in names {
            loop {
                let image = Some(v1::ImageSpec { image: name.clone(), ..Default::default() });
                let status = said(client.images.image_status(v1::ImageStatusRequest { image, verbose: false }).await);
                if status.is_ok_and(|status| status.image.is_some()) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    if tokio::time::timeout(HEARD, known).await.is_err() {
        eprintln!("cri-daemon: the images are stored, but CRI at {} does not show them yet", address.display());
    }
}
