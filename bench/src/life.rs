//! One pod's life in `soak`: started, used, ended in one of several ways, removed; every answer is checked.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::World;
use e2e::cri::Cri;
use e2e::pod::{container, script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared_proto::cri::v1::{
    ContainerConfig, ContainerState, ContainerStatusRequest, ListPodSandboxRequest, PodSandboxFilter,
};

use crate::{load, node};

/// How long a container that must end may take.
const ENDS: Duration = Duration::from_secs(15);
/// The code of a process that SIGKILL has ended.
const KILLED: i32 = 137;
/// How long a container whose shim dies lives at least, seconds.
const ORPHAN_RUNS: u64 = 1;
/// The code that it exits with, if it gets so far.
const ORPHAN_CODE: i32 = 7;

/// What becomes of a pod's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It sleeps until its pod is stopped.
    WithPod,
    /// `StopContainer` without grace.
    Stopped,
    /// SIGKILL for its first process.
    Killed,
    /// It exits by itself, with this code.
    Exits(i32),
    /// SIGKILL for its shim, while it sleeps.
    Orphaned,
    /// SIGKILL for its shim, at about the moment when it exits by itself.
    OrphanedAtExit,
}

impl Fate {
    /// Every 50th loses its shim. Of the others every fifth exits by itself, and of the rest every third is killed, in
    /// two ways.
    pub fn of(index: usize) -> Self {
        let nth = |n: usize| index % n == n - 1;
        match index {
            _ if nth(100) => Self::OrphanedAtExit,
            _ if nth(50) => Self::Orphaned,
            _ if nth(5) => Self::Exits(1 + (index % 100) as i32),
            _ if nth(3) && index.is_multiple_of(2) => Self::Stopped,
            _ if nth(3) => Self::Killed,
            _ => Self::WithPod,
        }
    }

    fn container(self, stay: Duration) -> ContainerConfig {
        let exits = |seconds: u64, code: i32| script("main", &format!("sleep {seconds}; exit {code}"));
        match self {
            Self::WithPod | Self::Stopped | Self::Killed | Self::Orphaned => container("main", &["sleep", "100000"]),
            Self::Exits(code) => exits(stay.as_secs(), code),
            Self::OrphanedAtExit => exits(ORPHAN_RUNS, ORPHAN_CODE),
        }
    }

    /// The codes that are honest; none for a container that is not looked at again.
    fn codes(self) -> &'static [i32] {
        match self {
            Self::WithPod | Self::Exits(_) => &[],
            Self::Stopped | Self::Killed | Self::Orphaned => &[KILLED],
            Self::OrphanedAtExit => &[KILLED, ORPHAN_CODE],
        }
    }
}

/// Milliseconds of a pod's start (three calls) and of its removal (two).
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub start: f64,
    pub removal: f64,
}

/// Runs pod number `index` to its end; the container runs for about `stay`.
pub async fn live(world: &World, cri: &Cri, index: usize, stay: Duration) -> anyhow::Result<Times> {
    let (name, fate) = (format!("soak-{index}"), Fate::of(index));
    let lived = stay_alive(world, cri, index, stay).await;
    let ended = end(cri, &name).await;
    // The logs are the kubelet's to remove.
    let _ = std::fs::remove_dir_all(world.pod_logs(&name));
    match (lived, ended) {
        (Ok(start), Ok(removal)) => Ok(Times { start, removal }),
        (Err(e), Ok(_)) | (Ok(_), Err(e)) => Err(e.context(format!("{name} ({fate:?})"))),
        (Err(e), Err(then)) => Err(e.context(format!("{name} ({fate:?}), whose removal failed as well ({then:#})"))),
    }
}

