//! Clients of the streaming server: SPDY/3.1 as Go's clients speak it, and WebSocket.
//!
//! The SPDY frames are coded by a crate that shares nothing with the daemon, so that a mistake is not made twice.

use std::collections::HashMap;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use spdystream_rs::Frame;
use spdystream_rs::frame::{DataFrame, FLAG_FIN, SynStreamFrame, WindowUpdateFrame};
use spdystream_rs::framer::Framer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Empty, Sink};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came over the channels until the end.
#[derive(Debug, Default)]
pub struct Outcome {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub error: String,
}

impl Outcome {
    fn add(&mut self, channel: &str, data: &[u8]) {
        match channel {
            "stdout" => self.stdout.extend_from_slice(data),
            "stderr" => self.stderr.extend_from_slice(data),
            "error" => self.error.push_str(&String::from_utf8_lossy(data)),
            other => assert!(data.is_empty(), "{data:?} on channel {other}"),
        }
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The status of v4 and later.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.error).unwrap_or_else(|e| panic!("no status: {e}: {self:?}"))
    }

    /// The exit code in the status.
    pub fn code(&self) -> i32 {
        let status = self.status();
        if status["status"] == "Success" {
            return 0;
        }
        let cause = &status["details"]["causes"][0];
        assert_eq!((&status["reason"], &cause["reason"]), (&"NonZeroExitCode".into(), &"ExitCode".into()), "{status}");
        cause["message"].as_str().expect("a code").parse().expect("a number")
    }
}

/// `ADDRESS:PORT` and the path of an address that the daemon has answered.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} is no address"));
    rest.find('/').map(|i| rest.split_at(i)).unwrap_or_else(|| panic!("{url} has no path"))
}

/// Sends a request; the head of the answer, and the connection behind it.
pub async fn request(url: &str, headers: &[(&str, &str)]) -> (String, TcpStream) {
    let (address, path) = parts(url);
    let mut stream = TcpStream::connect(address).await.unwrap_or_else(|e| panic!("connect to {address}: {e}"));
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.expect("send the request");
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the head of the answer"));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
    (String::from_utf8(head).expect("text"), stream)
}

/// A client as Go's are: no windows.
pub struct Spdy {
    read: Framer<Sink, Box<dyn AsyncRead + Send + Unpin>>,
    write: Framer<Box<dyn AsyncWrite + Send + Unpin>, Empty>,
    last: u32,
    pub streams: HashMap<u32, String>,
    /// The head of the HTTP answer.
    pub head: String,
}

