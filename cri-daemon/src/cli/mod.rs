//! The commands of `cri-daemon`: the daemon itself, and small clients of it.
//!
//! - [`daemon`]: no command: the kubelet's side of the wiring `split`.
//! - [`run`]: a Pod manifest without a kubelet: read ([`manifest`], [`check`], [`quantity`]), translated ([`pod`],
//!   [`parts`]), prepared ([`prepare`]), followed ([`follow`]).
//! - [`rm`], [`load`], [`report`]: removing pods, importing images, what the seam has cost.
//! - [`bill`]: what core, CRI side and shims cost each pod.
//! - [`why`]: what a pod's start was made of, or waits for: told in a table and one sentence ([`why::longest`]).
//! - [`trace`]: the same as a sequence diagram, with the messages where the start was watched. [`nesting`]: what is a
//!   part of what.
//! - [`record`], [`replay`]: the flight recorder; see [`crate::recorder`] and [`crate::replay`].

mod bill;
mod check;
mod client;
mod daemon;
mod follow;
mod load;
mod manifest;
mod nesting;
mod parts;
mod pod;
mod prepare;
mod quantity;
mod record;
mod replay;
mod report;
mod rm;
mod run;
mod trace;
mod why;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shared_config::Config;
use tokio::signal::unix::{SignalKind, signal};

/// The file that is read when none is named, if it is there.
const DEFAULT_CONFIG: &str = "/etc/core-daemon/config.toml";

