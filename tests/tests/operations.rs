//! What an operator sees of running daemons: metrics over HTTP, traces that cross the seam, and the verbose status.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::config::Options;
use e2e::fixtures::PAUSE;
use e2e::registry::free_port;
use e2e::{Wiring, World, eventually, world};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;
use shared_proto::cri::v1::{RunPodSandboxRequest, RuntimeCondition, StatusRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

e2e::wirings!(
    everything_is_counted,
    one_trace_spans_the_seam,
    the_status_shows_what_is_in_force,
    a_broken_network_file_is_named_and_hides_nothing,
    a_handlers_own_network_is_told_apart,
    handlers_are_listed_and_others_refused
);

async fn scrape(address: &str) -> String {
    let mut client = tokio::net::TcpStream::connect(address).await.expect("connect to the metrics");
    client.write_all(b"GET /v1/metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("ask");
    let mut text = String::new();
    client.read_to_string(&mut text).await.expect("read the metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    text
}

async fn everything_is_counted(wiring: Wiring) {
    let metrics = [free_port().to_string(), free_port().to_string()];
    let options = Options { metrics: metrics.clone(), ..Options::new(wiring) };
    let world = World::start(wiring, options).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    let pod = cri.run_pod(&world.pod("counted")).await;
    assert!(cri.try_container("none").await.is_err());
    cri.end_pod(&pod).await;

    let core = scrape(&metrics[0]).await;
    let side = match wiring {
        Wiring::Split => scrape(&metrics[1]).await,
        Wiring::Loopback | Wiring::Merged => core.clone(),
    };
    let network = world.slot.name();
    for line in [
        r#"seam_cri_call_seconds_count{rpc="RunPodSandbox"} 1"#,
        r#"seam_cri_errors_total{rpc="ContainerStatus",code="NotFound"} 1"#,
        r#"seam_cri_stage_seconds_count{request="RunPodSandbox",stage="cni"} 1"#,
        r#"seam_cri_stage_seconds_count{request="RunPodSandbox",stage="task-start"} 1"#,
        &format!(r#"seam_cni_plugin_seconds_count{{network="{network}",plugin="bridge",command="ADD"}} 1"#),
        &format!(r#"seam_cni_plugin_seconds_count{{network="{network}",plugin="bridge",command="DEL"}} 1"#),
        r#"seam_port_call_seconds_count{service="Tasks",method="start"} 1"#,
    ] {
        assert!(side.contains(line), "{line} is not in\n{side}");
    }
    for line in [
        r#"seam_core_call_seconds_count{service="Tasks",method="start"} 1"#,
        r#"seam_task_step_seconds_count{step="shim",shim="containerd-shim-runc-v2"} 1"#,
        r#"seam_task_step_seconds_count{step="start",shim="containerd-shim-runc-v2"} 1"#,
    ] {
        assert!(core.contains(line), "{line} is not in\n{core}");
    }
    let encoded = side.contains(r#"seam_port_message_bytes_total{service="Tasks",method="start""#);
    assert_eq!(encoded, wiring != Wiring::Merged, "bytes are counted where messages are encoded\n{side}");
}

/// A collector that keeps what it is sent, with the name of the sender.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|r| r.attributes).unwrap_or_default();
            let name = attributes.iter().find(|a| a.key == "service.name").map(|a| format!("{:?}", a.value));
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| (name.clone().unwrap_or_default(), span));
            self.0.lock().expect("the collector's lock").extend(spans);
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        address
    }

    /// The spans from `name` up to its trace's first one: `core/... < port/... < cri/...`.
    fn ancestors(&self, name: &str) -> Option<Vec<(String, String)>> {
        let spans = self.0.lock().expect("the collector's lock").clone();
        let by_id: BTreeMap<_, _> = spans.iter().map(|(from, s)| ((&s.trace_id, &s.span_id), (from, s))).collect();
        let (mut from, mut span) = spans.iter().find(|(_, span)| span.name == name).map(|(f, s)| (f, s))?;
        let mut out = vec![(span.name.clone(), from.clone())];
        while !span.parent_span_id.is_empty() {
            (from, span) = *by_id.get(&(&span.trace_id, &span.parent_span_id))?;
            out.push((span.name.clone(), from.clone()));
        }
        Some(out)
    }
}

async fn one_trace_spans_the_seam(wiring: Wiring) {
    let collector = Collector::default();
    let traces = collector.start().await.to_string();
    let world = World::start(wiring, Options { traces, ..Options::new(wiring) }).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    let pod = cri.run_pod(&world.pod("traced")).await;
    cri.end_pod(&pod).await;
    let line = eventually("the trace is whole", Duration::from_secs(20), || async {
        collector.ancestors("core/Tasks.start").ok_or_else(|| "it is not".to_owned())
    })
    .await;
    let names: Vec<_> = line.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["core/Tasks.start", "port/Tasks.start", "cri/RunPodSandbox"]);
    let two = line[0].1 != line[2].1;
    assert_eq!(two, wiring == Wiring::Split, "two daemons have sent it: {line:?}");
    // Each plugin has a span of its own.
    let line = collector.ancestors("stage/cni-plugin").expect("a plugin's span");
    assert_eq!(
        line.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["stage/cni-plugin", "cri/RunPodSandbox"]
    );
}

/// A part of the verbose status, and the condition of the network.
async fn status(world: &World, key: &str) -> (Value, RuntimeCondition) {
    let answer = world.cri().status(StatusRequest { verbose: true }).await;
    let text = answer.info.get(key).unwrap_or_else(|| panic!("{key} is not in {:?}", answer.info.keys()));
    let value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{key} is no JSON: {e}: {text}"));
    let conditions = answer.status.expect("a status").conditions;
    let network = conditions.into_iter().find(|c| c.r#type == "NetworkReady").expect("the network's condition");
    (value, network)
}

async fn the_status_shows_what_is_in_force(wiring: Wiring) {
    let world = world(wiring).await;
    let (config, _) = status(&world, "config").await;
    assert_eq!(config["root"].as_str(), world.paths.root.to_str(), "{config}");
    assert_eq!(config["cri"]["wiring"].as_str(), Some(wiring.name()), "{config}");
    // Whatever form the file has, what is in force is shown in the new one.
    let images = &config["plugins"]["io.containerd.cri.v1.images"];
    assert_eq!(images["pinned_images"]["sandbox"].as_str(), Some(PAUSE), "{config}");
    let (cni, network) = status(&world, "cniconfig").await;
    assert_eq!(cni["PluginConfDir"].as_str(), world.paths.cni_conf.to_str(), "{cni}");
    assert_eq!(cni["Networks"][0]["name"].as_str(), Some(world.slot.name().as_str()), "{cni}");
    assert!(network.status && network.message.is_empty(), "{network:?}");
    assert_eq!(status(&world, "lastCNILoadStatus").await.0.as_str(), Some("OK"));
    assert_eq!(status(&world, "seam").await.0["wiring"].as_str(), Some(wiring.name()));
}

async fn a_broken_network_file_is_named_and_hides_nothing(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    let broken = world.paths.cni_conf.join("05-broken.conflist");
    std::fs::write(&broken, "{ \"name\": ").expect("write a broken network");
    let (last, network) = status(&world, "lastCNILoadStatus").await;
    assert!(last.as_str().is_some_and(|last| last.contains("05-broken.conflist")), "{last}");
    assert!(network.status && network.message.contains("05-broken.conflist"), "{network:?}");
    let pod = cri.run_pod(&world.pod("beside-broken")).await;
    assert!(!cri.pod_ip(&pod).await.is_empty());
    cri.end_pod(&pod).await;

    // Alone, it is why no pod can run; without it, there is none to name.
    std::fs::remove_file(world.paths.cni_conf.join("10-seam.conflist")).expect("remove the network");
    let (last, network) = status(&world, "lastCNILoadStatus").await;
    assert!(last.as_str().is_some_and(|last| last.contains("05-broken.conflist")), "{last}");
    assert!(!network.status && network.message.contains("05-broken.conflist"), "{network:?}");
    std::fs::remove_file(&broken).expect("remove the broken network");
    let (last, network) = status(&world, "lastCNILoadStatus").await;
    let folder = world.paths.cni_conf.display().to_string();
    assert!(last.as_str().is_some_and(|last| last.contains(&folder) && !last.contains("broken")), "{last}");
    assert!(!network.status && network.message.contains(&folder), "{network:?}");
}

/// The network of a handler with a folder of its own is told apart, and does not make the node unready.
async fn a_handlers_own_network_is_told_apart(wiring: Wiring) {
    let handlers = vec![("apart", "cni_conf_dir = \"/nowhere/net.d\"".to_owned())];
    let world = World::start(wiring, Options { handlers, ..Options::new(wiring) }).await;
    for key in ["lastCNILoadStatus", "lastCNILoadStatus.default"] {
        assert_eq!(status(&world, key).await.0.as_str(), Some("OK"), "{key}");
    }
    let (last, network) = status(&world, "lastCNILoadStatus.apart").await;
    assert!(last.as_str().is_some_and(|last| last.contains("/nowhere/net.d")), "{last}");
    assert!(network.status && network.message.is_empty(), "{network:?}");
}

async fn handlers_are_listed_and_others_refused(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    let handlers = cri.status(StatusRequest::default()).await.runtime_handlers;
    let names: Vec<_> = handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["", "runc"]);
    // Each that is listed runs pods, and what is not listed does not.
    for (handler, name) in [("", "usual"), ("runc", "named")] {
        let config = Some(world.pod(name));
        let request = RunPodSandboxRequest { config, runtime_handler: handler.into() };
        let pod = cri.run_pod_sandbox(request).await.pod_sandbox_id;
        cri.end_pod(&pod).await;
    }
    let request = RunPodSandboxRequest { config: Some(world.pod("other")), runtime_handler: "kata".into() };
    let refused = cri.try_run_pod_sandbox(request).await.expect_err("an unknown handler");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("\"kata\""), "{refused:?}");
    assert!(cri.list_pods(Default::default()).await.is_empty());
}
