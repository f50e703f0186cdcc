//! CRI calls on real daemons: whatever can be asked again and again, and the life of a pod.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::World;
use e2e::cri::{Cri, image};
use e2e::fixtures::BUSYBOX;
use e2e::pod::container;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use shared_proto::cri::v1::*;

use super::Settings;
use super::card::Card;
use crate::kernel::{self, Counter, Counts};
use crate::load::{self, Pod};
use crate::trio::{self, seam};

const LIMIT: Duration = Duration::from_secs(30);
/// Pods that are there while calls are measured.
const PODS: usize = 5;

/// What calls are made on.
struct Scene {
    cri: Cri,
    config: PodSandboxConfig,
    pod: String,
    container: String,
    /// The pod and the container whose life it is.
    made: std::sync::Mutex<[String; 2]>,
}

impl Scene {
    fn made(&self, which: usize) -> String {
        self.made.lock().expect("the made ones")[which].clone()
    }

    fn make(&self, which: usize, id: String) {
        self.made.lock().expect("the made ones")[which] = id;
    }
}

struct Step {
    name: &'static str,
    call: for<'a> fn(&'a Scene) -> BoxFuture<'a, Result<(), tonic::Status>>,
}

/// A call whose answer is not looked at.
macro_rules! ask {
    ($name:literal, $method:ident, $scene:ident => $request:expr) => {
        Step {
            name: $name,
            call: |$scene| {
                let request = $request;
                async move { $scene.cri.$method(request).await.map(drop) }.boxed()
            },
        }
    };
}

/// Reads, and what changes nothing.
fn questions() -> Vec<Step> {
    vec![
        Step { name: "Version", call: |scene| async move { scene.cri.version().await.map(drop) }.boxed() },
        ask!("Status", try_status, s => StatusRequest::default()),
        ask!("RuntimeConfig", try_runtime_config, s => RuntimeConfigRequest::default()),
        ask!("ListPodSandbox", try_list_pod_sandbox, s => ListPodSandboxRequest::default()),
        ask!("PodSandboxStatus", try_pod_sandbox_status, s => PodSandboxStatusRequest {
            pod_sandbox_id: s.pod.clone(),
            verbose: false,
        }),
        ask!("ListContainers", try_list_containers, s => ListContainersRequest::default()),
        ask!("ContainerStatus", try_container_status, s => ContainerStatusRequest {
            container_id: s.container.clone(),
            verbose: false,
        }),
        ask!("ContainerStats", try_container_stats, s => ContainerStatsRequest { container_id: s.container.clone() }),
        ask!("ListContainerStats", try_list_container_stats, s => ListContainerStatsRequest::default()),
        ask!("PodSandboxStats", try_pod_sandbox_stats, s => PodSandboxStatsRequest { pod_sandbox_id: s.pod.clone() }),
        ask!("ListPodSandboxStats", try_list_pod_sandbox_stats, s => ListPodSandboxStatsRequest::default()),
        ask!("ListImages", try_list_images, s => ListImagesRequest::default()),
        ask!("ImageStatus", try_image_status, s => ImageStatusRequest { image: Some(image(BUSYBOX)), verbose: false }),
        ask!("ImageFsInfo", try_image_fs_info, s => ImageFsInfoRequest::default()),
        ask!("UpdateRuntimeConfig", try_update_runtime_config, s => UpdateRuntimeConfigRequest::default()),
        ask!("ReopenContainerLog", try_reopen_container_log, s => ReopenContainerLogRequest {
            container_id: s.container.clone(),
        }),
        ask!("Exec", try_exec, s => ExecRequest {
            container_id: s.container.clone(),
            cmd: vec!["true".into()],
            stdout: true,
            ..Default::default()
        }),
        ask!("Attach", try_attach, s => AttachRequest {
            container_id: s.container.clone(),
            stdout: true,
            ..Default::default()
        }),
        ask!("PortForward", try_port_forward, s => PortForwardRequest {
            pod_sandbox_id: s.pod.clone(),
            port: vec![80],
        }),
        ask!("ExecSync", try_exec_sync, s => ExecSyncRequest {
            container_id: s.container.clone(),
            cmd: vec!["true".into()],
            timeout: 20,
        }),
    ]
}

/// A pod's life.
fn life() -> Vec<Step> {
    vec![
        Step {
            name: "RunPodSandbox",
            call: |s| async move { s.cri.try_run_pod(&s.config).await.map(|id| s.make(0, id)) }.boxed(),
        },
        Step {
            name: "CreateContainer",
            call: |s| {
                async move {
                    let main = container("main", &["sleep", "100000"]);
                    s.cri.try_create(&s.made(0), &s.config, &main).await.map(|id| s.make(1, id))
                }
                .boxed()
            },
        },
        Step { name: "StartContainer", call: |s| async move { s.cri.try_start(&s.made(1)).await }.boxed() },
        Step { name: "StopContainer", call: |s| async move { s.cri.try_stop(&s.made(1), 0).await }.boxed() },
        Step { name: "RemoveContainer", call: |s| async move { s.cri.try_remove(&s.made(1)).await }.boxed() },
        Step { name: "StopPodSandbox", call: |s| async move { s.cri.try_stop_pod(&s.made(0)).await }.boxed() },
        Step { name: "RemovePodSandbox", call: |s| async move { s.cri.try_remove_pod(&s.made(0)).await }.boxed() },
    ]
}

