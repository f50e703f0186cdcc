//! A client that sends any bytes to the SPDY server, as they are or as a run of frames: it never panics, never keeps
//! more than its limits, and ends when the client does.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use cri_daemon::streaming::activity::Activity;
use cri_daemon::streaming::channel::Outgoing;
use cri_daemon::streaming::spdy;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let served = serve(framed(data));
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("a connection ends with its client");
    });
});

/// Random bytes seldom have a length that fits, so every other input is cut into frames with true lengths: a byte of
/// length, and a byte that says which kind of frame it is.
fn framed(data: &[u8]) -> Vec<u8> {
    let Some((0, mut rest)) = data.split_first().map(|(first, rest)| (first % 2, rest)) else { return data.to_vec() };
    let mut out = Vec::new();
    while let [length, kind, more @ ..] = rest {
        let length = usize::from(*length).min(more.len());
        let (body, next) = more.split_at(length);
        match kind % 10 {
            0 => out.extend([0, 0, 0, kind / 10, 1]),
            kind => out.extend([0x80, 3, 0, kind, 0]),
        }
        out.extend([0, 0, length as u8]);
        out.extend(body);
        rest = next;
    }
    out
}

async fn serve(data: Vec<u8>) {
    let (mut client, server) = tokio::io::duplex(4 << 10);
    let activity = Arc::new(Activity::new(&CancellationToken::new()));
    let spdy::Connection { mut streams, out, done } = spdy::open(server, activity.clone());
    let serving = async {
        let mut sources = Vec::new();
        while let Some(stream) = streams.recv().await {
            // What is sent back on each stream; whoever has closed it needs no word of it.
            let _ = tokio::time::timeout(Duration::from_millis(1), stream.sink.send("hello".into())).await;
            sources.push(stream.source);
        }
        for mut source in sources {
            while source.next().await.is_some() {}
        }
        let _ = out.send(Outgoing::End { reason: String::new() }).await;
    };
    let talking = async {
        let (mut read, mut write) = tokio::io::split(&mut client);
        let writing = async {
            let _ = write.write_all(&data).await;
            let _ = write.shutdown().await;
        };
        let mut answers = vec![0; 4 << 10];
        let reading = async { while let Ok(1..) = read.read(&mut answers).await {} };
        tokio::join!(writing, reading);
    };
    let _ = tokio::join!(serving, talking, done);
}