/// The kubelet's side of a container runtime: serves CRI, and asks core-daemon to do the work.
///
/// Without a command it serves the kubelet until it is told to stop. Wanted only where `[cri] wiring` is "split"; in
/// the other wirings core-daemon serves CRI by itself. The commands below are clients, and work in every wiring.
#[derive(Parser)]
#[command(name = "cri-daemon", version, max_term_width = 100)]
pub struct Args {
    /// Configuration file, the same as core-daemon's [default: /etc/core-daemon/config.toml, if it exists]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// CRI socket to serve on, or to connect to, instead of the configuration's
    #[arg(short, long, value_name = "SOCKET", global = true)]
    address: Option<PathBuf>,
    /// What the daemon logs: trace, debug, info, warn or error
    #[arg(short, long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a Kubernetes Pod manifest without a kubelet
    ///
    /// Pulls what is missing, starts the pod, prints its id, its address and what its containers write, and ends when
    /// they have ended, with the exit status of the first that failed. A manifest may use: metadata, containers with
    /// image, command, args, env, ports, resources, volumeMounts and securityContext, volumes of the kinds hostPath and
    /// emptyDir, the pod's securityContext, and restartPolicy Never. Anything else is refused by its name.
    Run {
        /// The manifest, in YAML
        #[arg(value_name = "POD.yaml")]
        manifest: PathBuf,
        /// Remove the pod in the end, also after Ctrl-C
        #[arg(long)]
        rm: bool,
        /// Return when everything is started
        #[arg(long)]
        detach: bool,
        /// Print how long each stage of the start took, and what the seam has cost
        #[arg(long, alias = "timeline")]
        report: bool,
    },
    /// Stop and remove pods
    Rm {
        /// The beginning of an id, NAME or NAMESPACE/NAME
        #[arg(value_name = "POD", required_unless_present = "all")]
        pods: Vec<String>,
        /// Every pod on this node
        #[arg(long, conflicts_with = "pods")]
        all: bool,
    },
    /// Say why a pod's start takes, or took, so long
    ///
    /// Prints what the starts of the pod and its containers were made of (queue, image, snapshot, each CNI plugin,
    /// shim, runtime, database, each call on the core) and one sentence that names the longest of it, or what it waits
    /// for right now. Knows the last 256 pods, those that failed or were removed among them.
    Why {
        /// An id or the beginning of one, NAMESPACE/NAME or NAME
        #[arg(value_name = "POD")]
        pod: String,
    },
    /// Draw the start of a pod as a sequence diagram: who asked whom for what, when
    ///
    /// Of a pod that is known to `why` it draws the calls with their times. The messages are there if the start was
    /// watched: run the pod with --manifest, or --wait for the next start by a kubelet. Values of environment variables
    /// and credentials are left out.
    Trace(trace::Options),
    /// Charge what the runtime itself costs to the pods
    ///
    /// Memory, CPU time since the start, threads and descriptors of core, CRI side and shims: a pod pays for its shim
    /// alone, and for an equal part of the daemons. The most expensive pod comes first. Needs root.
    Bill {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Import an OCI or Docker image archive for the kubelet
    Load {
        /// The archive, as written by `docker save`, `skopeo copy` or `ctr images export`
        #[arg(value_name = "IMAGE.tar")]
        archive: PathBuf,
    },
    /// Print what has crossed the seam between CRI and core: calls, bytes and time by service
    Seam,
    /// Stand between a kubelet and a CRI socket, and write down every call
    ///
    /// Passes on whatever comes, of CRI v1 and v1alpha2, and writes one line of JSON for each call, with its times and
    /// without secrets. Works with any container runtime. Goes on until SIGINT or SIGTERM.
    Record {
        /// The socket that clients connect to
        #[arg(long, value_name = "SOCKET")]
        listen: PathBuf,
        /// The container runtime's CRI socket
        #[arg(long, value_name = "SOCKET")]
        to: PathBuf,
        /// The recording, which must not exist yet
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// Keep messages that this version can't read, as base64; secrets within them are kept as well
        #[arg(long)]
        unknown: bool,
    },
    /// Drive a CRI endpoint with a recording, and compare its answers and times
    ///
    /// Keeps the order of the recording, and what goes on side by side in it. Prints each difference, the known ones
    /// with their reasons, and a table of times. Exit status: 0, 3 for differences without a known reason, 1 if it can't
    /// be replayed.
    Replay {
        /// A recording of `cri-daemon record`
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The CRI socket of the runtime that is to answer
        #[arg(long, value_name = "SOCKET")]
        endpoint: PathBuf,
        /// How many times as fast as in the recording: a number, or max for as fast as the order allows
        #[arg(long, value_name = "N", default_value = "1", value_parser = replay::speed)]
        speed: replay::Speed,
        /// Replace the beginning of paths on the node; may be given several times
        #[arg(long = "map", value_name = "OLD=NEW")]
        maps: Vec<String>,
        /// Credentials of registries, as `docker login` keeps them in config.json
        #[arg(long, value_name = "FILE")]
        auth: Option<PathBuf>,
        /// Make empty what containers mount and is not there
        #[arg(long)]
        make_paths: bool,
        /// How long a question is asked again whose answer differs, in seconds
        #[arg(long, value_name = "SECONDS", default_value = "5")]
        settle: f32,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Does what was asked for.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (config, warnings) = configuration(&args)?;
    let Some(command) = args.command else {
        let named = args.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
        return daemon::run(config, &named, &warnings).map(|()| ExitCode::SUCCESS);
    };
    let runtime = match &command {
        // The clock of a call must not wait for the comparison of another.
        Command::Replay { .. } => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let runtime = runtime.context("start")?;
    let outcome = runtime.block_on(client(config, command));
    // A file that is being read must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn client(config: Config, command: Command) -> anyhow::Result<ExitCode> {
    let (address, root) = (&config.cri.address, &config.root);
    match command {
        Command::Run { manifest, rm, detach, report } => {
            run::run(address, root, &run::Options { manifest, rm, detach, report, quiet: false }).await
        }
        Command::Rm { pods, all } => rm::rm(address, root, &pods, all).await.map(|()| ExitCode::SUCCESS),
        Command::Why { pod } => why::why(address, &pod).await.map(|()| ExitCode::SUCCESS),
        Command::Trace(options) => trace::trace(&config, &options).await,
        Command::Bill { json } => bill::bill(&config, json).await.map(|()| ExitCode::SUCCESS),
        Command::Load { archive } => load::load(&config, &archive).await.map(|()| ExitCode::SUCCESS),
        Command::Record { listen, to, output, unknown } => {
            record::record(record::Options { listen, to, output, unknown }).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Replay { file, endpoint, speed, maps, auth, make_paths, settle, json } => {
            let settle = std::time::Duration::try_from_secs_f32(settle).context("--settle")?;
            let speed = speed.0;
            replay::replay(replay::Options { file, endpoint, speed, maps, auth, make_paths, settle, json }).await
        }
        Command::Seam => report::seam(address).await.map(|()| ExitCode::SUCCESS),
    }
}

fn configuration(args: &Args) -> anyhow::Result<(Config, Vec<shared_config::Warning>)> {
    let fallback = Path::new(DEFAULT_CONFIG);
    let file = args.config.as_deref().or_else(|| fallback.exists().then_some(fallback));
    let (mut config, warnings) = match file {
        Some(file) => shared_config::load(file).context("configuration")?,
        None => (Config::default(), Vec::new()),
    };
    if let Some(address) = &args.address {
        config.cri.address.clone_from(address);
    }
    if let Some(level) = &args.log_level {
        config.log.level.clone_from(level);
    }
    Ok((config, warnings))
}

/// Returns at SIGINT or SIGTERM.
async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        // Then the signals have their usual effect.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}
