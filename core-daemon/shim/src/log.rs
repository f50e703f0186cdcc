//! The shim's log: lines on standard error, which is the bundle's `log` FIFO, in the format of containerd's own shims.
//!
//! The FIFO is non-blocking: while nobody reads it, lines beyond what it holds are dropped. Nothing waits for a log.

use std::fmt::Display;
use std::io::Write;

/// Something failed, and nobody else is told.
pub fn warn(message: impl Display) {
    line("warning", &message.to_string());
}

/// Worth knowing when somebody looks for a cause.
pub fn info(message: impl Display) {
    line("info", &message.to_string());
}

fn line(level: &str, message: &str) {
    let line = format!("level={level} msg={message:?}\n");
    // Full, or gone: see above.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
