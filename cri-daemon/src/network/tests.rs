//! Networks with the real plugins, and with plugins that misbehave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use super::pod_cidr::RENDERED;
use super::*;
use crate::instrument::Timeline;

struct World {
    dir: tempfile::TempDir,
    network: Network,
}

/// The conf folder, the cache, and a folder for fake plugins, all private.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    for name in ["conf", "bin"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let cni = shared_config::Cni {
        bin_dirs: vec![dir.path().join("bin"), "/usr/lib/cni".into()],
        conf_dir: dir.path().join("conf"),
        ..Default::default()
    };
    let mut network = Network::new(&cni, &dir.path().join("cache"), Default::default());
    network.limits = Limits { add: Duration::from_secs(30), del: Duration::from_secs(30) };
    World { network, dir }
}

impl World {
    fn conf(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("conf").join(name), text).unwrap();
    }

    /// A plugin as a shell script; it may write to `$LOG`.
    fn plugin(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        let log = self.dir.path().join("log");
        fs::write(&path, format!("#!/bin/sh\nLOG={}\n{script}\n", log.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn cached(&self) -> usize {
        fs::read_dir(self.dir.path().join("cache/results")).map(|d| d.count()).unwrap_or(0)
    }
}

fn ready(network: &str) -> NetworkStatus {
    NetworkStatus::Ready { networks: vec![network.into()], left_out: vec![] }
}

fn pod(id: &str, netns: &Path) -> PodNetwork {
    PodNetwork {
        id: id.into(),
        name: "p".into(),
        namespace: "default".into(),
        uid: "u".into(),
        netns: netns.into(),
        ..Default::default()
    }
}

/// A bridge with NAT-free addresses of this test's own.
fn bridge(world: &World, bridge: &str, subnet: &str) -> String {
    let data = world.dir.path().join("ipam");
    let list = json!({
        "cniVersion": "0.4.0",
        "name": bridge,
        "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": data, "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}}
        ]
    });
    list.to_string()
}

#[tokio::test]
async fn a_pod_gets_an_address_and_gives_it_back() {
    let world = world();
    assert_eq!(
        world.network.status().await,
        NetworkStatus::NotReady(format!(
            "cni plugin not initialized: no network configuration in {}",
            world.dir.path().join("conf").display()
        ))
    );
    let netns = world.dir.path().join("netns");
    shared_sys::netns::create(&netns).unwrap();
    let pod = pod("pod-real", &netns);
    assert!(matches!(world.network.setup(&pod).await, Err(NetworkError::NoConfig { .. })));
    world.conf("10-net.conflist", &bridge(&world, "crispecbr0", "10.231.0.0/24"));
    assert_eq!(world.network.status().await, ready("crispecbr0"));

    let (timeline, metrics) = (Timeline::default(), Metrics::default());
    let request = timeline.request("RunPodSandbox", "", "", Instant::now(), &metrics);
    let setup = request.watch(world.network.setup(&pod)).await.unwrap();
    assert_eq!(setup.ips.len(), 1);
    assert!(setup.ips[0].to_string().starts_with("10.231.0."), "{:?}", setup.ips);
    let plugins: Vec<_> = request.account().stages().into_iter().map(|stage| stage.detail).collect();
    assert_eq!(plugins, ["crispecbr0/bridge".into()], "no ports, no port mapping");
    let inside =
        || shared_sys::netns::run_in(&netns, || fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
    assert!(inside().contains("eth0:"), "{}", inside());
    assert_eq!(world.cached(), 1);
    let cache = fs::read_dir(world.dir.path().join("cache/results")).unwrap().next().unwrap().unwrap().path();
    assert!(cache.ends_with("crispecbr0-pod-real-eth0"), "{cache:?}");
    let cache: Value = serde_json::from_slice(&fs::read(cache).unwrap()).unwrap();
    assert_eq!(cache["kind"], "cniCacheV1");
    assert!(cache["result"]["ips"][0]["address"].as_str().unwrap().starts_with("10.231.0."));

    // The configuration changes under the pod; what was set up is taken back all the same.
    world.conf("10-net.conflist", r#"{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"nothing"}]}"#);
    world.network.teardown(&pod).await.unwrap();
    assert!(!inside().contains("eth0:"));
    assert_eq!(world.cached(), 0);
    let leases = fs::read_dir(world.dir.path().join("ipam/crispecbr0")).unwrap().flatten();
    let addresses: Vec<_> = leases.filter(|e| e.file_name().to_string_lossy().starts_with("10.")).collect();
    assert!(addresses.is_empty(), "{addresses:?}");
    shared_sys::netns::remove(&netns).unwrap();
    world.conf("10-net.conflist", &bridge(&world, "crispecbr0", "10.231.0.0/24"));
    world.network.teardown(&PodNetwork { netns: PathBuf::new(), ..pod }).await.unwrap();
    let _ = std::process::Command::new("ip").args(["link", "del", "crispecbr0"]).status();
}

#[tokio::test]
async fn plugins_are_chained_and_told_about_the_pod() {
    let world = world();
    let tell =
        r#"printf '%s %s %s %s ' "${0##*/}" "$CNI_COMMAND" "$CNI_IFNAME" "$CNI_ARGS" >>$LOG; cat >>$LOG; echo >>$LOG"#;
    world.plugin(
        "one",
        &format!(
            r#"{tell}; [ $CNI_COMMAND = DEL ] || echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.9.0.2/24"}}]}}'"#
        ),
    );
    world.plugin(
        "portmap",
        &format!(
            r#"{tell}; [ $CNI_COMMAND = DEL ] || echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.9.0.3/24"}}]}}'"#
        ),
    );
    world.conf(
        "1.conflist",
        r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"one","key":"v"},{"type":"portmap","capabilities":{"portMappings":true}}]}"#,
    );
    let mut pod = pod("id1", Path::new("/ns"));
    pod.port_mappings = vec![v1::PortMapping { host_port: 81, container_port: 80, ..Default::default() }];
    let setup = world.network.setup(&pod).await.unwrap();
    assert_eq!(setup.ips, ["10.9.0.3".parse::<IpAddr>().unwrap()]);
    pod.port_mappings.clear();
    world.network.teardown(&pod).await.unwrap();
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=id1;K8S_POD_UID=u";
    let log = world.log();
    let lines: Vec<_> = log.lines().collect();
    let starts: Vec<_> = lines.iter().map(|l| l.split(" {").next().unwrap()).collect();
    let expected = ["one ADD", "portmap ADD", "portmap DEL", "one DEL"].map(|call| format!("{call} eth0 {args}"));
    assert_eq!(starts, expected);
    let config = |line: usize| serde_json::from_str::<Value>(&lines[line][starts[line].len()..]).unwrap();
    assert_eq!(config(0), json!({"type": "one", "key": "v", "name": "n", "cniVersion": "1.0.0"}));
    assert_eq!(config(1)["prevResult"]["ips"][0]["address"], "10.9.0.2/24");
    let mappings = json!([{"hostPort": 81, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]);
    assert_eq!(config(1)["runtimeConfig"]["portMappings"], mappings);
    assert_eq!(config(2)["runtimeConfig"]["portMappings"], mappings, "DEL gets what ADD got");
    assert_eq!(config(3)["prevResult"]["ips"][0]["address"], "10.9.0.3/24", "DEL gets the last result");
}

#[tokio::test]
async fn a_failed_set_up_is_taken_back_and_explained() {
    let world = world();
    world.plugin(
        "good",
        r#"echo "good $CNI_COMMAND" >>$LOG; echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}'"#,
    );
    let fail = r#"echo "bad $CNI_COMMAND" >>$LOG; [ $CNI_COMMAND = DEL ] && exit 0
echo "from the depths" >&2; echo '{"cniVersion":"1.0.0","code":11,"msg":"no more addresses","details":"range full"}'; exit 1"#;
    world.plugin("bad", fail);
    world.conf("1.conflist", r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"good"},{"type":"bad"}]}"#);
    let error = world.network.setup(&pod("id2", Path::new("/ns"))).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "CNI plugin \"bad\" (ADD, network \"n\") failed: no more addresses: range full (code 11); stderr: from the depths"
    );
    assert_eq!(world.log(), "good ADD\nbad ADD\nbad DEL\ngood DEL\n");
    world.network.teardown(&pod("id2", Path::new("/ns"))).await.unwrap();
    assert_eq!(world.log(), "good ADD\nbad ADD\nbad DEL\ngood DEL\n", "the clean-up of the pod has nothing to do");
    assert_eq!(world.cached(), 0);

    world.conf("1.conflist", r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"absent"}]}"#);
    assert!(matches!(world.network.status().await, NetworkStatus::NotReady(why) if why.contains("\"absent\"")));
}

