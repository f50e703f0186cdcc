//! Real clients' bytes against a real server, with the filter and (to prove that they need it) without.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tonic::transport::server::Connected;

use super::*;
use crate::api::{RemoteVersion, Version, VersionServer};
use crate::containerd::version::VersionResponse;

/// Recorded from Python's grpcio 1.85 (C-core 58): two calls. `:authority` is the percent-encoded path, its name is
/// spelled out and it goes into the dynamic table.
const C_CORE: &str = "
    505249202a20485454502f322e300d0a0d0a534d0d0a0d0a0000240400000000000002000000000003000000000004004000000005004000
    00000600004000fe0300000001000004080000000000003f000100000004010000000000011b01040000000140053a706174682f2f636f6e
    7461696e6572642e73657276696365732e76657273696f6e2e76312e56657273696f6e2f56657273696f6e400a3a617574686f726974790e
    746d702532466372692e736f636b8386400c636f6e74656e742d74797065106170706c69636174696f6e2f67727063400274650874726169
    6c6572734014677270632d6163636570742d656e636f64696e67176964656e746974792c206465666c6174652c20677a6970400c67727063
    2d74696d656f7574023553400a757365722d6167656e7430677270632d707974686f6e2f312e38352e3120677270632d632f35382e302e30
    20286c696e75783b20636874747032290014636f6e7461696e6572642d6e616d657370616365086b38732e696f2d30000004080000000001
    000000050000050001000000010000000000000004080000000000000000050000080600000000008d7d2361a8fc047100003b0104000000
    03c4c38386c2c1c0400c677270632d74696d656f757405353032306dbf0014636f6e7461696e6572642d6e616d657370616365086b38732e
    696f2d310000040800000000030000000500000500010000000300000000000000040800000000000000001a
";

/// Two calls as grpc-go 1.27 writes them, encoded with a third party's HPACK encoder: `:authority` is the raw path,
/// compressed, and goes into the dynamic table.
const GO: &str = "
    505249202a20485454502f322e300d0a0d0a534d0d0a0d0a00000004000000000000008c010400000001838644a16087a9233545b245d05b
    3b988542fdcb620c7a97ee15f896c418f531c4b620c7ab419662cb6a6087a9233545b246087a9233545b245d07275f5f8b1d75d0620d263d
    4c4d65647a8a9acac8b4c7602b89d5c14082497f864d833505b11f40899acac8b24d494f6a7f8969f7df7df79d71babf408e21ea48cd516c
    916a87495158c85f85eaf21731ff00000500010000000100000000000000140104000000038386c4c3c2c1c07f008969f7df7df79d71aabf
    bf0000050001000000030000000000
";

struct Answers;

#[async_trait::async_trait]
impl Version for Answers {
    async fn version(&self, cx: &crate::Context, (): ()) -> crate::Result<VersionResponse> {
        Ok(VersionResponse { version: "1".into(), revision: cx.namespace.clone().unwrap_or_default() })
    }
}

/// Serves the one connection `io`.
fn serve<S>(io: S)
where
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let router = tonic::transport::Server::builder().add_service(VersionServer::service(Arc::new(Answers)));
    tokio::spawn(router.serve_with_incoming(tokio_stream::once(Ok::<_, io::Error>(io))));
}

/// What the server did with the streams of a recorded client.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Streams that got a message back, and those that were reset.
    answered: Vec<u32>,
    reset: Vec<u32>,
}