impl Spdy {
    pub async fn connect(url: &str, protocols: &[&str]) -> Self {
        let mut headers = vec![("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
        headers.extend(protocols.iter().map(|name| ("X-Stream-Protocol-Version", *name)));
        let (head, stream) = request(url, &headers).await;
        let lower = head.to_ascii_lowercase();
        // Go's clients look for all three.
        let agreed = lower.contains("\r\nconnection: upgrade\r\n") && lower.contains("\r\nupgrade: spdy/3.1\r\n");
        assert!(head.starts_with("HTTP/1.1 101 ") && agreed, "{head}");
        Self::over(stream, head)
    }

    /// Inside of a WebSocket, as kubectl forwards ports.
    pub async fn tunnel(url: &str) -> Self {
        let socket = WebSocket::connect(url, "SPDY/3.1+portforward.k8s.io").await.socket;
        let (inside, outside) = tokio::io::duplex(64 << 10);
        let (mut to_socket, mut from_socket) = socket.split();
        let (mut from_inside, mut to_inside) = tokio::io::split(outside);
        tokio::spawn(async move {
            while let Some(Ok(Message::Binary(data))) = from_socket.next().await {
                to_inside.write_all(&data).await.expect("carry out of the tunnel");
            }
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; 1000];
            while let Ok(n @ 1..) = from_inside.read(&mut buffer).await {
                to_socket.send(Message::binary(buffer[..n].to_vec())).await.expect("carry into the tunnel");
            }
        });
        Self::over(inside, String::new())
    }

    fn over(connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, head: String) -> Self {
        let (read, write) = tokio::io::split(connection);
        let read = Framer::new(tokio::io::sink(), Box::new(read) as Box<dyn AsyncRead + Send + Unpin>);
        let write = Framer::new(Box::new(write) as Box<dyn AsyncWrite + Send + Unpin>, tokio::io::empty());
        Self { read, write, last: 0, streams: HashMap::new(), head }
    }

    /// The same, with these streams opened.
    pub async fn with(url: &str, protocol: &str, kinds: &[&str]) -> Self {
        let mut client = Self::connect(url, &[protocol]).await;
        for kind in kinds {
            client.open(kind, &[]).await;
        }
        client
    }

    pub async fn open(&mut self, kind: &str, more: &[(&'static str, &str)]) -> u32 {
        self.open_as(kind, kind, more).await
    }

    /// Opens the two streams of a port-forward: `NAME-data` and `NAME-error`.
    pub async fn open_pair(&mut self, name: &str, port: u16) {
        let port = port.to_string();
        for kind in ["error", "data"] {
            let more = [("port", port.as_str()), ("requestid", name)];
            self.open_as(&format!("{name}-{kind}"), kind, &more).await;
        }
    }

    /// A stream of this type that is known here by another name.
    pub async fn open_as(&mut self, name: &str, kind: &str, more: &[(&'static str, &str)]) -> u32 {
        let stream_id = if self.last == 0 { 1 } else { self.last + 2 };
        self.last = stream_id;
        let mut headers = HeaderMap::new();
        for (name, value) in [("streamtype", kind)].iter().chain(more) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        self.streams.insert(stream_id, name.to_owned());
        let syn = SynStreamFrame { stream_id, associated_stream_id: 0, priority: 0, headers, flags: 0 };
        self.frame(Frame::SynStream(syn)).await;
        stream_id
    }

    pub async fn send(&mut self, kind: &str, data: &[u8], end: bool) {
        let found = self.streams.iter().find(|(_, name)| *name == kind);
        let stream_id = *found.unwrap_or_else(|| panic!("no stream {kind}")).0;
        let mut pieces: Vec<&[u8]> = data.chunks(32 << 10).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let last = pieces.len() - 1;
        for (i, piece) in pieces.into_iter().enumerate() {
            let flags = if end && i == last { FLAG_FIN } else { 0 };
            self.frame(Frame::Data(DataFrame { stream_id, flags, data: piece.to_vec().into() })).await;
        }
    }

    /// Tells the daemon that windows are meant.
    pub async fn widen(&mut self, kind: &str, delta: u32) {
        let stream_id = *self.streams.iter().find(|(_, name)| *name == kind).expect("the stream").0;
        for stream_id in [stream_id, 0] {
            self.frame(Frame::WindowUpdate(WindowUpdateFrame { stream_id, delta })).await;
        }
    }

    async fn frame(&mut self, frame: Frame) {
        self.write.write_frame(&frame).await.expect("send a frame");
    }

    /// The next data, and whether it is the last of its stream; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<(String, Vec<u8>, bool)> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.read.read_frame()).await.expect("a frame in time");
            match frame {
                Ok(Frame::Data(data)) => {
                    let kind = self.streams[&data.stream_id].clone();
                    return Some((kind, data.data.to_vec(), data.flags & FLAG_FIN != 0));
                }
                Ok(Frame::GoAway(_)) | Err(_) => return None,
                Ok(Frame::RstStream(reset)) => panic!("{reset:?}"),
                Ok(
                    Frame::SynReply(_)
                    | Frame::SynStream(_)
                    | Frame::Settings(_)
                    | Frame::Ping(_)
                    | Frame::Headers(_)
                    | Frame::WindowUpdate(_),
                ) => {}
            }
        }
    }

    /// Reads until these streams have ended; what came on each stream.
    pub async fn ends(&mut self, names: &[&str]) -> HashMap<String, Vec<u8>> {
        let (mut all, mut open) = (HashMap::<String, Vec<u8>>::new(), names.to_vec());
        while !open.is_empty() {
            let Some((name, data, end)) = self.next().await else { panic!("{open:?} have no end: {all:?}") };
            open.retain(|waiting| !(end && *waiting == name));
            all.entry(name).or_default().extend(data);
        }
        all
    }

    /// Reads until the text appears on stdout; what came on it so far.
    pub async fn until(&mut self, text: &str) -> String {
        let mut outcome = Outcome::default();
        while !outcome.out().contains(text) {
            let Some((kind, data, _)) = self.next().await else { panic!("no {text:?}: {outcome:?}") };
            outcome.add(&kind, &data);
        }
        outcome.out()
    }

    /// Everything to the end, which each stream must have.
    pub async fn collect(&mut self) -> Outcome {
        let (mut outcome, mut ended) = (Outcome::default(), Vec::new());
        while let Some((kind, data, end)) = self.next().await {
            outcome.add(&kind, &data);
            if end {
                ended.push(kind);
            }
        }
        for kind in self.streams.values().filter(|kind| ["stdout", "stderr", "error"].contains(&kind.as_str())) {
            assert!(ended.contains(kind), "{kind} has no end: {outcome:?}");
        }
        outcome
    }
}

/// A client over WebSocket.
pub struct WebSocket {
    socket: WebSocketStream<TcpStream>,
    base64: bool,
}

impl WebSocket {
    pub async fn connect(url: &str, protocol: &str) -> Self {
        let (address, _) = parts(url);
        let mut request = url.replace("http://", "ws://").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a name"));
        let stream = TcpStream::connect(address).await.unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        let (socket, answer) = tokio_tungstenite::client_async(request, stream).await.expect("the handshake");
        assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
        Self { socket, base64: protocol.contains("base64") }
    }

    pub async fn send(&mut self, channel: u8, data: &[u8]) {
        use base64::Engine as _;
        let message = match self.base64 {
            true => Message::text(format!("{channel}{}", base64::engine::general_purpose::STANDARD.encode(data))),
            false => Message::binary([&[channel][..], data].concat()),
        };
        self.socket.send(message).await.expect("send a message");
    }

    /// v5: the end of a channel.
    pub async fn end(&mut self, channel: u8) {
        self.socket.send(Message::binary(vec![255, channel])).await.expect("send the end");
    }

    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        use base64::Engine as _;
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            match message? {
                Ok(Message::Binary(data)) => {
                    assert!(!self.base64, "binary in a protocol of text");
                    return Some((data[0], data[1..].to_vec()));
                }
                Ok(Message::Text(text)) => {
                    let (channel, data) = text.split_at(1);
                    let data = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
                    return Some((channel.parse().expect("a digit"), data));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) => {
                    // The answer to it is sent with the next read, which is the last.
                    while let Some(Ok(_)) = self.socket.next().await {}
                    return None;
                }
                Err(e) => panic!("the WebSocket broke: {e}"),
            }
        }
    }

    pub async fn collect(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some((channel, data)) = self.next().await {
            let names = ["stdin", "stdout", "stderr", "error", "resize"];
            outcome.add(names[usize::from(channel)], &data);
        }
        outcome
    }
}
