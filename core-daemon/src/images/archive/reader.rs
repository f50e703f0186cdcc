//! The bytes of a channel as a blocking reader.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Ends with the channel, with the first error in it, when told to stop, or when nothing comes for too long.
pub(super) struct ChannelReader {
    bytes: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    stop: CancellationToken,
    /// Zero = for ever.
    patience: Duration,
    runtime: Handle,
}

impl ChannelReader {
    pub fn new(bytes: mpsc::Receiver<io::Result<Bytes>>, stop: CancellationToken, patience: Duration) -> Self {
        Self { bytes, current: Bytes::new(), stop, patience, runtime: Handle::current() }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let patience = if self.patience.is_zero() { Duration::MAX } else { self.patience };
        tokio::select! {
            bytes = tokio::time::timeout(patience, self.bytes.recv()) => match bytes {
                Ok(bytes) => bytes.transpose(),
                Err(_) => {
                    let text = format!("no byte came for {} s", patience.as_secs_f32());
                    Err(io::Error::new(io::ErrorKind::TimedOut, text))
                }
            },
            () = self.stop.cancelled() => Err(io::Error::other("cancelled")),
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let runtime = self.runtime.clone();
            match runtime.block_on(self.next())? {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
