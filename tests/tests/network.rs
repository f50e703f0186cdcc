//! Pod networks with the real plugins: both families, what plugins are told and do, and configuration that changes
//! while the daemons run. After each, no address, rule, queue or interface is left.
//!
//! With `SEAM_PEER=containerd` they hold as well, but for codes, words, and what that containerd is too old for.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::config::Options;
use e2e::cri::{Answer, Cri};
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{script, sleeper};
use e2e::world::peer;
use e2e::{Wiring, World, eventually, http};
use serde_json::{Value, json};
use shared_proto::cri::v1::*;
use tonic::Code;

e2e::wirings!(
    both_families_and_every_plugin,
    configuration_is_seen_when_it_changes,
    the_pod_cidr_makes_the_network,
    several_networks_and_what_their_plugins_are_told,
);

/// A bridge with these subnets, each with its default route.
fn bridge(world: &World, subnets: &[String]) -> Value {
    ranges(world, subnets.iter().map(|subnet| json!({"subnet": subnet})).collect())
}

/// A bridge with these ranges of addresses.
fn ranges(world: &World, ranges: Vec<Value>) -> Value {
    let six = |range: &Value| range["subnet"].as_str().is_some_and(|subnet| subnet.contains(':'));
    let routes = ranges.iter().map(|range| if six(range) { "::/0" } else { "0.0.0.0/0" });
    json!({
        "type": "bridge", "bridge": world.slot.name(), "isGateway": true, "ipMasq": false, "hairpinMode": true,
        "ipam": {
            "type": "host-local", "dataDir": world.paths.ipam,
            "ranges": ranges.iter().map(|range| json!([range])).collect::<Vec<_>>(),
            "routes": routes.map(|dst| json!({"dst": dst})).collect::<Vec<_>>(),
        },
    })
}

/// Writes a network's file, at once as a whole.
fn write(world: &World, file: &str, name: &str, plugins: &[Value]) {
    let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins});
    let temporary = world.paths.cni_conf.join("new.tmp");
    std::fs::write(&temporary, list.to_string()).expect("write a network");
    std::fs::rename(temporary, world.paths.cni_conf.join(file)).expect("put a network in place");
}

async fn pull(world: &World) {
    for reference in [PAUSE, BUSYBOX] {
        world.pull(reference).await;
    }
}

/// The pod's addresses, the first one first.
async fn addresses(cri: &Cri, pod: &str) -> Vec<String> {
    let network = cri.pod_status(pod).await.network.expect("a network");
    std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip)).collect()
}

/// The beginning that all addresses of a subnet have.
fn start(subnet: &str) -> &str {
    subnet.trim_end_matches("0/24").trim_end_matches(":/64")
}

/// A refusal: its code, and what its message names. The peer has one code for everything, and other words.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Answer<T>, code: Code, names: &str) {
    let status = answer.expect_err("it must be refused");
    if peer().is_none() {
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(names), "{names:?} is not in {status:?}");
    }
}

/// How long a page may take to be there.
const PAGE: Duration = Duration::from_secs(8);

