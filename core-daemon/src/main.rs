//! `core-daemon`: the arguments, then [`core_daemon::app`].

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shared_config::Config;

/// The file that is read when none is named, if it is there.
const DEFAULT_CONFIG: &str = "/etc/core-daemon/config.toml";

/// Container images, snapshots, tasks and events behind the containerd API.
///
/// Serves ctr, Docker Engine and the CRI side on one Unix socket. With `[cri] wiring = "merged"` or "loopback" in the
/// configuration it serves a kubelet as well.
#[derive(Parser)]
#[command(name = "core-daemon", version, max_term_width = 100)]
struct Args {
    /// Configuration file [default: /etc/core-daemon/config.toml, if it exists]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Folder for persistent data, instead of the configuration's
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Folder for data that a reboot may lose, instead of the configuration's
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// Unix socket to serve on, instead of the configuration's
    #[arg(short, long, value_name = "SOCKET", global = true)]
    address: Option<PathBuf>,
    /// What to log: trace, debug, info, warn or error
    #[arg(short, long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print a configuration
    Config {
        #[command(subcommand)]
        which: Which,
    },
    /// Hand an event, read from standard input, to the core (for shims)
    Publish {
        #[arg(long)]
        topic: String,
        #[arg(long)]
        namespace: String,
    },
    /// Run a program as an OCI hook, with facts about the container in place of templates such as {{pid}}
    OciHook {
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
}

#[derive(Subcommand)]
enum Which {
    /// The built-in defaults
    Default,
    /// What the given file and options amount to
    Dump,
}

fn main() -> ExitCode {
    #[cfg(feature = "merged")]
    cri_daemon::logs::keeper::run_if_asked();
    shared_sys::memory::set_up();
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("core-daemon: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match &args.command {
        None => {
            let (config, warnings) = configuration(&args)?;
            core_daemon::app::run(config, &warnings)
        }
        Some(Command::Config { which: Which::Default }) => {
            print!("{}", shared_config::render(&Config::default()));
            Ok(())
        }
        Some(Command::Config { which: Which::Dump }) => {
            let (config, warnings) = configuration(&args)?;
            warnings.iter().for_each(|w| eprintln!("core-daemon: warning: {w}"));
            print!("{}", shared_config::render(&config));
            Ok(())
        }
        Some(Command::Publish { topic, namespace }) => {
            core_daemon::app::publish(&configuration(&args)?.0, topic, namespace)
        }
        Some(Command::OciHook { program }) => core_daemon::oci_hook::run(program),
    }
}

fn configuration(args: &Args) -> anyhow::Result<(Config, Vec<shared_config::Warning>)> {
    let fallback = Path::new(DEFAULT_CONFIG);
    let file = args.config.as_deref().or_else(|| fallback.exists().then_some(fallback));
    let (mut config, warnings) = match file {
        Some(file) => shared_config::load(file).context("configuration")?,
        None => (Config::default(), Vec::new()),
    };
    if let Some(root) = &args.root {
        config.root.clone_from(root);
    }
    if let Some(state) = &args.state {
        config.state.clone_from(state);
    }
    if let Some(address) = &args.address {
        config.grpc.address.clone_from(address);
    }
    if let Some(level) = &args.log_level {
        config.log.level.clone_from(level);
    }
    Ok((config, warnings))
}