#[tokio::test]
async fn a_failed_del_goes_on_and_can_be_repeated() {
    let world = world();
    world.plugin(
        "a",
        r#"echo "a $CNI_COMMAND" >>$LOG; echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}'"#,
    );
    world.plugin("b", r#"echo "b $CNI_COMMAND" >>$LOG; [ $CNI_COMMAND = DEL ] && [ ! -e $LOG.ok ] && exit 3; cat >/dev/null; echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}'"#);
    world.conf("1.conflist", r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{"type":"b"}]}"#);
    let pod = pod("id3", Path::new("/ns"));
    world.network.setup(&pod).await.unwrap();
    let error = world.network.teardown(&pod).await.unwrap_err().to_string();
    assert!(error.contains("\"b\" (DEL") && error.contains("exit status: 3"), "{error}");
    assert_eq!(world.log(), "a ADD\nb ADD\nb DEL\na DEL\n", "a was run although b failed");
    assert_eq!(world.cached(), 1);
    fs::write(world.dir.path().join("log.ok"), "").unwrap();
    world.network.teardown(&pod).await.unwrap();
    assert_eq!(world.cached(), 0);
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let mut world = world();
    world.network.limits.add = Duration::from_millis(300);
    world.plugin(
        "slow",
        "[ $CNI_COMMAND = DEL ] && exit 0; echo waiting for the controller >&2; sleep 1000 & echo $! >$LOG; wait",
    );
    world.conf("1.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"slow"}"#);
    let error = world.network.setup(&pod("id4", Path::new("/ns"))).await.unwrap_err();
    assert!(matches!(&error, NetworkError::Deadline { plugin, .. } if plugin == "slow"), "{error}");
    assert!(error.to_string().ends_with("within 300ms and was killed; stderr: waiting for the controller"), "{error}");
    let child = world.log();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let state = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[tokio::test]
async fn the_kubelets_cidr_fills_the_template() {
    let mut world = world();
    let template = world.dir.path().join("template");
    let plugin = r#"{"type":"bridge","ipam":{"ranges":[{{range $i, $r := .PodCIDRRanges}}{{if $i}},{{end}}[{"subnet":"{{$r}}"}]{{end}}]}}"#;
    fs::write(&template, format!(r#"{{"cniVersion":"1.0.0","name":"k","plugins":[{plugin}]}}"#)).unwrap();
    world.network.cni.conf_template = template;
    assert!(matches!(world.network.set_pod_cidr("10.1.0.0").await, Err(NetworkError::Cidr { .. })));
    world.network.set_pod_cidr("10.1.0.0/16, fd00::/64").await.unwrap();
    assert_eq!(world.network.status().await, ready("k"));
    let file = world.dir.path().join("conf").join(RENDERED);
    let before = fs::read_to_string(&file).unwrap();
    assert!(before.contains(r#"[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00::/64"}]"#), "{before}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644, "others read it as well");
    world.network.set_pod_cidr("10.2.0.0/16").await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "a ready network stays");

    // Somebody's own network is not added to, not even when its plugin is not there yet.
    fs::remove_file(&file).unwrap();
    world.conf("50-own.conf", r#"{"cniVersion":"1.0.0","name":"own","type":"absent"}"#);
    world.network.set_pod_cidr("10.2.0.0/16").await.unwrap();
    assert!(!file.exists());
    for bad in ["10.1.0.0/16,", "10.1.0.0/33", "fd00::/129", "10.1.0.0/16;fd00::/64"] {
        assert!(matches!(world.network.set_pod_cidr(bad).await, Err(NetworkError::Cidr { .. })), "{bad}");
    }
}

#[tokio::test]
async fn much_said_is_cut_to_its_end_and_what_is_left_running_delays_nothing() {
    let world = world();
    // Two megabytes, more than any pipe holds, then the reason.
    world.plugin(
        "loud",
        "[ $CNI_COMMAND = DEL ] && exit 0; yes a lot of words | head -c 2000000 >&2; echo the reason >&2; exit 1",
    );
    world.conf("1.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"loud"}"#);
    let error = world.network.setup(&pod("id5", Path::new("/ns"))).await.unwrap_err().to_string();
    assert!(error.contains("\"loud\" (ADD") && error.ends_with("the reason") && error.len() < 1300, "{error}");

    // It leaves a daemon that holds all its output.
    let leaves = r#"[ $CNI_COMMAND = DEL ] && exit 0; sleep 20 & echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}'"#;
    world.plugin("loud", leaves);
    let started = Instant::now();
    world.network.setup(&pod("id6", Path::new("/ns"))).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn several_networks_are_set_up_side_by_side_or_in_turn() {
    let mut world = world();
    world.network.cni.max_conf_num = 2;
    world.plugin(
        "net",
        r#"c=$(cat); echo "$CNI_COMMAND $CNI_IFNAME" >>$LOG; [ $CNI_COMMAND = DEL ] && exit 0
case "$c" in *\"fail\"*) exit 9 ;; esac
sleep 0.4; echo "done $CNI_IFNAME" >>$LOG
echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"/ns"}],"ips":[{"address":"10.9.'${CNI_IFNAME#eth}'.2/24","interface":0}]}'"#,
    );
    for (file, name) in [("1.conf", "one"), ("2.conf", "two"), ("3.conf", "three")] {
        world.conf(file, &format!(r#"{{"cniVersion":"1.0.0","name":"{name}","type":"net"}}"#));
    }
    let pod = pod("id7", Path::new("/ns"));
    let setup = world.network.setup(&pod).await.unwrap();
    let log = world.log();
    let first: Vec<_> = log.lines().take(2).collect();
    assert!(first.contains(&"ADD eth0") && first.contains(&"ADD eth1"), "{log}");
    assert_eq!(setup.ips, ["10.9.0.2".parse::<IpAddr>().unwrap()], "the pod's address is the first network's");
    assert_eq!(setup.result.interfaces["eth1"].ip_configs[0].ip, "10.9.1.2");
    world.network.teardown(&pod).await.unwrap();
    assert!(world.log().ends_with("DEL eth1\nDEL eth0\n"), "{}", world.log());

    fs::remove_file(world.dir.path().join("log")).unwrap();
    world.network.cni.setup_serially = true;
    world.network.setup(&pod).await.unwrap();
    world.network.teardown(&pod).await.unwrap();
    assert_eq!(world.log(), "ADD eth0\ndone eth0\nADD eth1\ndone eth1\nDEL eth1\nDEL eth0\n");

    // One of them fails while the other works: nothing is left of either.
    world.network.cni.setup_serially = false;
    world.conf("2.conf", r#"{"cniVersion":"1.0.0","name":"two","type":"net","fail":true}"#);
    let error = world.network.setup(&pod).await.unwrap_err().to_string();
    assert!(error.contains("network \"two\"") && error.contains("exit status: 9"), "{error}");
    assert!(world.log().ends_with("done eth0\nDEL eth1\nDEL eth0\n"), "{}", world.log());
    assert_eq!(world.cached(), 0);
}

#[tokio::test]
async fn limits_and_ports_that_are_none_are_refused_before_anything_is_done() {
    let world = world();
    world.plugin("one", "echo $CNI_COMMAND >>$LOG");
    world.conf("1.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"one"}"#);
    let mut pod = pod("id8", Path::new("/ns"));
    pod.annotations.insert("kubernetes.io/egress-bandwidth".into(), "10 Mbit".into());
    let error = shared_proto::Error::from(world.network.setup(&pod).await.unwrap_err());
    assert_eq!(error.code, shared_proto::Code::InvalidArgument);
    assert!(error.message.contains("egress-bandwidth") && error.message.contains("10 Mbit"), "{error}");
    pod.annotations.clear();
    let good = v1::PortMapping { container_port: 80, host_port: 8080, ..Default::default() };
    for (wrong, names) in [
        (v1::PortMapping { host_port: 65_536, ..good.clone() }, "port_mappings[1].host_port: 65536"),
        (v1::PortMapping { container_port: -1, ..good.clone() }, "port_mappings[1].container_port: -1"),
        (v1::PortMapping { protocol: 3, ..good.clone() }, "port_mappings[1].protocol: 3"),
        (v1::PortMapping { host_ip: "localhost".into(), ..good.clone() }, "port_mappings[1].host_ip: \"localhost\""),
    ] {
        pod.port_mappings = vec![v1::PortMapping { host_ip: "::1".into(), ..good.clone() }, wrong];
        let error = shared_proto::Error::from(world.network.setup(&pod).await.unwrap_err());
        assert_eq!(error.code, shared_proto::Code::InvalidArgument);
        assert!(error.message.starts_with(names), "{error}");
    }
    assert_eq!(world.log(), "");
}

#[test]
fn a_handlers_folder_has_the_usual_limit_unless_it_names_one() {
    let network = Network::new(&shared_config::Cni::default(), Path::new("/none"), Default::default());
    let mut runtime = shared_config::Runtime { cni_conf_dir: "/other".into(), ..Default::default() };
    assert_eq!(network.for_runtime(&runtime).cni.max_conf_num, 1);
    runtime.cni_max_conf_num = 3;
    let own = network.for_runtime(&runtime).cni;
    assert_eq!((own.conf_dir.as_path(), own.max_conf_num), (Path::new("/other"), 3));
}