/// The queue on an interface of the host.
fn queue(interface: &str) -> String {
    let output = Command::new("tc").args(["qdisc", "show", "dev", interface]).output().expect("run tc");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The interface that the bandwidth plugin makes to delay what a pod sends.
fn ifb(world: &World, pod: &str) -> String {
    e2e::leftovers::delaying_link(&world.slot.name(), pod)
}

async fn both_families_and_every_plugin(wiring: Wiring) {
    let mut world = World::prepare(wiring, Options::new(wiring));
    let ranges = [world.slot.subnet(), world.slot.subnet6()];
    let plugins = [
        bridge(&world, &ranges),
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": false}),
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
        json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}),
        json!({"type": "firewall"}),
    ];
    write(&world, "10-seam.conflist", &world.slot.name(), &plugins);
    world.run().await;
    pull(&world).await;
    let (cri, before) = (world.cri(), world.inventory().await);

    let mut config = world.pod("dual");
    let port = world.slot.host_port(0);
    config.port_mappings = vec![PortMapping { container_port: 8080, host_port: port.into(), ..Default::default() }];
    for (direction, rate) in [("ingress", "8M"), ("egress", "4M")] {
        config.annotations.insert(format!("kubernetes.io/{direction}-bandwidth"), rate.into());
    }
    let pod = cri.run_pod(&config).await;
    let ips = addresses(&cri, &pod).await;
    assert_eq!(ips.len(), 2, "{ips:?}");
    assert!(ips[0].starts_with(start(&ranges[0])) && ips[1].starts_with(start(&ranges[1])), "{ips:?}");
    let serve = "mkdir /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p [::]:8080 -h /tmp/www";
    let server = cri.run(&pod, &config, &script("server", serve)).await;
    for ip in &ips {
        assert_eq!(http::get(ip, 8080, PAGE).await, "page\n", "the host reaches {ip}");
    }
    // Addresses of the host itself: the gateways.
    for (net, host) in [(&ranges[0], "1"), (&ranges[1], ":1")] {
        let gateway = format!("{}{host}", start(net));
        assert_eq!(http::get(&gateway, port, PAGE).await, "page\n", "the host port on {gateway}");
        let ping = if gateway.contains(':') { "ping6" } else { "ping" };
        cri.exec_ok(&server, &["busybox", ping, "-c", "1", "-W", "5", &gateway]).await;
    }
    cri.exec_ok(&server, &["busybox", "ping6", "-c", "1", "-W", "5", "::1"]).await;
    assert_eq!(cri.exec_ok(&server, &["cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"]).await, "0\n");
    assert_eq!(cri.exec_ok(&server, &["cat", "/proc/sys/net/core/somaxconn"]).await, "500\n", "the plugin tuning");

    // From another pod, which has no limit and no port.
    let other = world.pod("client");
    let client_pod = cri.run_pod(&other).await;
    let client = cri.run(&client_pod, &other, &sleeper("client")).await;
    for url in [format!("http://{}:8080/", ips[0]), format!("http://[{}]:8080/", ips[1])] {
        assert_eq!(cri.exec_ok(&client, &["wget", "-q", "-O-", &url]).await, "page\n", "{url}");
    }

    // What the pod may receive is limited where the host sends it, what it may send behind an interface of its own.
    let veths = || {
        let ports = std::fs::read_dir(Path::new("/sys/class/net").join(world.slot.name()).join("brif"));
        ports.expect("the bridge").flatten().map(|port| port.file_name().to_string_lossy().into_owned())
    };
    let limited: Vec<_> = veths().map(|veth| queue(&veth)).filter(|queue| queue.contains("tbf")).collect();
    assert!(limited.len() == 1 && limited[0].contains("rate 8Mbit"), "{limited:?}");
    assert!(queue(&ifb(&world, &pod)).contains("rate 4Mbit"), "{}", queue(&ifb(&world, &pod)));
    assert!(!Path::new("/sys/class/net").join(ifb(&world, &client_pod)).exists(), "no limit, no interface");

    // The leak checker must see the rules of both families, or its silence means nothing.
    let during = world.inventory().await;
    for kind in ["iptables-save ", "ip6tables-save "] {
        assert!(during.iter().filter(|item| item.starts_with(kind)).count() > 1, "{kind}: {during:#?}");
    }
    cri.end_pod(&client_pod).await;
    cri.end_pod(&pod).await;
    assert!(!Path::new("/sys/class/net").join(ifb(&world, &pod)).exists());
    world.assert_as_before(&before).await;

    // A limit that is none fails the pod, by name, and leaves nothing.
    config.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "fast".into());
    if peer().is_some() {
        return; // It can't remove such a pod any more.
    }
    refused(cri.try_run_pod(&config).await, Code::InvalidArgument, "kubernetes.io/ingress-bandwidth");
    world.assert_as_before(&before).await;
}

