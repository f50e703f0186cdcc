//! `cri-daemon`: see [`cli`].

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cri_daemon::logs::keeper::run_if_asked();
    match cli::run(cli::Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("cri-daemon: {e:#}");
            ExitCode::FAILURE
        }
    }
}
