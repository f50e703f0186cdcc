//! `cri-daemon`: see [`cli`]. [`recorder`] and [`replay`] are commands that need more than a file.

#![forbid(unsafe_code)]

mod cli;
mod recorder;
mod replay;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cri_daemon::logs::keeper::run_if_asked();
    match cli::run(cli::Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("cri-daemon: {}", sentence(&e));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes; those that the error's own text ends with already are left out.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.ends_with(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}
