//! `cri-daemon replay`: a recording, driven against an endpoint, and what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::bail;
use shared_proto::transport;

use super::record::target;
use crate::replay::auth::Auth;
use crate::replay::driver::play;
use crate::replay::facts::Facts;
use crate::replay::ids::Names;
use crate::replay::prepare::prepare;
use crate::replay::recording::Recording;
use crate::replay::report::Report;
use crate::replay::session::Session;

/// The exit status when answers differ without a known reason.
const DIFFERENT: u8 = 3;

pub struct Options {
    pub file: PathBuf,
    pub endpoint: PathBuf,
    pub speed: Option<f64>,
    pub maps: Vec<String>,
    pub auth: Option<PathBuf>,
    pub make_paths: bool,
    pub settle: Duration,
    pub json: bool,
}

/// `--speed`: a number above 0, or `max`, which is none.
pub fn speed(text: &str) -> Result<Speed, String> {
    match text.parse() {
        _ if text == "max" => Ok(Speed(None)),
        Ok(speed) if f64::is_finite(speed) && speed > 0.0 => Ok(Speed(Some(speed))),
        Ok(_) | Err(_) => Err("it must be a number above 0, or max".into()),
    }
}

/// How many times as fast as the recording.
#[derive(Debug, Clone, Copy)]
pub struct Speed(pub Option<f64>);

/// Replays, and prints what was found.
pub async fn replay(options: Options) -> anyhow::Result<ExitCode> {
    let recording = Recording::load(&options.file)?;
    if recording.calls.is_empty() {
        bail!("{} has no calls", options.file.display());
    }
    let endpoint = target(&options.endpoint).await?;
    let channel = transport::unix(&options.endpoint);
    let names = Names::new(&options.maps)?;
    let images = prepare(&recording, channel.clone(), &names, options.make_paths).await?;
    let session = Session {
        channel,
        names: Mutex::new(names),
        facts: Facts::of(&recording),
        auth: options.auth.as_deref().map(Auth::load).transpose()?.unwrap_or_default(),
        same_runtime: same(&recording, &endpoint),
        images,
        settle: options.settle,
        failed: Mutex::default(),
    };
    let started = Instant::now();
    let outcomes = play(Arc::new(session), Arc::new(recording.calls), options.speed).await;
    let report = Report {
        recorded: recording.header.target,
        endpoint,
        speed: options.speed,
        took: started.elapsed(),
        warnings: recording.warnings,
        outcomes,
    };
    match options.json {
        true => println!("{:#}", report.json()),
        false => print!("{}", report.text()),
    }
    Ok(if report.unexplained() > 0 { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS })
}

fn same(recording: &Recording, endpoint: &crate::recorder::format::Target) -> bool {
    let recorded = &recording.header.target;
    (&recorded.runtime_name, &recorded.runtime_version) == (&endpoint.runtime_name, &endpoint.runtime_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds() {
        assert_eq!([speed("max").unwrap().0, speed("0.5").unwrap().0], [None, Some(0.5)]);
        for wrong in ["0", "-1", "fast", "inf", "NaN", ""] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
    }
}
