//! `cri-daemon run`: a Pod manifest without a kubelet, as a plain CRI client.
//!
//! A run that fails, or is interrupted before everything runs, takes back all that it made. One that is through
//! leaves the pod, for others to look at, unless `--rm` was given. What goes to standard output is the pod's id and
//! address and what its containers write; progress and complaints go to standard error.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shared_proto::cri::v1;
use tokio_util::sync::CancellationToken;

use super::client::{Client, said};
use super::follow::Follower;
use super::manifest::Container;
use super::pod::Plan;
use super::prepare::{check_user, image, prepare_volumes};
use super::{check, interrupted, report};

/// Between two looks at logs and states.
const PERIOD: Duration = Duration::from_millis(100);
/// Exit status of a command that was interrupted.
const INTERRUPTED: u8 = 130;
/// Below the root: a folder a pod with its logs and emptyDirs.
const FOLDER: &str = "run";

pub struct Options {
    pub manifest: PathBuf,
    pub rm: bool,
    pub detach: bool,
    pub report: bool,
    /// Say the pod's id and address on standard error: something else goes to standard output.
    pub quiet: bool,
}

/// What was started.
struct Running {
    sandbox: String,
    /// Containers in the order of the manifest, by id.
    containers: Vec<(Container, String)>,
}

pub async fn run(address: &Path, root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let pod = check::load(&options.manifest)?;
    let mut client = Client::connect(address).await?;
    let uid = pod.metadata.uid.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let plan = Plan { dir: root.join(FOLDER).join(&uid), uid, pod };

    let stop = CancellationToken::new();
    let watcher = tokio::spawn({
        let stop = stop.clone();
        async move {
            interrupted().await;
            stop.cancel();
        }
    });
    let mut sandbox = None;
    let outcome = go(&mut client, &plan, options, &stop, &mut sandbox).await;
    watcher.abort();
    let (running, code) = match outcome {
        Ok(done) => done,
        Err(e) => {
            if let Err(left) = clean(&mut client, &plan, root, sandbox.as_deref()).await {
                eprintln!("cri-daemon: not everything could be taken back: {left:#}");
            }
            if stop.is_cancelled() {
                return Ok(ExitCode::from(INTERRUPTED));
            }
            return Err(e);
        }
    };
    if options.report {
        print_report(&mut client, &plan, &running).await?;
    }
    if options.rm {
        clean(&mut client, &plan, root, Some(&running.sandbox)).await?;
    } else if stop.is_cancelled() {
        eprintln!("pod {} goes on; `cri-daemon rm {}` ends it", plan.pod.metadata.name, plan.pod.metadata.name);
    }
    Ok(ExitCode::from(if stop.is_cancelled() { INTERRUPTED } else { code }))
}

/// Starts the pod and, unless detached, sees it to its end. `sandbox` tells what there is to clean after an error.
async fn go(
    client: &mut Client,
    plan: &Plan,
    options: &Options,
    stop: &CancellationToken,
    sandbox: &mut Option<String>,
) -> anyhow::Result<(Running, u8)> {
    let running = start(client, plan, options, stop, sandbox).await?;
    let code = match options.detach {
        true => 0,
        false => follow(client, plan, &running, stop).await?,
    };
    Ok((running, code))
}

