//! The log of a shim: it writes to a FIFO in its bundle, we pass on its lines.
//!
//! The FIFO is opened for both directions, so that a shim never waits for a reader and we never see an end.

use std::path::Path;

use shared_sys::fifo;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// A line longer than this is passed on in pieces, bytes.
const MAX_LINE: usize = 16 << 10;

/// Reads a shim's log until it is dropped.
pub(super) struct ShimLog(tokio::task::AbortHandle);

impl Drop for ShimLog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ShimLog {
    /// Starts reading the FIFO at `path`. Must come before the shim is started: opening it would block the shim.
    pub fn open(path: &Path, id: &str) -> std::io::Result<Self> {
        let pipe = Receiver::from_file(fifo::open_both(path)?)?;
        Ok(Self(tokio::spawn(drain(pipe, id.to_owned())).abort_handle()))
    }
}

async fn drain(mut pipe: Receiver, id: String) {
    let mut buffer = Vec::new();
    loop {
        match pipe.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => {
                while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    line(&id, &buffer[..end]);
                    buffer.drain(..=end);
                }
                if buffer.len() > MAX_LINE {
                    line(&id, &buffer);
                    buffer.clear();
                }
            }
            Err(e) => {
                tracing::debug!(id, error = %e, "reading a shim's log");
                return;
            }
        }
    }
}

/// A line in logrus's format: its level decides ours. What a shim calls `info` is detail to the core.
fn line(id: &str, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    let level = line.split("level=").nth(1).and_then(|rest| rest.split(' ').next());
    match level {
        Some("error" | "fatal" | "panic" | "warning" | "warn") => tracing::warn!(target: "shim", id, "{line}"),
        _ => tracing::debug!(target: "shim", id, "{line}"),
    }
}
