//! Many small cases in one pod: what the conformance suite is written in.
//!
//! A case asks for something and looks at its effect inside a real container. Cases of one theme share a world and a
//! pod, so that each costs one container. At the end the theme says how many cases it ran and which it skipped, with
//! the reason, on standard error past the test harness: `make test` counts them.
//!
//! With `SEAM_PEER=containerd` the same cases run against Debian's containerd, to prove the cases themselves. It fails
//! some requests only when the container starts, and with other codes; a case that it can't have is skipped by name.

use std::io::Write as _;

use shared_proto::cri::v1::*;
use tonic::Code;

use crate::cri::Cri;
use crate::fixtures::{BUSYBOX, PAUSE};
use crate::inventory::Inventory;
use crate::pod::{script, sleeper};
use crate::world::peer;
use crate::{Wiring, World};

/// A world, a pod in it, and the count of its cases.
#[derive(Debug)]
pub struct Cases {
    theme: &'static str,
    pub world: World,
    pub cri: Cri,
    /// The configuration of `pod`, and its id.
    pub config: PodSandboxConfig,
    pub pod: String,
    before: Inventory,
    ran: usize,
    skipped: Vec<String>,
}

impl Cases {
    /// A world with one pod, and `images` beside the usual ones.
    pub async fn start(wiring: Wiring, theme: &'static str, images: &[&str]) -> Self {
        Self::start_in(crate::world(wiring).await, theme, images, |_| ()).await
    }

    /// The same in a given world, with a changed pod.
    pub async fn start_in(
        world: World,
        theme: &'static str,
        images: &[&str],
        change: impl FnOnce(&mut PodSandboxConfig),
    ) -> Self {
        let cri = world.cri();
        for reference in [PAUSE, BUSYBOX].iter().chain(images) {
            world.pull(reference).await;
        }
        let before = world.inventory().await;
        let mut config = world.pod(theme);
        change(&mut config);
        let pod = cri.run_pod(&config).await;
        Self { theme, world, cri, config, pod, before, ran: 0, skipped: Vec::new() }
    }

    /// Counts a case that needs no container of its own.
    pub fn case(&mut self, name: &str) {
        self.ran += 1;
        // Shown only when the test fails: the last one is the culprit.
        println!("{}: {name}", self.theme);
    }

    /// Leaves a case out, and says why. Answers whether to go on without it: `if cases.lacks(…) { return }`.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push(format!("{name} ({reason})"));
    }

    /// Whether the peer lacks what `name` is about; then the case is skipped. Ours lacks nothing.
    pub fn peer_lacks(&mut self, name: &str, reason: &str) -> bool {
        if peer().is_some() {
            self.skip(name, reason);
        }
        peer().is_some()
    }

    /// Runs a script as a container of the pod to its good end; what it printed.
    pub async fn prints(&mut self, name: &str, text: &str, change: impl FnOnce(&mut ContainerConfig)) -> String {
        let (config, pod) = (self.config.clone(), self.pod.clone());
        self.prints_in(name, &config, &pod, text, change).await
    }

    /// The same in another pod.
    pub async fn prints_in(
        &mut self,
        name: &str,
        sandbox: &PodSandboxConfig,
        pod: &str,
        text: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        self.case(name);
        let mut config = script(name, text);
        change(&mut config);
        let id = self.cri.run(pod, sandbox, &config).await;
        let status = self.cri.exited(&id).await;
        let pod_name = &sandbox.metadata.as_ref().expect("the pod has metadata").name;
        let lines = crate::logs::read(&self.world.log(pod_name, name));
        assert_eq!(status.exit_code, 0, "{name}: {lines:?}");
        self.cri.try_remove(&id).await.unwrap_or_else(|e| panic!("{name}: remove: {e:?}"));
        crate::logs::text(&lines, "stdout")
    }

    /// Starts a container that stays; its id.
    pub async fn runs(&mut self, name: &str, change: impl FnOnce(&mut ContainerConfig)) -> String {
        self.case(name);
        let mut config = sleeper(name);
        change(&mut config);
        self.cri.run(&self.pod, &self.config, &config).await
    }

    /// A container that must not come to be: the code, and a message that names `names`.
    pub async fn refused(&mut self, name: &str, code: Code, names: &str, change: impl FnOnce(&mut ContainerConfig)) {
        self.case(name);
        let mut config = sleeper(name);
        change(&mut config);
        let made = self.cri.try_create(&self.pod, &self.config, &config).await;
        let status = match made {
            Err(status) => status,
            Ok(id) => {
                assert!(peer().is_some(), "{name}: must be refused when it is made");
                let started = self.cri.try_start(&id).await;
                self.cri.try_remove(&id).await.unwrap_or_else(|e| panic!("{name}: remove: {e:?}"));
                started.err().unwrap_or_else(|| panic!("{name}: must be refused"))
            }
        };
        self.is_refusal(name, &status, code, names);
    }

    /// A pod that must not come to be.
    pub async fn pod_refused(
        &mut self,
        name: &str,
        code: Code,
        names: &str,
        change: impl FnOnce(&mut PodSandboxConfig),
    ) {
        self.case(name);
        let mut config = self.world.pod(name);
        change(&mut config);
        let status = match self.cri.try_run_pod(&config).await {
            Err(status) => status,
            Ok(_) => panic!("{name}: must be refused"),
        };
        self.is_refusal(name, &status, code, names);
    }

    fn is_refusal(&self, name: &str, status: &tonic::Status, code: Code, names: &str) {
        // The peer has one code for nearly everything, and other words.
        if peer().is_none() {
            assert_eq!(status.code(), code, "{name}: {status:?}");
            assert!(status.message().contains(names), "{name}: the message does not name {names:?}: {status:?}");
        }
    }

    /// The pid of a pod's pause process, on the host.
    pub async fn pause_pid(&self, pod: &str) -> i32 {
        let info = self.pod_info(pod).await;
        info["pid"].as_i64().unwrap_or_else(|| panic!("no pid in {info}")) as i32
    }

    /// The verbose information of a pod, parsed.
    pub async fn pod_info(&self, pod: &str) -> serde_json::Value {
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
        let info = self.cri.pod_sandbox_status(request).await.info;
        let text = info.get("info").unwrap_or_else(|| panic!("pod {pod} has no info: {info:?}"));
        serde_json::from_str(text).unwrap_or_else(|e| panic!("info of pod {pod}: {e}: {text}"))
    }

    /// Removes the pod, checks that nothing is left, and reports.
    pub async fn end(self) {
        self.cri.end_pod(&self.pod).await;
        self.world.assert_as_before(&self.before).await;
        let whom = peer().unwrap_or(self.world.wiring().name());
        let mut line =
            format!("conformance {} ({whom}): {} cases, {} skipped\n", self.theme, self.ran, self.skipped.len());
        for skipped in &self.skipped {
            line += &format!("conformance {} ({whom}): skipped {skipped}\n", self.theme);
        }
        // Not `eprint!`, which the test harness keeps to itself. Nothing is lost if it can't be written.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// The value of a line like `CapEff:\t…` of a `/proc/PID/status`.
#[track_caller]
pub fn status_line(pid: i32, name: &str) -> String {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {path}: {e}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {path}")).trim().to_owned()
}

/// The name of a process's namespace: equal names, one namespace.
#[track_caller]
pub fn namespace(pid: i32, kind: &str) -> String {
    let path = format!("/proc/{pid}/ns/{kind}");
    std::fs::read_link(&path).unwrap_or_else(|e| panic!("read {path}: {e}")).display().to_string()
}
