//! A containerd shim v2: one process a pod, which keeps its containers.
//!
//! The core runs this program as a command; the command leaves a server behind, which outlives the core:
//!
//! | call | what it does |
//! |---|---|
//! | `… start` | starts the server, or finds the one of the pod, and prints where it listens |
//! | `… delete` | cleans up after a server that is gone, and prints the exit that must be assumed |
//! | `… -info` | prints what this runtime can do |
//! | (none) | the server itself; its socket is its standard input |
//!
//! - [`args`], [`command`]: the calls above.
//! - [`serve`], [`service`]: the server's life, and its ttrpc methods: decode, one call, encode.
//! - [`task`]: containers and their processes, one file a group of methods.
//! - [`engine`], [`reaper`]: runc or crun as child processes, and everybody's exit.
//! - [`pause`]: a pod's own process, which needs no engine.
//! - [`io`]: standard streams: FIFOs that containers write to themselves, terminals, loggers.
//! - [`cgroup`]: members, statistics, freezing, out-of-memory events.
//! - [`events`], [`exits`]: what the core must hear, and what it can read when we are gone.
//!
//! The server has one thread. It answers many calls at a time, but none of them blocks: engines are child processes,
//! and the system calls that it makes itself are short.

#![forbid(unsafe_code)]

mod args;
mod cgroup;
mod command;
mod engine;
mod error;
mod events;
mod exits;
mod io;
mod log;
mod options;
mod pause;
mod reaper;
mod serve;
mod service;
mod spec;
mod task;

use std::process::ExitCode;

use args::{Action, Args};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    let done = match args.action {
        Action::Start => command::start(&args),
        Action::Delete => command::delete(&args),
        Action::Info => command::info(),
        Action::Version => {
            println!("{}: seam {}", env!("CARGO_BIN_NAME"), env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Serve => serve::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
