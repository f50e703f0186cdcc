//! What the benches do to a node over CRI, as a kubelet would: pods in a batch, polling, commands, the end of it all.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::World;
use e2e::cri::Cri;
use e2e::pod::container;
use futures::StreamExt as _;
use shared_proto::cri::v1::{
    ContainerConfig, ListContainerStatsRequest, ListContainersRequest, ListPodSandboxStatsRequest, StatusRequest,
};

/// A pod with one container that sleeps.
pub struct Pod {
    pub name: String,
    pub id: String,
    pub container: String,
    /// Milliseconds of RunPodSandbox, CreateContainer and StartContainer.
    pub steps: [f64; 3],
}

impl Pod {
    /// Milliseconds from the first call to the last answer.
    pub fn millis(&self) -> f64 {
        self.steps.iter().sum()
    }
}

/// Milliseconds since `start`.
pub fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Starts one pod with one container.
pub async fn start(world: &World, name: &str) -> Pod {
    let main = container("main", &["sleep", "100000"]);
    try_start(world, &world.cri(), name, &main).await.unwrap_or_else(|e| panic!("start {name}: {e:?}"))
}

/// Starts one pod with one container; what exists of it when a call fails, stays.
pub async fn try_start(world: &World, cri: &Cri, name: &str, main: &ContainerConfig) -> anyhow::Result<Pod> {
    let config = world.pod(name);
    let clock = Instant::now();
    let id = cri.try_run_pod(&config).await.context("RunPodSandbox")?;
    let ran = millis(clock);
    let container = cri.try_create(&id, &config, main).await.context("CreateContainer")?;
    let created = millis(clock);
    cri.try_start(&container).await.context("StartContainer")?;
    Ok(Pod { name: name.to_owned(), id, container, steps: [ran, created - ran, millis(clock) - created] })
}

/// Starts one pod with one container, and removes it. Milliseconds of each step of the start, and their sum.
pub async fn once(world: &World, name: &str) -> [f64; 4] {
    let cri = world.cri();
    let pod = start(world, name).await;
    cri.try_stop(&pod.container, 0).await.unwrap_or_else(|e| panic!("stop the container of {name}: {e:?}"));
    cri.end_pod(&pod.id).await;
    let [run, create, start] = pod.steps;
    [run, create, start, pod.millis()]
}

/// The calls that [`once`] tells the times of.
pub const STEPS: [&str; 4] = ["RunPodSandbox", "CreateContainer", "StartContainer", "sum"];

/// Starts `pods` pods, some at a time.
pub async fn start_all(world: &World, pods: usize, at_a_time: usize) -> Vec<Pod> {
    let starts = futures::stream::iter(0..pods).map(|i| async move { start(world, &format!("p{i}")).await });
    starts.buffer_unordered(at_a_time).collect().await
}

/// Stops and removes pods, some at a time.
pub async fn end_all(cri: &Cri, pods: &[Pod], at_a_time: usize) {
    futures::stream::iter(pods).for_each_concurrent(at_a_time, |pod| cri.end_pod(&pod.id)).await;
}

/// Milliseconds of `times` runs of `true` in a container, one after the other.
pub async fn exec(cri: &Cri, container: &str, times: usize) -> Vec<f64> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let clock = Instant::now();
        cri.exec_ok(container, &["true"]).await;
        took.push(millis(clock));
    }
    took
}

/// How long the answers of [`poll`] took, milliseconds.
#[derive(Default)]
pub struct Answers {
    /// Both lists together.
    pub lists: Vec<f64>,
    /// Stats of all containers and all pods together.
    pub stats: Vec<f64>,
}

/// Asks as a kubelet asks: lists every second, `Status` every five, all stats every ten.
pub async fn poll(cri: &Cri, seconds: u64) -> Answers {
    let mut answers = Answers::default();
    let mut ticker = tokio::time::interval(Duration::from_secs(1));
    // The first tick comes at once: so the last question has its second as well.
    for second in 0..seconds {
        ticker.tick().await;
        let clock = Instant::now();
        cri.list_pods(Default::default()).await;
        cri.list_containers(ListContainersRequest::default()).await;
        answers.lists.push(millis(clock));
        if second % 5 == 0 {
            cri.status(StatusRequest::default()).await;
        }
        if second % 10 == 0 {
            let clock = Instant::now();
            cri.list_container_stats(ListContainerStatsRequest::default()).await;
            cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await;
            answers.stats.push(millis(clock));
        }
    }
    ticker.tick().await;
    answers
}
