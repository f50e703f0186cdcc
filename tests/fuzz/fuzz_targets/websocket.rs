//! A client that sends any bytes to the WebSocket server, as they are or as messages: it never panics, never keeps more
//! than its limits, and ends when the client does.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use cri_daemon::streaming::activity::Activity;
use cri_daemon::streaming::channel::Outgoing;
use cri_daemon::streaming::negotiate::{self, Purpose, Upgrade};
use cri_daemon::streaming::resize::Sizes;
use cri_daemon::streaming::websocket;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

const PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v5.channel.k8s.io", "base64.channel.k8s.io", "v5.base64.channel.k8s.io"];

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let protocol = PROTOCOLS[usize::from(*choice) % PROTOCOLS.len()];
    let data = if choice & 4 == 0 { data.to_vec() } else { messages(data) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let served = serve(protocol, data);
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("a connection ends with its client");
    });
});

/// Frames with true lengths and a mask of zeros: a byte of length, and a byte for the first of the header.
fn messages(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = data;
    while let [length, first, more @ ..] = rest {
        let length = usize::from(*length & 0x7f).min(125).min(more.len());
        let (body, next) = more.split_at(length);
        out.extend([*first, 0x80 | length as u8, 0, 0, 0, 0]);
        out.extend(body);
        rest = next;
    }
    out
}

async fn serve(protocol: &'static str, data: Vec<u8>) {
    let mut headers = HeaderMap::new();
    headers.insert("sec-websocket-protocol", http::HeaderValue::from_static(protocol));
    let chosen = negotiate::choose(&headers, Upgrade::WebSocket, Purpose::Remote).expect("a known protocol");
    let (mut client, server) = tokio::io::duplex(4 << 10);
    let activity = Arc::new(Activity::new(&CancellationToken::new()));
    let channels = [websocket::STDIN, websocket::RESIZE];
    let websocket::Connection { sources, out, done } =
        websocket::open(server, &chosen, &channels, activity.clone()).await;
    let serving = async {
        let _ = out.send(Outgoing::Data { channel: 1, data: "hello".into() }).await;
        let mut sizes = Sizes::default();
        for mut source in sources {
            while let Some(data) = source.next().await {
                let _ = sizes.add(&data);
            }
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
