//! Whether what we write to standard error goes to journald, which adds the time itself and shows no colours.

use std::os::unix::fs::MetadataExt as _;

/// systemd names device and inode of the stream that it has made: a variable that was inherited while standard error
/// goes elsewhere means nothing.
pub(crate) fn reads_stderr() -> bool {
    let Some(named) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    // Follows the link to the socket, pipe or file itself.
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|meta| is(&named, meta.dev(), meta.ino()))
}

fn is(named: &str, device: u64, inode: u64) -> bool {
    let numbers = named.split_once(':').map(|(device, inode)| (device.parse(), inode.parse()));
    numbers == Some((Ok(device), Ok(inode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_stream_is_the_journal() {
        assert!(is("8:1234", 8, 1234));
        for named in ["8:1235", "9:1234", "8", "", "8:", "a:b", "8:1234:5"] {
            assert!(!is(named, 8, 1234), "{named}");
        }
    }
}
