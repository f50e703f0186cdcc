//! `cri-daemon trace`: the start of a pod as a sequence diagram: who asked whom for what, and when.
//!
//! What it draws is what `why` tells ([`sequence`]), as [`mermaid`], [`svg`] or [`text`]. Messages are kept only while
//! somebody watches the pod, so this command watches: a pod that it starts itself, or one that a kubelet starts. It can
//! go through that step by step ([`step`]), and show what each has changed ([`changes`]).

mod changes;
mod mermaid;
mod sequence;
mod step;
mod svg;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use shared_config::Config;
use shared_proto::seam::v1 as seam;
use tonic::Streaming;

use super::client::{Client, said};
use super::{check, interrupted, run};
use sequence::Sequence;

/// Between two looks at a start that is waited for.
const PERIOD: Duration = Duration::from_millis(200);
/// A start is over when nothing has been asked for its pod for so long.
const QUIET: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct Options {
    /// An id or the beginning of one, NAMESPACE/NAME or NAME
    #[arg(value_name = "POD", required_unless_present = "manifest")]
    pod: Option<String>,
    /// Start the pod of this manifest, as `run --detach` does, and draw that
    #[arg(long, value_name = "POD.yaml", conflicts_with = "pod")]
    manifest: Option<PathBuf>,
    /// Remove the pod of the manifest again
    #[arg(long, requires = "manifest")]
    rm: bool,
    /// Wait for the next start of POD, which is NAMESPACE/NAME or NAME, and draw that; Ctrl-C ends the wait
    #[arg(long, conflicts_with = "manifest")]
    wait: bool,
    /// Stop the start before and after each request, call on the core and CNI plugin, and show what goes over and what
    /// has changed on the machine; Enter goes on
    #[arg(long)]
    step: bool,
    /// What to draw [default: what the ending of FILE says (.svg, .mmd, .md), otherwise text]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// Every message in full
    Text,
    /// A Mermaid sequenceDiagram
    Mermaid,
    /// An image that needs nothing else
    Svg,
}

/// Draws what was asked for. A start that failed is drawn as well; then its error ends the command.
pub async fn trace(config: &Config, options: &Options) -> anyhow::Result<ExitCode> {
    let is_to_come = options.manifest.is_some() || options.wait;
    anyhow::ensure!(is_to_come || !options.step, "--step is for a start that is to come: add --manifest or --wait");
    let address = &config.cri.address;
    let mut client = Client::connect(address).await?;
    let (pod, started) = match (&options.manifest, options.pod.as_deref().unwrap_or_default()) {
        (Some(manifest), _) => {
            let metadata = check::load(manifest)?.metadata;
            let pod = format!("{}/{}", metadata.namespace, metadata.name);
            let watched = watch(&mut client, &pod, options.step).await?;
            let (manifest, rm) = (manifest.clone(), options.rm);
            let run = run::Options { manifest, rm, detach: true, report: false, quiet: true };
            (pod, accompanied(&client, watched, config, options.step, run::run(address, &config.root, &run)).await)
        }
        (None, pod) if options.wait => {
            let watched = watch(&mut client, pod, options.step).await?;
            eprintln!("waiting for a start of {pod}");
            let mut asking = client.clone();
            let over = async {
                tokio::select! {
                    over = start_is_over(&mut asking, pod) => over?,
                    () = interrupted() => {}
                }
                Ok(ExitCode::SUCCESS)
            };
            (pod.to_owned(), accompanied(&client, watched, config, options.step, over).await)
        }
        (None, pod) => (pod.to_owned(), Ok(ExitCode::SUCCESS)),
    };
    // Whoever has seen it step by step may do without.
    let drawn = match options.step && options.format.is_none() && options.output.is_none() {
        true => Ok(()),
        false => draw(&mut client, &pod, options).await,
    };
    // Why there is nothing to draw matters less than why the pod did not start.
    let code = started?;
    drawn?;
    Ok(code)
}

