//! The single calls' three wirings: a core in memory behind plain calls, behind a pipe, and in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shared_proto::core::Core;
use shared_proto::fake::FakeCore;
use shared_proto::transport;

use crate::fill;

/// `fake-core` as the other process of `split`. It ends when its standard input is closed.
pub struct Other {
    child: Child,
    // Dropped last: removes the folder with the socket.
    dir: tempfile::TempDir,
}

impl Other {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder for a socket");
        let path = dir.path().join("core.sock");
        let program = e2e::daemon::binary("fake-core");
        let child = Command::new(program).arg(&path).stdin(Stdio::piped()).spawn().expect("start fake-core");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !path.exists() {
            assert!(Instant::now() < deadline, "fake-core did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, dir }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("core.sock")
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// `split` over the socket, `loopback` and `merged`, each with a core of its own.
pub async fn wirings(split: &Path) -> [(&'static str, Core); 3] {
    let [merged, loopback] = [FakeCore::default(), FakeCore::default()];
    fill(&merged);
    fill(&loopback);
    let loopback = loopback.over_pipe().await.expect("pipe");
    [("split", Core::remote(transport::unix(split))), ("loopback", loopback), ("merged", merged.core())]
}