/// Ours sees a change with the next call; the peer, when it is told of it.
async fn peer_sees() {
    if peer().is_some() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits, a second at most, until the network is ready or not.
async fn ready(cri: &Cri, wanted: bool) {
    eventually(format!("NetworkReady is {wanted}"), Duration::from_secs(1), || async {
        let status = cri.status(StatusRequest::default()).await.status.expect("status");
        let ready = status.conditions.iter().find(|c| c.r#type == "NetworkReady").expect("NetworkReady");
        if ready.status == wanted { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
}

async fn configuration_is_seen_when_it_changes(wiring: Wiring) {
    let mut world = World::prepare(wiring, Options::new(wiring));
    std::fs::remove_dir_all(&world.paths.cni_conf).expect("remove the folder");
    world.run().await;
    pull(&world).await;
    let (cri, before) = (world.cri(), world.inventory().await);
    ready(&cri, false).await;
    if peer().is_none() {
        let folder = world.paths.cni_conf.display().to_string();
        refused(cri.try_run_pod(&world.pod("early")).await, Code::Unavailable, &folder);
        world.assert_as_before(&before).await;
    }

    // The folder itself is made later than the daemon. The peer makes it, and watches it then.
    std::fs::create_dir_all(&world.paths.cni_conf).expect("make the folder");
    let (net, name) = (world.slot.subnet(), world.slot.name());
    write(&world, "50-seam.conflist", &name, &[bridge(&world, std::slice::from_ref(&net))]);
    ready(&cri, true).await;
    let first = cri.run_pod(&world.pod("first")).await;
    assert!(addresses(&cri, &first).await[0].starts_with(start(&net)));

    // The same file says something else.
    let high = json!({"subnet": net, "rangeStart": net.replace("0/24", "129")});
    write(&world, "50-seam.conflist", &name, &[ranges(&world, vec![high])]);
    peer_sees().await;
    let second = cri.run_pod(&world.pod("second")).await;
    let last = |ip: &str| ip.rsplit('.').next().and_then(|n| n.parse::<u8>().ok()).expect("an IPv4 address");
    assert!(last(&addresses(&cri, &second).await[0]) > 128, "the new range");

    // Another file comes first, and goes again.
    write(&world, "05-six.conflist", &name, &[bridge(&world, &[world.slot.subnet6()])]);
    peer_sees().await;
    let third = cri.run_pod(&world.pod("third")).await;
    assert!(addresses(&cri, &third).await[0].starts_with(start(&world.slot.subnet6())));
    std::fs::remove_file(world.paths.cni_conf.join("05-six.conflist")).expect("remove the file");
    peer_sees().await;
    let fourth = cri.run_pod(&world.pod("fourth")).await;
    assert!(addresses(&cri, &fourth).await[0].starts_with(start(&net)));

    // All gone: the node is not ready, and pods are taken back by what they were made with. The peer takes them back
    // by what is there then, and so needs something.
    if peer().is_none() {
        std::fs::remove_dir_all(&world.paths.cni_conf).expect("remove the folder");
        ready(&cri, false).await;
    }
    for pod in [&first, &second, &third, &fourth] {
        cri.end_pod(pod).await;
    }
    world.assert_as_before(&before).await;
}

async fn the_pod_cidr_makes_the_network(wiring: Wiring) {
    let mut options = Options::new(wiring);
    let template = tempfile::NamedTempFile::new().expect("make a file");
    options.cni = format!("conf_template = \"{}\"\nip_pref = \"ipv6\"", template.path().display());
    let mut world = World::prepare(wiring, options);
    let text = json!({"cniVersion": "1.0.0", "name": world.slot.name(), "plugins": [{
        "type": "bridge", "bridge": world.slot.name(), "isGateway": true,
        "ipam": {"type": "host-local", "dataDir": world.paths.ipam, "ranges": "RANGES", "routes": "ROUTES"},
    }]});
    // As containerd's own sample has it.
    let ranges = r#"[{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}]"#;
    let routes = r#"[{{range $i, $route := .Routes}}{{if $i}}, {{end}}{"dst": "{{$route}}"}{{end}}]"#;
    let text = text.to_string().replace("\"RANGES\"", ranges).replace("\"ROUTES\"", routes);
    std::fs::write(template.path(), text).expect("write the template");
    std::fs::remove_file(world.paths.cni_conf.join("10-seam.conflist")).expect("remove the network");
    world.run().await;
    pull(&world).await;
    let (cri, before) = (world.cri(), world.inventory().await);
    let tell = |pod_cidr: String| {
        let runtime_config = Some(RuntimeConfig { network_config: Some(NetworkConfig { pod_cidr }) });
        UpdateRuntimeConfigRequest { runtime_config }
    };
    let rendered = world.paths.cni_conf.join("10-containerd-net.conflist");
    let answer = cri.try_update_runtime_config(tell("10.0.0.0/33".into())).await;
    refused(answer, Code::InvalidArgument, "10.0.0.0/33");
    cri.update_runtime_config(tell(String::new())).await;
    assert!(!rendered.exists());
    ready(&cri, false).await;

    cri.update_runtime_config(tell(format!("{}, {}", world.slot.subnet(), world.slot.subnet6()))).await;
    ready(&cri, true).await;
    let written = std::fs::read_to_string(&rendered).expect("the network is written");
    let pod = cri.run_pod(&world.pod("cidr")).await;
    let mut ips = addresses(&cri, &pod).await;
    if peer().is_some() {
        ips.sort_by_key(|ip| !ip.contains(':')); // It does not know the preference yet.
    }
    let starts = [world.slot.subnet6(), world.slot.subnet()].map(|net| start(&net).to_owned());
    assert!(ips.len() == 2 && ips.iter().zip(&starts).all(|(ip, start)| ip.starts_with(start)), "{ips:?}");
    cri.update_runtime_config(tell("10.213.0.0/24".into())).await;
    assert_eq!(std::fs::read_to_string(&rendered).expect("still there"), written, "a network that is there stays");
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;
}

async fn several_networks_and_what_their_plugins_are_told(wiring: Wiring) {
    let mut options = Options::new(wiring);
    options.cni = "max_conf_num = 2".into();
    let own = tempfile::tempdir().expect("make a folder");
    options.handlers = vec![("own", format!("cni_conf_dir = \"{}\"\ncni_max_conf_num = 1", own.path().display()))];
    let mut world = World::prepare(wiring, options);
    let name = world.slot.name();
    let gate = |capabilities: Value| json!({"type": "cni-gate", "dir": world.paths.gate, "capabilities": capabilities});
    let every = json!({"portMappings": true, "bandwidth": true, "dns": true, "cgroupPath": true, "ipRanges": true,
        "io.kubernetes.cri.pod-annotations": true, "mac": true});
    write(&world, "10-seam.conflist", &name, &[bridge(&world, &[world.slot.subnet()]), gate(every.clone())]);
    write(&world, "20-six.conflist", &format!("{name}-six"), &[bridge(&world, &[world.slot.subnet6()])]);
    write(&world, "30-unused.conflist", "unused", &[json!({"type": "nothing"})]);
    world.run().await;
    pull(&world).await;
    let (cri, before) = (world.cri(), world.inventory().await);

    // The pod's plugin takes its time: what does not need the network is done meanwhile.
    let mut config = world.pod("cni-slow");
    config.port_mappings = vec![
        PortMapping { container_port: 53, host_port: 5353, protocol: Protocol::Udp.into(), ..Default::default() },
        PortMapping { container_port: 80, ..Default::default() },
    ];
    config.annotations.insert("kubernetes.io/egress-bandwidth".into(), "1.5M".into());
    let pod = cri.run_pod(&config).await;
    if peer().is_none() {
        beside_the_network(&cri, &pod, &name).await;
    }
    assert_eq!(addresses(&cri, &pod).await.len(), 1, "the kubelet is told the first network's");
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    let shown = cri.exec_ok(&id, &["ip", "addr"]).await;
    assert!(shown.contains("eth0") && shown.contains("eth1") && !shown.contains("eth2"), "{shown}");
    assert!(shown.contains(start(&world.slot.subnet6())), "{shown}");

    // It declared everything, and is told what there is; the other one declared nothing.
    let mut told: Value = {
        let text = std::fs::read(world.paths.gate.join("config-ADD-cni-slow")).expect("what the plugin was told");
        serde_json::from_slice(&text).expect("it is JSON")
    };
    assert_eq!(told["capabilities"], every, "as libcni leaves them");
    let annotations = told["runtimeConfig"]["io.kubernetes.cri.pod-annotations"].take();
    assert_eq!(annotations, json!(config.annotations));
    let expected = json!({
        "portMappings": [{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": ""}],
        "bandwidth": {"egressRate": 1_500_000, "egressBurst": u32::MAX},
        "dns": {"servers": ["10.0.0.10"], "searches": ["e2e.svc.cluster.local"], "options": ["ndots:5"]},
        "cgroupPath": format!("/{name}"),
        "io.kubernetes.cri.pod-annotations": null,
    });
    // The peer is older than these spellings.
    if peer().is_none() {
        assert_eq!(told["runtimeConfig"], expected);
    }
    cri.end_pod(&pod).await;
    let text =
        std::fs::read_to_string(world.paths.gate.join("config-DEL-cni-slow")).expect("what it was told at the end");
    assert!(text.to_lowercase().contains("\"hostport\":5353"), "DEL is told what ADD was: {text}");
    world.assert_as_before(&before).await;

    // A handler has its own folder, which is looked at in the same way.
    let run = |name: &str| {
        let (cri, config) = (cri.clone(), Some(world.pod(name)));
        async move { cri.try_run_pod_sandbox(RunPodSandboxRequest { config, runtime_handler: "own".into() }).await }
    };
    if peer().is_none() {
        refused(run("lost").await, Code::Unavailable, &own.path().display().to_string());
        world.assert_as_before(&before).await;
    }
    for file in ["20-six.conflist", "30-unused.conflist"] {
        std::fs::copy(world.paths.cni_conf.join(file), own.path().join(file)).expect("copy a network");
    }
    peer_sees().await;
    let pod = run("own").await.expect("it has a network now").pod_sandbox_id;
    let ips = addresses(&cri, &pod).await;
    assert!(ips.len() == 1 && ips[0].starts_with(start(&world.slot.subnet6())), "{ips:?}");
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;

    // A plugin that fails is named, with its answer and its own words; the other network is taken back with it.
    if peer().is_some() {
        return; // It keeps the pod, for the kubelet to remove.
    }
    let failed = cri.try_run_pod(&world.pod("cni-fail")).await.expect_err("the plugin fails");
    for part in
        ["\"cni-gate\" (ADD", &name, "asked for a failure", "code 100", "stderr: the gate is closed for cni-fail"]
    {
        assert!(failed.message().contains(part), "{part:?} is not in {failed:?}");
    }
    world.assert_as_before(&before).await;
}

/// What needs no network was done while a slow plugin of the network `name` worked; each plugin's time is known.
async fn beside_the_network(cri: &Cri, pod: &str, name: &str) {
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let timeline = cri.pod_sandbox_status(request).await.info["timeline"].clone();
    let stages: Vec<Value> = serde_json::from_str(&timeline).expect("the timeline is JSON");
    let stage = |name: &str| {
        let stage = stages.iter().find(|s| s["stage"] == name).unwrap_or_else(|| panic!("no {name}: {timeline}"));
        let number = |key: &str| stage[key].as_u64().expect("a number");
        number("start_us")..number("start_us") + number("us")
    };
    let network = stage("cni");
    assert!(network.end - network.start > 1_400_000, "{timeline}");
    for beside in ["snapshot", "task-create"] {
        assert!(stage(beside).end < network.end, "{beside} waited for the network: {timeline}");
    }
    let timed = |plugin: &str| stages.iter().any(|s| s["stage"] == "cni-plugin" && s["detail"] == plugin);
    assert!(timed(&format!("{name}/cni-gate")) && timed(&format!("{name}-six/bridge")), "{timeline}");
}
