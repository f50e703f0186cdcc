//! Descriptors of any kind that an async task can wait for: terminals, eventfds, inotify.

use std::fs::File;
use std::io::{self, Read, Write};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor with async reading and writing.
pub struct Descriptor(AsyncFd<File>);

impl Descriptor {
    /// Makes it non-blocking. Must be called inside a runtime.
    pub fn new(file: File, interest: Interest) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&file, true)?;
        // SAFETY: the descriptor of a `File` is valid, always the same, and open as long as the `AsyncFd`, which owns
        // it and which nobody can take it out of.
        Ok(Self(unsafe { AsyncFd::register_with_interest(file, interest) }?))
    }

    pub fn get(&self) -> &File {
        self.0.get_ref()
    }

    /// Reads what is there, or waits.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |mut file| file.read(buffer)).await
    }

    /// Writes all, waiting for room.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.0.async_io(Interest::WRITABLE, |mut file| file.write(bytes)).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[tokio::test]
    async fn reads_and_writes_wait() {
        let (read, write) = io::pipe().unwrap();
        let descriptor = |pipe: OwnedFd, interest| Descriptor::new(File::from(pipe), interest).unwrap();
        let (read, write) = (descriptor(read.into(), Interest::READABLE), descriptor(write.into(), Interest::WRITABLE));
        // More than the pipe holds.
        let bytes = vec![7; 200_000];
        let reading = async {
            let (mut buffer, mut got) = ([0; 4096], 0);
            while got < 200_000 {
                got += read.read(&mut buffer).await.unwrap();
            }
            got
        };
        let (written, got) = tokio::join!(write.write_all(&bytes), reading);
        written.unwrap();
        assert_eq!(got, 200_000);
        drop(write);
        assert_eq!(read.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