/// Waits for a start that is watched, and goes through its stops, if it has any.
async fn accompanied<T>(
    client: &Client,
    mut watched: Streaming<seam::WatchEvent>,
    config: &Config,
    step: bool,
    start: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::pin!(start);
    if step {
        let mut client = client.clone();
        tokio::select! {
            done = &mut start => return done,
            walked = step::walk(&mut client, &mut watched, config) => walked?,
        }
    }
    // The daemon stops; the start knows best what came of it.
    start.await
}

async fn draw(client: &mut Client, pod: &str, options: &Options) -> anyhow::Result<()> {
    let told = said(client.starts.explain(seam::ExplainRequest { pod: pod.to_owned() }).await)?;
    let sequence = Sequence::of(&told);
    let drawn = match options.format() {
        Format::Text => text::render(&sequence),
        Format::Mermaid => mermaid::render(&sequence),
        Format::Svg => svg::render(&sequence),
    };
    match &options.output {
        Some(path) => std::fs::write(path, drawn).with_context(|| format!("write {}", path.display())),
        None => {
            print!("{drawn}");
            Ok(())
        }
    }
}

impl Options {
    fn format(&self) -> Format {
        let ending = self.output.as_deref().and_then(Path::extension).and_then(|ending| ending.to_str());
        match (self.format, ending) {
            (Some(format), _) => format,
            (None, Some("svg")) => Format::Svg,
            (None, Some("mmd" | "md")) => Format::Mermaid,
            (None, Some(_) | None) => Format::Text,
        }
    }
}

/// Watches the pod for as long as the answer lives. It has begun when this returns.
async fn watch(client: &mut Client, pod: &str, step: bool) -> anyhow::Result<Streaming<seam::WatchEvent>> {
    let mut events = said(client.starts.watch(seam::WatchRequest { pod: pod.to_owned(), step }).await)?;
    let begun = events.message().await.map_err(shared_proto::Error::from)?;
    begun.context("the daemon stops")?;
    Ok(events)
}

/// Returns when a start of the pod, which has not begun yet, is over.
async fn start_is_over(client: &mut Client, pod: &str) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        tokio::time::sleep(PERIOD).await;
        let told = match said(client.starts.explain(seam::ExplainRequest { pod: pod.to_owned() }).await) {
            Ok(told) => told,
            // It is not there yet.
            Err(e) if is_not_found(&e) => continue,
            Err(e) => return Err(e),
        };
        if is_over(&told.requests, since.elapsed()) {
            return Ok(());
        }
    }
}

/// Whether the pod's first request came within the time that was waited, and all that was asked for it is answered.
fn is_over(requests: &[seam::Request], waited: Duration) -> bool {
    let ago = Duration::from_micros;
    let is_new = requests.first().is_some_and(|first| ago(first.age_us) < waited);
    is_new && requests.iter().all(|request| !request.running && ago(request.age_us.saturating_sub(request.us)) > QUIET)
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<shared_proto::Error>().is_some_and(shared_proto::Error::is_not_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_from_the_file() {
        let format = |format: Option<Format>, output: Option<&str>| {
            let output = output.map(PathBuf::from);
            Options { pod: None, manifest: None, rm: false, wait: false, step: false, format, output }.format()
        };
        assert_eq!(format(None, None), Format::Text);
        assert_eq!(
            [Some("a.svg"), Some("a.mmd"), Some("a")].map(|o| format(None, o)),
            [Format::Svg, Format::Mermaid, Format::Text]
        );
        assert_eq!(format(Some(Format::Mermaid), Some("a.svg")), Format::Mermaid);
    }

    #[test]
    fn a_start_is_over_when_it_has_been_quiet() {
        let request = |age_ms: u64, ms: u64, running: bool| seam::Request {
            age_us: age_ms * 1000,
            us: ms * 1000,
            running,
            ..Default::default()
        };
        let over = |requests: &[seam::Request]| is_over(requests, Duration::from_secs(10));
        assert!(!over(&[]));
        assert!(!over(&[request(20_000, 100, false)]), "it began before");
        assert!(!over(&[request(5_000, 100, false), request(3_050, 100, false)]));
        assert!(!over(&[request(9_000, 9_000, true)]));
        assert!(over(&[request(9_000, 100, false), request(4_000, 900, false)]));
    }
}