/// From the start to the moment when the pod is to be stopped. Milliseconds of the start.
async fn stay_alive(world: &World, cri: &Cri, index: usize, stay: Duration) -> anyhow::Result<f64> {
    let fate = Fate::of(index);
    let pod = load::try_start(world, cri, &format!("soak-{index}"), &fate.container(stay)).await?;
    match fate {
        Fate::WithPod | Fate::Stopped | Fate::Killed => {
            exec(cri, &pod.container, index).await?;
            tokio::time::sleep(stay).await;
        }
        Fate::Orphaned | Fate::OrphanedAtExit => tokio::time::sleep(Duration::from_secs(ORPHAN_RUNS)).await,
        Fate::Exits(_) => (),
    }
    match fate {
        Fate::WithPod => return Ok(pod.millis()),
        Fate::Stopped => cri.try_stop(&pod.container, 0).await.context("StopContainer")?,
        Fate::Killed => signal(pid(cri, &pod.container).await?)?,
        Fate::Orphaned | Fate::OrphanedAtExit => signal(node::shim_of(world, &pod.id)?)?,
        Fate::Exits(_) => (),
    }
    let code = exited(cri, &pod.container).await?;
    let honest = match &fate {
        Fate::Exits(own) => std::slice::from_ref(own),
        _other => fate.codes(),
    };
    anyhow::ensure!(honest.contains(&code), "exit code {code}, should be one of {honest:?}");
    Ok(pod.millis())
}

/// Stops and removes the pod, found by its label, since its start may have failed half-way. Milliseconds of that.
async fn end(cri: &Cri, name: &str) -> anyhow::Result<f64> {
    let label_selector = [("app".to_owned(), name.to_owned())].into();
    let filter = Some(PodSandboxFilter { label_selector, ..Default::default() });
    let pods = cri.try_list_pod_sandbox(ListPodSandboxRequest { filter }).await.context("ListPodSandbox")?.items;
    let clock = Instant::now();
    for pod in pods {
        cri.try_stop_pod(&pod.id).await.context("StopPodSandbox")?;
        cri.try_remove_pod(&pod.id).await.context("RemovePodSandbox")?;
    }
    Ok(load::millis(clock))
}

/// A command in the container, one of two in turn.
async fn exec(cri: &Cri, container: &str, index: usize) -> anyhow::Result<()> {
    let word = index.to_string();
    let (argv, out): (&[&str], _) = match index.is_multiple_of(2) {
        true => (&["true"], String::new()),
        false => (&["echo", &word], format!("{word}\n")),
    };
    let answer = cri.try_exec_in(container, argv, 20).await.context("ExecSync")?;
    anyhow::ensure!(answer.exit_code == 0 && answer.stdout == out.as_bytes(), "exec of {argv:?}: {answer:?}");
    Ok(())
}

fn signal(pid: i32) -> anyhow::Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill {pid}"))
}

/// The first process of a container.
async fn pid(cri: &Cri, container: &str) -> anyhow::Result<i32> {
    let request = ContainerStatusRequest { container_id: container.into(), verbose: true };
    let info = cri.try_container_status(request).await.context("ContainerStatus")?.info;
    let value: serde_json::Value = serde_json::from_str(info.get("info").context("no verbose info")?)?;
    Ok(i32::try_from(value["pid"].as_i64().context("no pid in the verbose info")?)?)
}

/// Waits for the end of a container. Its code.
async fn exited(cri: &Cri, container: &str) -> anyhow::Result<i32> {
    let clock = Instant::now();
    loop {
        let status = cri.try_container(container).await.context("ContainerStatus")?;
        if status.state() == ContainerState::ContainerExited {
            return Ok(status.exit_code);
        }
        anyhow::ensure!(clock.elapsed() < ENDS, "is {:?} after {ENDS:?}", status.state());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_comes_up() {
        let count = |wanted: fn(&Fate) -> bool| (0..300).map(Fate::of).filter(wanted).count();
        assert_eq!(count(|fate| matches!(fate, Fate::Orphaned)), 3);
        assert_eq!(count(|fate| matches!(fate, Fate::OrphanedAtExit)), 3);
        assert_eq!(count(|fate| matches!(fate, Fate::Exits(1..=100))), 60 - 6);
        assert_eq!(count(|fate| matches!(fate, Fate::Stopped)), 40);
        assert_eq!(count(|fate| matches!(fate, Fate::Killed)), 40);
    }
}
