//! What a world holds at one moment, by name: the leak checker.
//!
//! An inventory taken before and one taken after must be equal. It covers what a pod is made of, as seen from outside
//! (processes, mounts, network namespaces, bridge ports, addresses, cgroups, files, sockets) and as the core and the
//! CRI side tell it (records). Content and images are part of it: nothing may go that should stay, either.
//!
//! Limit: network namespaces in `/run/netns` carry no owner's name. They are looked at, machine-wide, only by a world
//! that keeps its own there; something else that makes pods at the same time would show.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use shared_proto::containerd::{containers, content, images, leases, namespaces, snapshots, tasks};
use shared_proto::cri::v1;
use shared_proto::{Context, Core};

use crate::World;
use crate::slot::pids_in;

/// Names of things, each with its kind in front: `mount /…`, `process 12 runc …`.
pub type Inventory = BTreeSet<String>;

/// Every process: its pid and command line.
pub fn processes() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").expect("read /proc");
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()))
        })
        .collect()
}

/// Mount points below `dir`, parents first.
pub fn mounts(dir: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("read /proc/self/mountinfo");
    let targets = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    targets.filter(|target| target.starts_with(dir) && target != dir).collect()
}

impl World {
    /// Everything that exists now. Snapshots that were removed go in the background, and are waited for a little.
    pub async fn inventory(&self) -> Inventory {
        let started = Instant::now();
        loop {
            let all = self.look().await;
            let going = all.iter().any(|item| item.starts_with("snapshot folder") && item.contains("/snapshots/rm-"));
            if !going || started.elapsed() > Duration::from_secs(3) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn look(&self) -> Inventory {
        let mut all = Inventory::new();
        self.kernel_side(&mut all);
        self.file_side(&mut all);
        records(&self.core(), &mut all).await;
        self.cri_side(&mut all).await;
        all
    }

    /// Waits until nothing is there that was not there `before`, and nothing is missing; otherwise says what by name.
    pub async fn assert_as_before(&self, before: &Inventory) {
        let limit = Duration::from_secs(10);
        let started = Instant::now();
        loop {
            let now = self.inventory().await;
            if now == *before {
                return;
            }
            if started.elapsed() > limit {
                let left: Vec<_> = now.difference(before).collect();
                let gone: Vec<_> = before.difference(&now).collect();
                panic!("after {limit:?}:\nleft behind: {left:#?}\ngone: {gone:#?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn kernel_side(&self, all: &mut Inventory) {
        for (pid, line) in self.processes() {
            all.insert(format!("process {pid} {line}"));
        }
        for cgroup in self.slot.cgroups() {
            cgroups(&cgroup, all);
        }
        for mount in mounts(&self.paths.dir) {
            all.insert(format!("mount {}", mount.display()));
        }
        if !self.options.private_netns {
            list(Path::new("/run/netns"), "netns", all);
            all.extend(mounts(Path::new("/run/netns")).iter().map(|mount| format!("mount {}", mount.display())));
        }
        let ports = Path::new("/sys/class/net").join(self.slot.name()).join("brif");
        list(&ports, "veth", all);
    }

    fn file_side(&self, all: &mut Inventory) {
        let network = self.slot.name();
        for given_out in std::fs::read_dir(&self.paths.ipam).into_iter().flatten().flatten() {
            list(&given_out.path(), "address", all);
        }
        all.retain(|item| !item.contains("last_reserved_ip") && !item.ends_with("/lock"));
        for entry in std::fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{network}-")) {
                all.insert(format!("CNI result {}", entry.path().display()));
            }
        }
        list(&self.paths.runc_root.join("k8s.io"), "runc state", all);
        for name in ["overlayfs", "native"] {
            let dir = self.paths.root.join(format!("io.containerd.snapshotter.v1.{name}/snapshots"));
            list(&dir, "snapshot folder", all);
        }
        tree(&self.paths.root.join("io.containerd.content.v1.content"), all);
        tree(&self.paths.root.join("io.containerd.grpc.v1.cri"), all);
        tree(&self.paths.state, all);
        // So is the folder of a namespace's tasks.
        let tasks = self.paths.state.join("io.containerd.runtime.v2.task").join(format!("{network}-"));
        all.retain(|item| {
            !item.strip_prefix("folder ").is_some_and(|path| {
                path.starts_with(&*tasks.to_string_lossy()) && Path::new(path).parent() == tasks.parent()
            })
        });
        for (socket, id) in self.shim_sockets() {
            all.insert(format!("shim socket {} of {id}", socket.display()));
        }
        for program in ["iptables", "ip6tables"] {
            all.extend(
                crate::leftovers::rules(program, &self.slot).iter().map(|rule| format!("{program}-save {}", rule.line)),
            );
        }
    }

    /// Sockets of this world's shims: Debian's shim names them after the hash of core socket, namespace and id.
    pub fn shim_sockets(&self) -> Vec<(PathBuf, String)> {
        let logs = ["core-daemon.log", "cri-daemon.log", "gate/calls"].map(|name| {
            String::from_utf8_lossy(&std::fs::read(self.paths.dir.join(name)).unwrap_or_default()).into_owned()
        });
        let ids: BTreeSet<&str> = logs.iter().flat_map(|log| ids_in(log)).collect();
        let sockets = ids.into_iter().flat_map(|id| ["k8s.io", "moby"].map(|ns| (ns, id))).map(|(ns, id)| {
            let name = format!("{}/{ns}/{id}", self.paths.core_socket.display());
            let hash = crate::image::digest(name.as_bytes());
            (Path::new("/run/containerd/s").join(&hash["sha256:".len()..]), id.to_owned())
        });
        sockets.filter(|(socket, _)| socket.exists()).collect()
    }

    async fn cri_side(&self, all: &mut Inventory) {
        let cri = self.cri();
        for pod in cri.list_pods(v1::ListPodSandboxRequest::default()).await {
            all.insert(format!("CRI pod {} {:?}", pod.id, pod.metadata));
        }
        for container in cri.list_containers(v1::ListContainersRequest::default()).await.containers {
            all.insert(format!("CRI container {} {:?}", container.id, container.metadata));
        }
    }
}

/// The cgroups below one of the world's own, and the processes in them.
fn cgroups(dir: &Path, all: &mut Inventory) {
    for pid in pids_in(dir) {
        all.insert(format!("process {pid} in cgroup {}", dir.display()));
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            all.insert(format!("cgroup {}", entry.path().display()));
            cgroups(&entry.path(), all);
        }
    }
}

/// The entries of a folder, if it exists.
fn list(dir: &Path, kind: &str, all: &mut Inventory) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        all.insert(format!("{kind} {}", entry.path().display()));
    }
}