/// The card, in milliseconds, and what is to be said of it.
pub async fn card(settings: &Settings) -> anyhow::Result<(Card, Vec<String>)> {
    let worlds = trio::start(trio::options).await;
    let mut scenes = Vec::new();
    for world in &worlds {
        let pods = load::start_all(world, PODS, 2).await;
        scenes.push(scene(world, &pods[0]));
    }
    let mut card = Card { unit: "ms", rows: Vec::new() };
    let (questions, life) = (questions(), life());
    // The first round of each is a warm-up.
    for (what, steps, rounds) in
        [("CRI questions", &questions, settings.pick(40, 4)), ("lives of pods", &life, settings.pick(12, 2))]
    {
        for round in settings.rounds(what, rounds + 1, 3, LIMIT) {
            for which in settings.turns(round) {
                for step in steps {
                    let clock = Instant::now();
                    (step.call)(&scenes[which]).await.with_context(|| step.name)?;
                    if round > 0 {
                        card.row(step.name).times[which].push(load::millis(clock));
                    }
                }
            }
        }
    }
    let mut notes = vec![
        "Calls on the core of a CRI call are those during it: what the daemons do by themselves may be among them."
            .to_owned(),
    ];
    for (which, world) in worlds.iter().enumerate() {
        (settings.tell)("costs of CRI calls", which as f64 / worlds.len() as f64);
        if let Err(e) = count(settings, which, world, &scenes[which], [&questions, &life], &mut card).await {
            notes.push(format!("{}: there are not all columns of CRI calls: {e:#}.", world.wiring().name()));
        }
    }
    notes.push(
        "System calls of CRI calls are those of the daemons and of what they start: shims, the OCI runtime, plugins."
            .into(),
    );
    for (world, scene) in worlds.iter().zip(&scenes) {
        let pods = scene.cri.list_pods(Default::default()).await;
        for pod in pods {
            world.cri().end_pod(&pod.id).await;
        }
    }
    Ok((card, notes))
}

fn scene(world: &World, pod: &Pod) -> Scene {
    let (pod, container) = (pod.id.clone(), pod.container.clone());
    Scene { cri: world.cri(), config: world.pod("life"), pod, container, made: Default::default() }
}

/// What the daemons do for each: over the seam, and in the kernel where that can be counted.
async fn count(
    settings: &Settings,
    which: usize,
    world: &World,
    scene: &Scene,
    scripts: [&Vec<Step>; 2],
    card: &mut Card,
) -> anyhow::Result<()> {
    // Asking what has crossed crosses as well.
    let between = {
        let before = seam(world).await?;
        let after = seam(world).await?;
        [after.calls - before.calls, after.bytes - before.bytes]
    };
    let pids = world.daemon_pids();
    let base = kernel::base(&pids);
    for steps in scripts {
        let rounds = settings.pick(4, 1);
        let mut kernel: Vec<Counts> = vec![Counts::default(); steps.len()];
        let mut crossed = vec![[0.0; 2]; steps.len()];
        for _ in 0..rounds {
            for (index, step) in steps.iter().enumerate() {
                let before = seam(world).await?;
                let mut counter = if base.is_ok() { Some(Counter::attach(&pids)?) } else { None };
                if let Some(counter) = &mut counter {
                    counter.count(true)?;
                }
                (step.call)(scene).await.with_context(|| step.name)?;
                if let Some(mut counter) = counter {
                    counter.count(false)?;
                    let counts = counter.finish()?;
                    let sum = &mut kernel[index];
                    sum.syscalls += counts.syscalls;
                    sum.syncs += counts.syncs;
                    sum.switches += counts.switches;
                }
                let after = seam(world).await?;
                crossed[index][0] += after.calls - before.calls - between[0];
                crossed[index][1] += after.bytes - before.bytes - between[1];
            }
        }
        for (index, step) in steps.iter().enumerate() {
            let row = card.row(step.name);
            row.crossings[which] = Some((crossed[index][0] / rounds as f64).max(0.0));
            if world.wiring() != e2e::Wiring::Merged {
                row.seam_bytes[which] = Some((crossed[index][1] / rounds as f64).max(0.0));
            }
            row.kernel[which] = base.as_ref().ok().map(|_| kernel[index].each(Counts::default(), rounds));
        }
    }
    base.map(drop)
}
