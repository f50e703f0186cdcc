//! A real kubectl, over SPDY/3.1 and, where it can, over WebSocket.

use std::sync::Arc;

use e2e::config::Options;
use e2e::cri::Cri;
use e2e::kubectl::{self, Front, Query, Route};
use e2e::pod::{ready_in, script};
use e2e::{Wiring, World};
use futures::FutureExt as _;
use shared_proto::cri::v1::*;

/// What a kubelet does with the requests: it asks the runtime for an address.
async fn address(cri: Cri, pod: String, container: String, what: String, query: Query) -> String {
    let on = |name| query.is_true(name);
    match what.as_str() {
        "exec" => {
            let (cmd, tty) = (query.all("command"), on("tty"));
            let [stdin, stdout, stderr] = ["stdin", "stdout", "stderr"].map(on);
            cri.exec(ExecRequest { container_id: container, cmd, tty, stdin, stdout, stderr }).await.url
        }
        "attach" => {
            let [stdin, stdout, stderr, tty] = ["stdin", "stdout", "stderr", "tty"].map(on);
            cri.attach(AttachRequest { container_id: container, stdin, tty, stdout, stderr }).await.url
        }
        "portforward" => {
            let port = query.all("ports").iter().map(|port| port.parse().expect("a port")).collect();
            cri.port_forward(PortForwardRequest { pod_sandbox_id: pod, port }).await.url
        }
        other => panic!("kubectl asks for {other}"),
    }
}

pub async fn kubectl_at_work(wiring: Wiring) {
    exercised(World::start(wiring, Options::new(wiring)).await, "http://").await;
}

pub async fn kubectl_over_tls(wiring: Wiring) {
    exercised(World::start(wiring, Options { stream_tls: true, ..Options::new(wiring) }).await, "https://").await;
}

async fn exercised(world: World, scheme: &'static str) {
    let (world, cri, config, pod) = ready_in(world, "kubectl").await;
    let text = "mkdir /tmp/www; echo page >/tmp/www/index.html; httpd -p 8080 -h /tmp/www; \
                while read -r line; do echo \"got $line\"; done; exit 3";
    let id = cri.run(&pod, &config, &ContainerConfig { stdin: true, ..script("main", text) }).await;
    let front = {
        let (cri, pod, id) = (cri.clone(), pod.clone(), id.clone());
        let route: Route = Arc::new(move |what, query| {
            let address = address(cri.clone(), pod.clone(), id.clone(), what.to_owned(), query);
            Box::pin(address.inspect(move |address| assert!(address.starts_with(scheme), "{address}")))
        });
        Front::start(route).await
    };
    for websockets in [false, true] {
        kubectl::exercise(&front, &world.paths.dir, websockets).await;
    }
    cri.end_pod(&pod).await;
}