async fn start(
    client: &mut Client,
    plan: &Plan,
    options: &Options,
    stop: &CancellationToken,
    made: &mut Option<String>,
) -> anyhow::Result<Running> {
    let mut images = Vec::new();
    for container in &plan.pod.spec.containers {
        images.push(image(client, container, stop).await?);
        check_user(&plan.pod, container, images.last().and_then(Option::as_ref))?;
    }
    prepare_volumes(plan)?;

    let began = Instant::now();
    let config = plan.sandbox();
    let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    // Not interrupted: only its answer tells what is to be removed.
    let sandbox = said(client.runtime.run_pod_sandbox(request).await).context("start the pod")?.pod_sandbox_id;
    *made = Some(sandbox.clone());
    progress(&format!("pod {} is up", plan.pod.metadata.name), began);
    let say = |line: String| if options.quiet { eprintln!("{line}") } else { println!("{line}") };
    say(format!("pod {} {sandbox}", plan.pod.metadata.name));
    let status = client.sandbox(&sandbox, false).await?.status.unwrap_or_default();
    match status.network {
        Some(network) if !network.ip.is_empty() => say(format!("ip {}", network.ip)),
        Some(_) | None => eprintln!("the pod has no address of its own"),
    }

    let mut containers = Vec::new();
    for (container, image) in plan.pod.spec.containers.iter().zip(images) {
        anyhow::ensure!(!stop.is_cancelled(), "interrupted");
        let doing = || format!("start container {}", container.name);
        let began = Instant::now();
        let id = image.map(|image| image.id).unwrap_or_default();
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(plan.container(container, &id)),
            sandbox_config: Some(config.clone()),
        };
        let container_id = said(client.runtime.create_container(request).await).with_context(doing)?.container_id;
        let request = v1::StartContainerRequest { container_id: container_id.clone() };
        said(client.runtime.start_container(request).await).with_context(doing)?;
        progress(&format!("container {} is started", container.name), began);
        containers.push((container.clone(), container_id));
    }
    Ok(Running { sandbox, containers })
}

fn progress(what: &str, began: Instant) {
    eprintln!("{what} ({} ms)", began.elapsed().as_millis());
}

/// Prints the logs until every container has ended; the exit status is that of the first that failed.
async fn follow(client: &mut Client, plan: &Plan, running: &Running, stop: &CancellationToken) -> anyhow::Result<u8> {
    let several = running.containers.len() > 1;
    let prefix = |container: &Container| if several { format!("[{}] ", container.name) } else { String::new() };
    let mut followers: Vec<Follower> =
        running.containers.iter().map(|(c, _)| Follower::new(plan.log_of(c), prefix(c))).collect();
    let mut ended: Vec<Option<v1::ContainerStatus>> = vec![None; running.containers.len()];
    loop {
        // States first: a log is whole when it is read after its container was seen to have ended.
        for ((_, id), end) in running.containers.iter().zip(&mut ended).filter(|(_, end)| end.is_none()) {
            let status = client.container(id, false).await?.status.unwrap_or_default();
            if status.state() == v1::ContainerState::ContainerExited {
                *end = Some(status);
            }
        }
        let mut news = false;
        for follower in &mut followers {
            news |= follower.advance(&mut std::io::stdout()).await.context("follow the log")?;
        }
        if stop.is_cancelled() || (!news && ended.iter().all(Option::is_some)) {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    let mut code = 0;
    for status in ended.into_iter().flatten().filter(|status| status.exit_code != 0) {
        let name = status.metadata.unwrap_or_default().name;
        let message = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
        eprintln!("container {name} exited with {} ({}){message}", status.exit_code, status.reason);
        if code == 0 {
            code = u8::try_from(status.exit_code).unwrap_or(1);
        }
    }
    Ok(code)
}

async fn print_report(client: &mut Client, plan: &Plan, running: &Running) -> anyhow::Result<()> {
    let sandbox = client.sandbox(&running.sandbox, true).await?;
    print!("\n{}", report::timeline(&format!("pod {}", plan.pod.metadata.name), &sandbox.info));
    for (container, id) in &running.containers {
        let status = client.container(id, true).await?;
        print!("{}", report::timeline(&format!("container {}", container.name), &status.info));
    }
    print!("\n{}", report::seam_table(client).await?);
    Ok(())
}

async fn clean(client: &mut Client, plan: &Plan, root: &Path, sandbox: Option<&str>) -> anyhow::Result<()> {
    if let Some(sandbox) = sandbox {
        client.remove_sandbox(sandbox).await.context("remove the pod")?;
    }
    forget(root, &plan.uid)
}

/// Removes a pod's folder, and the folder of all such folders with the last of them.
pub fn forget(root: &Path, uid: &str) -> anyhow::Result<()> {
    // A uid of somebody else's pod may be anything.
    if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
        return Ok(());
    }
    let dir = root.join(FOLDER).join(uid);
    match std::fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove {}", dir.display()));
        }
        Ok(()) | Err(_) => {}
    }
    // Fails while others are there.
    std::fs::remove_dir(root.join(FOLDER)).ok();
    Ok(())
}
