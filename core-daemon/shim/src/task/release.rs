//! Lets the first process of a container go, without running the engine once more: a few system calls instead of a
//! process.
//!
//! The process waits at a FIFO in the engine's folder. With runc it waits to write, and `runc start` reads; with crun
//! it waits to read, and `crun start` writes. Either then removes the FIFO, which is how the engine knows a container
//! that was started. Which engine it was is told by the file in which it keeps its state; where neither is there, or
//! hooks are to be run, the engine does it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use shared_sys::descriptor::Descriptor;
use shared_sys::fifo;
use tokio::io::Interest;

use crate::error::Error;

/// `None`: that is for the engine to do. `ended` is ready when the process has ended.
pub async fn release(folder: &Path, ended: impl Future) -> Option<Result<(), Error>> {
    let path = folder.join("exec.fifo");
    if !fifo::is_fifo(&path) {
        return None;
    }
    let released = if folder.join("state.json").exists() {
        runc(&path, ended).await
    } else if folder.join("status").exists() {
        crun(&path)
    } else {
        return None;
    };
    match released {
        Ok(true) => Some(Ok(())),
        Ok(false) => None,
        Err(e) => Some(Err(Error::io("let the first process go at", path)(e))),
    }
}

/// The process opens the FIFO to write, and the first byte says that it goes.
async fn runc(path: &Path, ended: impl Future) -> io::Result<bool> {
    let pipe = Descriptor::new(fifo::open_read(path)?, Interest::READABLE)?;
    let mut byte = [0];
    let read = tokio::select! {
        read = pipe.read(&mut byte) => read?,
        _ = ended => 0,
    };
    if read == 0 {
        return Err(io::Error::other("the process has ended"));
    }
    fs::remove_file(path)?;
    Ok(true)
}

/// The process has the FIFO open to read; without it there is nobody to tell.
fn crun(path: &Path) -> io::Result<bool> {
    let Ok(mut pipe) = fifo::open_write(path) else { return Ok(false) };
    fs::remove_file(path)?;
    pipe.write_all(&[0])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn folder(state: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fifo::make(&dir.path().join("exec.fifo"), 0o600).unwrap();
        fs::write(dir.path().join(state), "{}").unwrap();
        dir
    }

    #[tokio::test]
    async fn a_process_of_runc_goes_when_it_has_written() {
        let dir = folder("state.json");
        let path = dir.path().join("exec.fifo");
        let init = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let mut pipe = fs::OpenOptions::new().write(true).open(path).unwrap();
            pipe.write_all(b"0").unwrap();
        });
        release(dir.path(), std::future::pending::<()>()).await.unwrap().unwrap();
        init.join().unwrap();
        assert!(!dir.path().join("exec.fifo").exists());
    }

    #[tokio::test]
    async fn a_process_of_crun_goes_when_it_has_read() {
        let dir = folder("status");
        assert!(release(dir.path(), std::future::pending::<()>()).await.is_none(), "nobody waits");
        let mut init = fifo::open_read(&dir.path().join("exec.fifo")).unwrap();
        release(dir.path(), std::future::pending::<()>()).await.unwrap().unwrap();
        let mut byte = [1];
        assert_eq!((init.read(&mut byte).unwrap(), byte), (1, [0]));
        assert!(!dir.path().join("exec.fifo").exists());
    }

    #[tokio::test]
    async fn a_process_that_has_ended_is_not_waited_for() {
        let dir = folder("state.json");
        let e = release(dir.path(), std::future::ready(())).await.unwrap().unwrap_err();
        assert!(e.to_string().contains("has ended"), "{e}");
        let other = folder("something else");
        assert!(release(other.path(), std::future::pending::<()>()).await.is_none());
    }
}
