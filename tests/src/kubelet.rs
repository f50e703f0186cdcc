//! A real kubelet on the CRI socket of a world: static pods, the read-only port, the kubelet's own API.
//!
//! The kubelet is version 1.20.2 (CRI v1alpha2), built by `tests/scripts/build-kubelet`; `SEAM_KUBELET` names the
//! binary. It knows no API server and runs the pods whose manifests lie in a folder. Its cgroups are below the
//! world's own; what it shares with every other kubelet of the machine is `/var/log/pods`, where the node's name keeps
//! pods apart.
//!
//! Formats and ports: <https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/>.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixtures::PAUSE;
use crate::kubectl::Query;
use crate::{World, eventually};

/// Where the kubelet puts every pod's logs; the path is fixed in it.
pub const POD_LOGS: &str = "/var/log/pods";

/// A running kubelet; dropping it kills it, and leaves its pods to the runtime.
#[derive(Debug)]
pub struct Kubelet {
    root: PathBuf,
    manifests: PathBuf,
    node: String,
    ports: Ports,
    extra: Vec<String>,
    cri_socket: PathBuf,
    log: PathBuf,
    process: Option<Daemon>,
    client: reqwest::Client,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    api: u16,
    read_only: u16,
    health: u16,
}

/// One container of a pod as the kubelet reports it.
#[derive(Debug, Clone)]
pub struct Reported {
    pub ready: bool,
    pub restarts: u64,
    pub id: String,
    /// `state` and `lastState` of the pod API.
    pub state: Value,
    pub last: Value,
}

impl Kubelet {
    /// Starts a kubelet on `world`; `extra` are more flags.
    pub async fn start(world: &World, extra: &[&str]) -> Self {
        Self::start_at(world.cri_socket(), world, extra).await
    }

    /// The same with another socket in front of the world's.
    pub async fn start_at(cri_socket: &Path, world: &World, extra: &[&str]) -> Self {
        let root = world.paths.dir.join("kubelet");
        let manifests = world.paths.dir.join("manifests");
        std::fs::create_dir_all(&manifests).expect("make the folder of manifests");
        let client = reqwest_client();
        let mut kubelet = Self {
            root,
            manifests,
            node: world.slot.name(),
            ports: Ports {
                api: world.slot.host_port(7),
                read_only: world.slot.host_port(8),
                health: world.slot.host_port(9),
            },
            extra: extra.iter().map(|&flag| flag.to_owned()).collect(),
            cri_socket: cri_socket.to_owned(),
            log: world.paths.dir.join("kubelet.log"),
            process: None,
            client,
        };
        kubelet.run().await;
        kubelet
    }

    /// Starts the process again after [`stop`](Self::stop).
    pub async fn run(&mut self) {
        let program = std::env::var_os("SEAM_KUBELET").expect("SEAM_KUBELET names a kubelet: run `make test-kubelet`");
        let mut command = Command::new(program);
        command
            .arg("--container-runtime=remote")
            .arg(format!("--container-runtime-endpoint=unix://{}", self.cri_socket.display()))
            .arg(format!("--pod-manifest-path={}", self.manifests.display()))
            .arg(format!("--root-dir={}", self.root.display()))
            .arg(format!("--cert-dir={}", self.root.join("pki").display()))
            .arg(format!("--cgroup-root=/{}", self.node))
            .arg(format!("--hostname-override={}", self.node))
            .arg(format!("--pod-infra-container-image={PAUSE}"))
            .args(["--fail-swap-on=false", "--cgroup-driver=cgroupfs", "--max-pods=120", "--address=127.0.0.1"])
            .args(["--eviction-hard=", "--enforce-node-allocatable=", "--make-iptables-util-chains=false"])
            // A disk that is rather full is no reason to remove images meanwhile.
            .arg("--image-gc-high-threshold=100")
            .args(["--file-check-frequency=1s", "--sync-frequency=5s", "--volume-stats-agg-period=10s"])
            .args(["--authorization-mode=AlwaysAllow", "--anonymous-auth=true", "--registry-qps=0"])
            .arg(format!("--port={}", self.ports.api))
            .arg(format!("--read-only-port={}", self.ports.read_only))
            .arg(format!("--healthz-port={}", self.ports.health))
            .args(&self.extra);
        self.process = Some(Daemon::spawn("kubelet", &mut command, &self.log));
        let log = self.log.clone();
        let process = std::cell::RefCell::new(self.process.as_mut().expect("just started"));
        let url = format!("http://127.0.0.1:{}/healthz", self.ports.health);
        let client = self.client.clone();
        eventually("the kubelet is healthy", Duration::from_secs(60), || {
            if let Some(status) = process.borrow_mut().ended() {
                panic!("the kubelet ended with {status}\n{}", crate::daemon::tail(&log, 30));
            }
            let request = client.get(&url).send();
            async move {
                let answer = request.await.map_err(|e| e.to_string())?;
                if answer.status().is_success() { Ok(()) } else { Err(format!("{}", answer.status())) }
            }
        })
        .await;
    }

