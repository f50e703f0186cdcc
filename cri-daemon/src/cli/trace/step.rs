//! `--step`: goes through a start with whoever sits before the terminal.
//!
//! The daemon stops the start before and after each request, call on the core and CNI plugin. At a stop this shows the
//! message that goes over, and what has come and gone on the machine since the last stop ([`changes`](super::changes)).
//! Enter goes on; the end of the input, or Ctrl-C, goes on to the end. Branches of a start that run side by side stop on their own:
//! while one waits the others go on to their next stop, which is shown then.
//!
//! Limits: the core's own calls on the shim are not stopped; what they did shows at the next stop. Times of such a start
//! hold the time that people took.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context as _;
use serde_json::Value;
use shared_config::Config;
use shared_proto::seam::v1::{GoOnRequest, Stop, WatchEvent, stage::Place};
use tonic::Streaming;

use super::super::client::{Client, said};
use super::super::interrupted;
use super::super::report::{bytes, short};
use super::changes::Machine;

/// Lines of a message that are shown.
const LINES: usize = 60;

/// Shows each stop and waits for Enter. Returns when the daemon stops.
pub async fn walk(client: &mut Client, events: &mut Streaming<WatchEvent>, config: &Config) -> anyhow::Result<()> {
    let mut seen = look(config).await?;
    let mut asks = true;
    let mut count = 0;
    while let Some(event) = events.message().await.map_err(shared_proto::Error::from)? {
        let Some(stop) = event.stop else { continue };
        count += 1;
        let now = look(config).await?;
        let text = format!("{}{}", render(count, &stop), changes(&now.since(&seen)));
        seen = now;
        say(&text)?;
        if asks {
            say("  Enter goes on ")?;
            asks = tokio::select! {
                more = enter() => more?,
                // Whoever gives up waits for no more.
                () = interrupted() => false,
            };
        }
        match said(client.starts.go_on(GoOnRequest { number: stop.number }).await) {
            // The request has been given up meanwhile.
            Err(e) if super::is_not_found(&e) => {}
            answer => drop(answer?),
        }
    }
    Ok(())
}

async fn look(config: &Config) -> anyhow::Result<Machine> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || Machine::look(&config)).await.context("look at the machine")?
}

/// Standard output is the drawing's.
fn say(text: &str) -> anyhow::Result<()> {
    let mut err = std::io::stderr().lock();
    err.write_all(text.as_bytes()).and_then(|()| err.flush()).context("write to standard error")
}

/// Waits for a line. Whether there may be another one.
async fn enter() -> anyhow::Result<bool> {
    let read = || std::io::stdin().read_line(&mut String::new());
    let read = tokio::task::spawn_blocking(read).await.context("wait for Enter")?;
    Ok(read.context("read standard input")? > 0)
}

fn render(count: usize, stop: &Stop) -> String {
    let request = format!("{} {}", stop.rpc, short(&stop.subject));
    let (from, to, what) = match &stop.stage {
        None => ("kubelet", "CRI", request.trim_end().to_owned()),
        Some(stage) => {
            let to = match stage.place() {
                Place::Seam => "core",
                Place::Cri | Place::Core | Place::CoreStep => "CNI plugin",
            };
            ("CRI", to, format!("{} {} in {}", stage.name, stage.detail, request.trim_end()))
        }
    };
    let arrow = if stop.done { format!("{from} ◀── {to}") } else { format!("{from} ──▶ {to}") };
    let size = stop.message.as_ref().map(|message| format!(" ({})", bytes(message.bytes))).unwrap_or_default();
    let words: Vec<&str> = what.split_whitespace().collect();
    let mut out = format!("\n── {count} ── {arrow}: {}{size}\n", words.join(" "));
    let text = stop.message.as_ref().map(|message| message.text.as_str()).unwrap_or_default();
    let text = serde_json::from_str::<Value>(text).map_or(text.to_owned(), |value| format!("{value:#}"));
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().take(LINES) {
        let _ = writeln!(out, "    {line}");
    }
    if lines.len() > LINES {
        let _ = writeln!(out, "    … and {} lines more; the drawing has them all", lines.len() - LINES);
    }
    out
}

fn changes(changes: &[String]) -> String {
    match changes {
        [] => "  nothing has come or gone on the machine since the last stop\n".into(),
        changes => {
            let lines = changes.iter().map(|change| format!("    {change}\n"));
            format!("  since the last stop:\n{}", lines.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use shared_proto::seam::v1::{Shown, Stage};

    use super::*;

    #[test]
    fn a_stop_says_where_it_is_and_what_goes_over() {
        let text = format!("[{}]", vec!["1"; 80].join(","));
        let message = Some(Shown { r#type: "json".into(), text, bytes: 2048 });
        let stage = Stage { place: Place::Seam.into(), name: "Tasks.create".into(), ..Default::default() };
        let mut stop = Stop { rpc: "StartContainer".into(), subject: "main".into(), message, ..Default::default() };
        assert!(render(1, &stop).starts_with("\n── 1 ── kubelet ──▶ CRI: StartContainer main (2.0 KiB)\n    [\n"));
        (stop.stage, stop.done) = (Some(stage), true);
        let out = render(2, &stop);
        assert!(out.starts_with("\n── 2 ── CRI ◀── core: Tasks.create in StartContainer main (2.0 KiB)\n"), "{out}");
        assert!(out.ends_with("    … and 22 lines more; the drawing has them all\n"), "{out}");
        assert!(changes(&[]).contains("nothing") && changes(&["+ mount /x".into()]).contains("    + mount /x\n"));
    }
}
