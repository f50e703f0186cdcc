//! A deliberate delay on the way to the core: what a report must find.
//!
//! A proxy between two Unix sockets that hands on whatever goes towards the core so much later. It does not slow down
//! what follows: bytes wait side by side. The tick of the clock behind it is a millisecond, which it may be late by.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The proxy. Dropping it ends it.
pub struct Delay(JoinHandle<()>);

impl Drop for Delay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Delay {
    /// Listens at `at`, in front of the core's socket.
    pub fn start(at: &Path, core: PathBuf, delay: Duration) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(at).with_context(|| format!("listen on {}", at.display()))?;
        Ok(Self(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let core = core.clone();
                tokio::spawn(async move {
                    // A core that is away shows as a closed connection, which is what it would be.
                    if let Ok(core) = UnixStream::connect(core).await {
                        pass(client, core, delay).await;
                    }
                });
            }
        })))
    }

    /// Puts itself in the place of a core's socket that is there already; the core keeps its own.
    pub fn in_front_of(socket: &Path, delay: Duration) -> anyhow::Result<Self> {
        let behind = socket.with_extension("behind");
        std::fs::rename(socket, &behind).with_context(|| format!("move {}", socket.display()))?;
        Self::start(socket, behind, delay)
    }
}

async fn pass(client: UnixStream, core: UnixStream, delay: Duration) {
    let ((mut from_client, mut to_client), (mut from_core, mut to_core)) = (client.into_split(), core.into_split());
    let (later, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reads = async move {
        let mut block = vec![0; 64 << 10];
        while let Ok(size @ 1..) = from_client.read(&mut block).await {
            if later.send((Instant::now() + delay, block[..size].to_vec())).is_err() {
                return;
            }
        }
    };
    let writes = async move {
        while let Some((when, block)) = due.recv().await {
            tokio::time::sleep_until(when).await;
            if to_core.write_all(&block).await.is_err() {
                return;
            }
        }
    };
    let back = async move {
        let _ = tokio::io::copy(&mut from_core, &mut to_client).await;
    };
    tokio::join!(reads, writes, back);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_to_the_core_is_late_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("core.sock");
        let core = UnixListener::bind(&socket).unwrap();
        let _delay = Delay::in_front_of(&socket, Duration::from_millis(50)).unwrap();
        let mut client = UnixStream::connect(&socket).await.unwrap();
        let (mut served, _) = core.accept().await.unwrap();
        let (mut byte, began) = ([0], Instant::now());
        client.write_all(&[7]).await.unwrap();
        served.read_exact(&mut byte).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50) && byte == [7]);
        let began = Instant::now();
        served.write_all(&[8]).await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(40) && byte == [8]);
    }
}
