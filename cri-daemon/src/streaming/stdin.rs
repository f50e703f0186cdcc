//! What a client types, on its way into the FIFO of a process.
//!
//! A shim opens its end of that FIFO beside the start of the process, which may be later than the start is answered.
//! Who writes before that gets EPIPE, and a FIFO that was closed before that never ends for the shim. So whoever has
//! something to say waits for the shim first, holding a writing end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;

use super::channel::Source;

/// How long a shim may take to open its end.
const OPENED: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What became of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The client has said that this is all.
    Ended,
    /// Nobody reads it any more, or ever has.
    Unread,
}

/// Writes what comes from the client into the FIFO at `path`, of which `pipe` is a writing end, until there is no more.
pub async fn carry_in(mut source: Source, mut pipe: pipe::Sender, path: &Path) -> Input {
    if !opened(path).await {
        return Input::Unread;
    }
    while let Some(data) = source.next().await {
        if pipe.write_all(&data).await.is_err() {
            return Input::Unread;
        }
    }
    Input::Ended
}

/// Whether somebody reads from the FIFO, in time.
async fn opened(path: &Path) -> bool {
    let waiting = async {
        let mut pause = Duration::from_millis(1);
        while !has_reader(path.to_owned()).await {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::time::timeout(OPENED, waiting).await.is_ok()
}

async fn has_reader(path: PathBuf) -> bool {
    shared_sys::blocking(move || shared_sys::fifo::has_reader(&path)).await
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytes::Bytes;
    use shared_sys::fifo;

    use super::super::channel::{QUEUE, incoming};
    use super::*;

    #[tokio::test]
    async fn a_reader_that_comes_late_misses_nothing_and_sees_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdin");
        fifo::make(&path, 0o600).unwrap();
        let held = fifo::open_both(&path).unwrap();
        let sender = pipe::Sender::from_file(fifo::open_write(&path).unwrap()).unwrap();
        drop(held);
        let (out, _queue) = tokio::sync::mpsc::channel(QUEUE);
        let (inbox, source) = incoming(0, out);
        assert!(inbox.push(&Bytes::from_static(b"typed early")));
        inbox.end();
        let to = path.clone();
        let carried = tokio::spawn(async move { carry_in(source, sender, &to).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!carried.is_finished(), "it waits");
        let text = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            std::fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(text.await.unwrap(), "typed early");
        assert_eq!(carried.await.unwrap(), Input::Ended);
    }

    #[tokio::test]
    async fn a_reader_that_goes_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdin");
        fifo::make(&path, 0o600).unwrap();
        let reader = fifo::open_read(&path).unwrap();
        let sender = pipe::Sender::from_file(fifo::open_write(&path).unwrap()).unwrap();
        let (out, _queue) = tokio::sync::mpsc::channel(QUEUE);
        let (inbox, source) = incoming(0, out);
        let carried = tokio::spawn(async move { carry_in(source, sender, &path).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(reader);
        assert!(inbox.push(b"x"));
        assert_eq!(carried.await.unwrap(), Input::Unread);
    }
}
