//! Port-forward over SPDY, WebSocket and SPDY inside of WebSocket.

use e2e::Wiring;
use e2e::cri::{Cri, refused};
use e2e::pod::{namespaces, ready, script};
use e2e::streaming::{Spdy, WebSocket, request};
use shared_proto::cri::v1::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

const FORWARD: &str = "portforward.k8s.io";
const GET: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// A web server on port 8080, one that only hears IPv6 on 8081, and an echo on 7777.
fn servers() -> ContainerConfig {
    script(
        "servers",
        "mkdir /tmp/www; echo page >/tmp/www/index.html; httpd -p 8080 -h /tmp/www; httpd -p [::1]:8081 -h /tmp/www; \
         exec nc -ll -p 7777 -e cat",
    )
}

async fn url(cri: &Cri, pod: &str, port: &[i32]) -> String {
    cri.port_forward(PortForwardRequest { pod_sandbox_id: pod.into(), port: port.to_vec() }).await.url
}

/// Until the last of the servers listens.
async fn served(cri: &Cri, container: &str) {
    e2e::eventually("the servers listen", std::time::Duration::from_secs(20), || async {
        let listening = cri.exec_ok(container, &["cat", "/proc/net/tcp", "/proc/net/tcp6"]).await;
        if listening.contains(":1E61 ") { Ok(()) } else { Err(listening) }
    })
    .await;
}

pub async fn forwarding_over_spdy(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "forward").await;
    let id = cri.run(&pod, &config, &servers()).await;
    served(&cri, &id).await;
    let before = world.inventory().await;

    // Several connections at a time; each end is told by itself, and what is refused harms no other.
    let mut client = Spdy::connect(&url(&cri, &pod, &[8080]).await, &[FORWARD]).await;
    assert!(client.head.to_ascii_lowercase().contains("x-stream-protocol-version: portforward.k8s.io\r\n"));
    client.open_pair("echo", 7777).await;
    client.open_pair("web", 8080).await;
    client.open_pair("web6", 8081).await;
    client.open_pair("nobody", 9).await;
    client.send("web-data", GET, false).await;
    client.send("web6-data", GET, false).await;
    let text: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    client.send("echo-data", &text[..50_000], false).await;
    let answers = client.ends(&["web-data", "web6-data", "nobody-error"]).await;
    for name in ["web-data", "web6-data"] {
        assert!(answers[name].ends_with(b"page\n"), "{name}: {:?}", String::from_utf8_lossy(&answers[name]));
    }
    let refused = String::from_utf8_lossy(&answers["nobody-error"]).into_owned();
    assert!(refused.contains("port 9 of pod") && refused.contains("refused"), "{refused}");
    let mut echoed = answers.get("echo-data").cloned().unwrap_or_default();
    // The end of what we say is heard there, and answered.
    client.send("echo-data", &text[50_000..], true).await;
    echoed.extend(&client.ends(&["echo-data", "echo-error"]).await["echo-data"]);
    assert!(echoed == text, "{} of {} bytes came back", echoed.len(), text.len());
    drop(client);

    // As kubectl does it through proxies that know WebSocket only.
    let mut client = Spdy::tunnel(&url(&cri, &pod, &[8080]).await).await;
    client.open_pair("web", 8080).await;
    client.send("web-data", GET, false).await;
    assert!(client.ends(&["web-data"]).await["web-data"].ends_with(b"page\n"));
    drop(client);

    // Before there was a requestid, the two streams followed each other.
    let mut client = Spdy::connect(&url(&cri, &pod, &[]).await, &[FORWARD]).await;
    for kind in ["error", "data"] {
        client.open(kind, &[("port", "8080")]).await;
    }
    client.send("data", GET, true).await;
    assert!(client.ends(&["data", "error"]).await["data"].ends_with(b"page\n"));
    drop(client);

    world.assert_as_before(&before).await;
    cri.end_pod(&pod).await;
}

pub async fn forwarding_over_websocket(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "socket").await;
    let id = cri.run(&pod, &config, &servers()).await;
    served(&cri, &id).await;
    for protocol in ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", FORWARD] {
        let mut client = WebSocket::connect(&url(&cri, &pod, &[7777, 8080]).await, protocol).await;
        let mut got: [Vec<u8>; 4] = Default::default();
        client.send(2, GET).await;
        client.send(0, b"echo").await;
        while !(got[2].ends_with(b"page\n") && got[0].len() >= 6) {
            let (channel, data) = client.next().await.expect("an answer");
            got[usize::from(channel)].extend(data);
        }
        // Every channel begins with its port.
        let ports = [7777u16, 7777, 8080, 8080].map(u16::to_le_bytes);
        assert!(got.iter().zip(ports).all(|(got, port)| got.starts_with(&port)), "{protocol}: {got:?}");
        assert_eq!(&got[0][2..], b"echo");
    }

    // A pod in the machine's network.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let mut host = world.pod("host");
    namespaces(&mut host).network = NamespaceMode::Node.into();
    let host = cri.run_pod(&host).await;
    let mut client = Spdy::connect(&url(&cri, &host, &[]).await, &[FORWARD]).await;
    client.open_pair("here", port).await;
    let (mut peer, _) = listener.accept().await.expect("a connection");
    client.send("here-data", b"hello", true).await;
    let mut text = String::new();
    peer.read_to_string(&mut text).await.expect("to the end");
    peer.write_all(b"and back").await.expect("answer");
    drop(peer);
    assert_eq!((text.as_str(), &client.ends(&["here-data"]).await["here-data"][..]), ("hello", &b"and back"[..]));

    let refuse = async |port: i32, pod: &str, code: Code, names: &str| {
        let request = PortForwardRequest { pod_sandbox_id: pod.into(), port: vec![port] };
        refused(names, cri.try_port_forward(request).await, code, names);
    };
    refuse(0, &pod, Code::InvalidArgument, "port: 0 is not between").await;
    refuse(65_536, &pod, Code::InvalidArgument, "port: 65536 is not between").await;
    refuse(80, "", Code::InvalidArgument, "pod_sandbox_id").await;
    refuse(80, "none-such", Code::NotFound, "\"none-such\"").await;
    let upgrade =
        [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v4.channel.k8s.io")];
    let (head, _) = request(&url(&cri, &pod, &[80]).await, &upgrade).await;
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains(FORWARD), "{head}");

    // A pod that is stopped meanwhile: its connections end, and new ones are told why.
    let mut client = Spdy::connect(&url(&cri, &pod, &[]).await, &[FORWARD]).await;
    client.open_pair("echo", 7777).await;
    client.send("echo-data", b"x", false).await;
    let (name, data, _) = client.next().await.expect("an answer");
    assert_eq!((name.as_str(), &data[..]), ("echo-data", &b"x"[..]));
    cri.try_stop_pod(&pod).await.expect("stop");
    client.ends(&["echo-data"]).await;
    client.open_pair("late", 7777).await;
    let late = client.ends(&["late-error"]).await;
    assert!(String::from_utf8_lossy(&late["late-error"]).contains("must be ready"), "{late:?}");
    refuse(80, &pod, Code::FailedPrecondition, &pod).await;
    cri.end_pod(&pod).await;
    cri.end_pod(&host).await;
}
