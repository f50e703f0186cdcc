//! Loggers: programs of others that take a container's output (`binary://`), as containerd's runc shim runs them.
//!
//! The logger reads stdout from descriptor 3 and stderr from 4, and closes 5 when it is ready. The words of the address's
//! query are its arguments; `CONTAINER_ID` and `CONTAINER_NAMESPACE` are in its environment.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fd::OwnedFd;
use tokio::net::unix::pipe::Receiver;

use super::{Output, Owner};
use crate::error::Error;

/// How long a logger may take until it is ready.
const READY: Duration = Duration::from_secs(10);

/// Starts the logger of `address` (without its scheme). Answers where stdout and stderr of the container go.
pub async fn start(address: &str, owner: &Owner) -> Result<(Output, Output), Error> {
    let (program, query) = address.split_once('?').unwrap_or((address, ""));
    let failed = |reason: String| Error::Logger { binary: program.to_owned(), reason };
    if !program.starts_with('/') && program.contains('/') {
        return Err(failed("neither an absolute path nor a name in PATH".into()));
    }
    let pipe = || std::io::pipe().map_err(|e| failed(format!("make a pipe: {e}")));
    let ((out_read, out_write), (err_read, err_write), (ready, ready_write)) = (pipe()?, pipe()?, pipe()?);
    let mut command = Command::new(program);
    command.args(arguments(query)).env("CONTAINER_ID", &owner.id).env("CONTAINER_NAMESPACE", &owner.namespace);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let copy = |pipe: &std::io::PipeReader| pipe.try_clone().map_err(|e| failed(format!("copy a pipe: {e}")));
    let passed = vec![copy(&out_read)?.into(), copy(&err_read)?.into(), ready_write.into()];
    shared_sys::process::pass(&mut command, passed);
    // The reaper takes its exit like any stranger's.
    command.spawn().map_err(|source| Error::Spawn { binary: program.to_owned(), source })?;
    drop(command);
    let mut ready = wait(ready).map_err(|e| failed(format!("watch a pipe: {e}")))?;
    let mut byte = [0];
    let closed = tokio::io::AsyncReadExt::read(&mut ready, &mut byte);
    match tokio::time::timeout(READY, closed).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => return Err(failed(format!("wait until it is ready: {e}"))),
        Err(_) => return Err(failed(format!("not ready within {READY:?}"))),
    }
    // Reading ends are kept: a logger that dies must not kill the container.
    let output = |write: std::io::PipeWriter, held: std::io::PipeReader| Output {
        write: OwnedFd::from(write),
        held: Some(OwnedFd::from(held)),
    };
    Ok((output(out_write, out_read), output(err_write, err_read)))
}

fn wait(pipe: impl Read + Into<OwnedFd>) -> std::io::Result<Receiver> {
    let file = std::fs::File::from(pipe.into());
    rustix::io::ioctl_fionbio(&file, true)?;
    Receiver::from_file(file)
}

/// `a=1&b` becomes `a`, `1`, `b`.
fn arguments(query: &str) -> Vec<String> {
    let words = query.split('&').filter(|pair| !pair.is_empty()).flat_map(|pair| match pair.split_once('=') {
        Some((key, value)) => vec![decode(key), decode(value)],
        None => vec![decode(pair)],
    });
    words.filter(|word| !word.is_empty()).collect()
}

/// Percent signs and plus signs of a query.
fn decode(word: &str) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|text| u8::from_str_radix(text, 16).ok());
        match (first, after.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_becomes_arguments() {
        assert_eq!(arguments("id=a%20b&flag&x=%2Ftmp+1&y="), ["id", "a b", "flag", "x", "/tmp 1", "y"]);
        assert_eq!(arguments(""), Vec::<String>::new());
        assert_eq!(arguments("a=100%"), ["a", "100%"]);
    }
}