/// Sends `bytes` and reads frames until each of `streams` is answered or reset.
async fn replay(mut client: DuplexStream, bytes: &[u8], streams: usize) -> Outcome {
    client.write_all(bytes).await.unwrap();
    let mut outcome = Outcome::default();
    while outcome.answered.len() + outcome.reset.len() < streams {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        client.read_exact(&mut payload).await.unwrap();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            0 => outcome.answered.push(stream),
            3 => outcome.reset.push(stream),
            7 => panic!("the server closed the connection: {payload:x?}"),
            _ => {}
        }
    }
    outcome
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter_map(|c| char::from(c).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[tokio::test]
async fn recorded_clients_are_refused_without_the_filter_and_served_with_it() {
    for (name, recorded) in [("C-core", hex(C_CORE)), ("Go", hex(GO))] {
        let (client, server) = tokio::io::duplex(1 << 16);
        serve(server);
        let plain = replay(client, &recorded, 2).await;
        assert_eq!(plain, Outcome { answered: vec![], reset: vec![1, 3] }, "{name}");

        let (client, server) = tokio::io::duplex(1 << 16);
        serve(AcceptAny::new(server));
        let mut filtered = replay(client, &recorded, 2).await;
        filtered.answered.sort_unstable();
        assert_eq!(filtered, Outcome { answered: vec![1, 3], reset: vec![] }, "{name}");
    }
}

/// One call of a client that indexes all it sends, as Go's does.
struct IndexingClient {
    /// Sizes of the entries of the dynamic table, newest first, as the client counts them.
    table: std::collections::VecDeque<usize>,
    /// How many entries are newer than `:authority`.
    authority: Option<usize>,
    out: Vec<u8>,
}

impl IndexingClient {
    const AUTHORITY: &[u8] = b"/run/containerd/containerd.sock";
    const PATH: &[u8] = b"/containerd.services.version.v1.Version/Version";

    fn call(&mut self, number: u32) {
        let mut block = vec![0x83, 0x86, 0x04, Self::PATH.len() as u8];
        block.extend_from_slice(Self::PATH);
        match self.authority {
            Some(newer) => match 62 + newer {
                index @ ..127 => block.push(0x80 | index as u8),
                index => block.extend_from_slice(&[0xff, (index - 127) as u8]),
            },
            None => {
                block.extend_from_slice(&[0x41, Self::AUTHORITY.len() as u8]);
                block.extend_from_slice(Self::AUTHORITY);
                self.insert(10 + Self::AUTHORITY.len());
                self.authority = Some(0);
            }
        }
        block.extend_from_slice(b"\x0f\x10\x10application/grpc\x00\x02te\x08trailers");
        let timeout = format!("{:08}u", 99_000_000 - number);
        block.extend_from_slice(&[&b"\x40\x0cgrpc-timeout\x09"[..], timeout.as_bytes()].concat());
        self.insert(12 + timeout.len());

        let stream = (2 * number + 1).to_be_bytes();
        self.out.extend_from_slice(&[&[0, 0, block.len() as u8, 1, 4][..], &stream, &block].concat());
        self.out.extend_from_slice(&[&[0, 0, 5, 0, 1][..], &stream, &[0; 5]].concat());
    }

    fn insert(&mut self, bytes: usize) {
        self.table.push_front(bytes + 32);
        self.authority = self.authority.map(|newer| newer + 1);
        while self.table.iter().sum::<usize>() > 4096 {
            self.table.pop_back();
            if self.authority == Some(self.table.len()) {
                self.authority = None;
            }
        }
    }
}

#[tokio::test]
async fn indices_stay_right_until_the_value_leaves_the_table_and_is_sent_anew() {
    let calls = 190;
    let opening = hex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a000000040000000000");
    let mut client = IndexingClient { table: Default::default(), authority: None, out: opening };
    let mut literals = 0;
    for number in 0..calls {
        literals += u32::from(client.authority.is_none());
        client.call(number);
    }
    assert!(literals >= 3, "the table never overflowed");

    let (near, far) = tokio::io::duplex(1 << 20);
    serve(AcceptAny::new(far));
    let outcome = replay(near, &client.out, calls as usize).await;
    assert_eq!((outcome.answered.len(), outcome.reset), (calls as usize, vec![]));
}

#[tokio::test]
async fn our_own_client_is_looked_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let router = tonic::transport::Server::builder().add_service(VersionServer::service(Arc::new(Answers)));
    tokio::spawn(router.serve_with_incoming(incoming(listener)));
    let version = RemoteVersion::new(crate::transport::unix(&path));
    for _ in 0..3 {
        let answer = version.version(&crate::Context::new("k8s.io"), ()).await.unwrap();
        assert_eq!(answer.revision, "k8s.io");
    }

    let (channel, mut server) = crate::transport::pipe().await.unwrap();
    tokio::spawn(async move { RemoteVersion::new(channel).version(&crate::Context::new("k8s.io"), ()).await });
    let mut filter = Filter::new();
    let mut passed = Vec::new();
    let mut received = Vec::new();
    while !filter.is_through() {
        let mut chunk = [0; 4096];
        let n = server.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the client gave up");
        received.extend_from_slice(&chunk[..n]);
        filter.push(&chunk[..n], &mut passed);
    }
    filter.finish(&mut passed);
    assert_eq!(passed, received);
}