    /// SIGTERM, and waits for the end. Pods go on.
    pub fn stop(&mut self) {
        self.process.take().expect("the kubelet runs").terminate();
    }

    /// Ends it, and removes the cgroups that it leaves.
    pub fn end(self, world: &World) {
        drop(self);
        for root in crate::slot::cgroup_roots() {
            remove_empty(&root.join(world.slot.name()).join("kubepods"));
        }
    }

    /// Starts it again with other flags than before.
    pub async fn restart_with(&mut self, extra: &[&str]) {
        self.stop();
        self.extra = extra.iter().map(|&flag| flag.to_owned()).collect();
        self.run().await;
    }

    /// Lays down the manifest of a static pod; the kubelet names the pod NAME-NODE.
    pub fn add(&self, name: &str, spec: Value) {
        self.add_annotated(name, json!({}), spec);
    }

    /// As [`add`](Self::add), with annotations.
    pub fn add_annotated(&self, name: &str, annotations: Value, spec: Value) {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}, "annotations": annotations},
            "spec": spec,
        });
        // A half-written manifest is never seen: files that begin with a dot are not read.
        let hidden = self.manifests.join(format!(".{name}"));
        std::fs::write(&hidden, manifest.to_string()).expect("write a manifest");
        std::fs::rename(&hidden, self.manifests.join(format!("{name}.json"))).expect("place a manifest");
    }

    /// Takes the manifest away: the kubelet ends the pod.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifests.join(format!("{name}.json"))).expect("remove a manifest");
    }

    /// Takes all manifests away.
    pub fn remove_all(&self) {
        for entry in std::fs::read_dir(&self.manifests).expect("list manifests").flatten() {
            std::fs::remove_file(entry.path()).expect("remove a manifest");
        }
    }

    /// The pod's name as the kubelet gave it.
    pub fn full_name(&self, pod: &str) -> String {
        format!("{pod}-{}", self.node)
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}{path}", self.ports.read_only);
        let answer = self.client.get(url).send().await.map_err(|e| e.to_string())?;
        let text = answer.text().await.map_err(|e| e.to_string())?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}: {text}"))
    }

    /// All pods that the kubelet knows.
    pub async fn pods(&self) -> Vec<Value> {
        match self.get("/pods").await {
            Ok(list) => list["items"].as_array().cloned().unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// `/stats/summary`.
    pub async fn summary(&self) -> Value {
        self.get("/stats/summary").await.unwrap_or_else(|e| panic!("the kubelet's stats: {e}"))
    }

    /// One pod, if the kubelet knows it.
    pub async fn pod(&self, name: &str) -> Option<Value> {
        let name = self.full_name(name);
        self.pods().await.into_iter().find(|pod| pod["metadata"]["name"] == name.as_str())
    }

    /// Waits until `check` is content with a pod's `status`.
    pub async fn wait<T>(&self, name: &str, what: &str, limit: Duration, check: impl Fn(&Value) -> Option<T>) -> T {
        let check = &check;
        eventually(format!("pod {name}: {what}"), limit, || async move {
            let pod = self.pod(name).await.ok_or("the kubelet doesn't know it")?;
            check(&pod["status"]).ok_or_else(|| pod["status"].to_string())
        })
        .await
    }

    /// Waits until a pod is Ready; answers its IP.
    pub async fn ready(&self, name: &str) -> String {
        self.wait(name, "ready", Duration::from_secs(60), |status| {
            is_ready(status).then(|| status["podIP"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    /// Waits until the kubelet has forgotten all pods and the runtime has removed theirs.
    pub async fn gone(&self, world: &World, limit: Duration) {
        let cri = world.cri();
        eventually("all pods are gone", limit, || async {
            let pods = cri.list_pods(Default::default()).await;
            let known = self.pods().await;
            if pods.is_empty() && known.is_empty() {
                return Ok(());
            }
            let names: Vec<_> = pods.iter().filter_map(|p| p.metadata.as_ref()).map(|m| &m.name).collect();
            Err(format!("{} pods at the kubelet; at the runtime {names:?}", known.len()))
        })
        .await;
    }

    fn api(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.ports.api)
    }

    /// The log of a container as `kubectl logs` reads it.
    pub async fn container_log(&self, pod: &str, container: &str, query: &str) -> String {
        let url = self.api(&format!("/containerLogs/default/{}/{container}?{query}", self.full_name(pod)));
        let answer = self.client.get(url).send().await.expect("ask for a log");
        let status = answer.status();
        let text = answer.text().await.expect("read a log");
        assert!(status.is_success(), "log of {pod}/{container}: {status}: {text}");
        text
    }

    /// Runs a command through the kubelet's `/run` (ExecSync); answers its output.
    pub async fn run_command(&self, pod: &str, container: &str, command: &str) -> Result<String, String> {
        let url = self.api(&format!("/run/default/{}/{container}?cmd={command}", self.full_name(pod)));
        let answer = self.client.post(url).send().await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| e.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    }

    /// Where the kubelet serves `exec`, `attach` and `portforward` of a pod's container, for a query as API servers
    /// get it.
    pub fn stream(&self, what: &str, pod: &str, container: &str, query: &Query) -> String {
        let mut path = format!("/{what}/default/{}", self.full_name(pod));
        let mut more = Vec::new();
        if what == "portforward" {
            path = path.replacen("portforward", "portForward", 1);
            more.extend(query.all("ports").into_iter().map(|port| format!("port={port}")));
        } else {
            path.push_str(&format!("/{container}"));
            more.extend(query.all("command").iter().map(|word| format!("command={}", percent_encode(word))));
            let names = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
            more.extend(names.iter().filter(|(name, _)| query.is_true(name)).map(|(_, name)| format!("{name}=1")));
        }
        self.api(&format!("{path}?{}", more.join("&")))
    }

    /// The kubelet's own log, to be shown when a test fails.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The kubelet's process.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("the kubelet runs").pid()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("=== the kubelet\n{}", crate::daemon::tail(&self.log, 40));
        }
        self.process.take();
        unmount_volumes(&self.root);
        remove_logs(&format!("-{}_", self.node));
    }
}

fn remove_empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_empty(&entry.path());
        }
    }
    // Fails where a process is left, which the inventory then shows.
    let _ = std::fs::remove_dir(dir);
}

