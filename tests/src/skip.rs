//! Tests that a machine can't run: said aloud, and counted by `make test`.

use std::io::Write as _;

/// Says that the running test is left out, and why. `make test` counts it as skipped, not as passed.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped test {} ({reason})\n", thread.name().unwrap_or("?"));
    // Not `eprint!`, which the test harness keeps to itself. Nothing is lost if it can't be written.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}
