//! An in-memory core that serves its ports on a Unix socket: `fake-core SOCKET`. Ends when its standard input does.

use anyhow::Context as _;
use shared_proto::fake::FakeCore;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("usage: fake-core SOCKET")?;
    let fake = FakeCore::default();
    seam_bench::fill(&fake);
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {path}"))?;
    let parent_gone = async {
        let mut rest = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
    };
    tonic::transport::Server::builder()
        .add_routes(fake.core().routes())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), parent_gone)
        .await
        .context("serve")
}
