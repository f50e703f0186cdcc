//! `cri-daemon`: see [`cli`].

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::run(cli::Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("cri-daemon: {e:#}");
            ExitCode::FAILURE
        }
    }
}
