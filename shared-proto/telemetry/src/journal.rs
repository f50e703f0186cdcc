//! Logs that journald reads from standard error. It adds the time itself, shows no colours, and takes the priority of
//! a line from its beginning: so `journalctl -p warning` finds warnings.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether journald reads it.
///
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

/// Puts the priority before each line of another format, as `sd-daemon(3)` says.
pub(crate) struct Prioritized<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(event.metadata().level()))?;
        self.0.format_event(cx, writer, event)
    }
}

/// The number of a level in syslog.
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
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

    /// What a subscriber writes, for the test.
    #[derive(Clone, Default)]
    struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_begin_with_their_priority() {
        let written = Written::default();
        let format = Prioritized(tracing_subscriber::fmt::format().with_ansi(false).without_time().with_target(false));
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .event_format(format)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!(id = 5, "i");
            tracing::debug!("d");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<3>ERROR e\n<4> WARN w\n<6> INFO i id=5\n<7>DEBUG d\n");
    }
}