/// Folders that stay once they are made: they sort what is in them, and belong to no pod.
const SHELVES: &[&str] = &[
    "io.containerd.runtime.v2.task",
    "containers",
    "sandboxes",
    "netns",
    "k8s.io",
    "default",
    "moby",
    "blobs",
    "sha256",
    "ingest",
    "fifo",
];

/// Every path below a folder, symlinks and mounts not followed, shelves left out.
fn tree(dir: &Path, all: &mut Inventory) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = match kind {
            kind if kind.is_dir() => "folder",
            kind if kind.is_fifo() => "FIFO",
            kind if kind.is_socket() => "socket",
            _ => "file",
        };
        if !(kind.is_dir() && SHELVES.iter().any(|shelf| entry.file_name() == *shelf)) {
            all.insert(format!("{name} {}", entry.path().display()));
        }
        // The file systems of containers are the snapshot's, counted there.
        if kind.is_dir() && entry.file_name() != "rootfs" {
            tree(&entry.path(), all);
        }
    }
}

/// Every id that the world's logs speak of: 64 hexadecimal digits.
fn ids_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64).collect()
}

/// What the core knows, in every namespace.
async fn records(core: &Core, all: &mut Inventory) {
    let none = Context::default();
    let listed = core.namespaces.list(&none, namespaces::ListNamespacesRequest::default()).await;
    for namespace in listed.expect("list namespaces").namespaces {
        let ns = namespace.name;
        let cx = Context::new(&ns);
        let answer = core.containers.list(&cx, containers::ListContainersRequest::default()).await;
        for item in answer.expect("list containers").containers {
            all.insert(format!("container {ns}/{}", item.id));
        }
        let answer = core.tasks.list(&cx, tasks::ListTasksRequest::default()).await;
        for item in answer.expect("list tasks").tasks {
            all.insert(format!("task {ns}/{}", item.id));
        }
        let answer = core.images.list(&cx, images::ListImagesRequest::default()).await;
        for item in answer.expect("list images").images {
            all.insert(format!("image {ns}/{}", item.name));
        }
        let answer = core.leases.list(&cx, leases::ListRequest::default()).await;
        for item in answer.expect("list leases").leases {
            all.insert(format!("lease {ns}/{} {:?}", item.id, item.labels));
        }
        for snapshotter in ["overlayfs", "native"] {
            let request = snapshots::ListSnapshotsRequest { snapshotter: snapshotter.into(), ..Default::default() };
            let answer = core.snapshots.list(&cx, request).await.expect("list snapshots");
            for page in answer.try_collect::<Vec<_>>().await.expect("list snapshots") {
                all.extend(page.info.into_iter().map(|s| format!("snapshot {ns}/{} of {snapshotter}", s.name)));
            }
        }
        let answer = core.content.list(&cx, content::ListContentRequest::default()).await.expect("list content");
        for page in answer.try_collect::<Vec<_>>().await.expect("list content") {
            all.extend(page.info.into_iter().map(|b| format!("content {ns}/{}", b.digest)));
        }
        let answer = core.content.list_statuses(&cx, content::ListStatusesRequest::default()).await;
        for item in answer.expect("list ingests").statuses {
            all.insert(format!("ingest {ns}/{} at {}", item.r#ref, item.offset));
        }
    }
}