/// Secrets and emptyDirs in memory are tmpfs mounts of the kubelet; its own folder it mounts on itself, to share it.
fn unmount_volumes(root: &Path) {
    let mut mounts = crate::inventory::mounts(root);
    mounts.insert(0, root.to_owned());
    for mount in mounts.iter().rev() {
        // Fails for what is mounted no more. A kubelet that was started again has mounted its folder again.
        while nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
    }
}

/// Removes what this world's pods logged in the folders that all kubelets share.
fn remove_logs(part: &str) {
    for dir in [POD_LOGS, "/var/log/containers"] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(part) {
                let path = entry.path();
                let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            }
        }
    }
}

/// The kubelet signs its own certificate.
pub(crate) fn reqwest_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .http1_only()
        .timeout(Duration::from_secs(30))
        .build()
        .expect("make an HTTP client")
}

fn percent_encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Whether a pod's status has the condition Ready.
pub fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// A container in a pod's status; init containers are looked for as well.
pub fn container(status: &Value, name: &str) -> Option<Reported> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut all = lists.iter().filter_map(|list| status[list].as_array()).flatten();
    let found = all.find(|c| c["name"] == name)?;
    Some(Reported {
        ready: found["ready"].as_bool().unwrap_or_default(),
        restarts: found["restartCount"].as_u64().unwrap_or_default(),
        id: found["containerID"].as_str().unwrap_or_default().trim_start_matches("containerd://").to_owned(),
        state: found["state"].clone(),
        last: found["lastState"].clone(),
    })
}
