//! `cri-daemon run`: a Pod manifest without a kubelet, as a plain CRI client.
//!
//! A run that fails, or is interrupted before everything runs, takes back all that it made. One that is through
//! leaves the pod, for others to look at, unless `--rm` was given. What goes to standard output is the pod's id and
//! address and what its containers write; progress and complaints go to standard error.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shared_proto::cri::v1;
use tokio_util::sync::CancellationToken;

use super::client::{Client, said};
use super::follow::Follower;
use super::manifest::{self, Container, HostPathType, Pod};
use super::pod::Plan;
use super::{interrupted, report};

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
}

/// What was started.
struct Running {
    sandbox: String,
    /// Containers in the order of the manifest, by id.
    containers: Vec<(Container, String)>,
}

pub async fn run(address: &Path, root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let pod = manifest::load(&options.manifest)?;
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
    let running = start(client, plan, stop, sandbox).await?;
    let code = match options.detach {
        true => 0,
        false => follow(client, plan, &running, stop).await?,
    };
    Ok((running, code))
}

async fn start(
    client: &mut Client,
    plan: &Plan,
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
    println!("pod {} {sandbox}", plan.pod.metadata.name);
    let status = client.sandbox(&sandbox, false).await?.status.unwrap_or_default();
    match status.network {
        Some(network) if !network.ip.is_empty() => println!("ip {}", network.ip),
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

/// The container's image, pulled if it is absent.
async fn image(
    client: &mut Client,
    container: &Container,
    stop: &CancellationToken,
) -> anyhow::Result<Option<v1::Image>> {
    let spec = Some(v1::ImageSpec { image: container.image.clone(), ..Default::default() });
    let status = v1::ImageStatusRequest { image: spec.clone(), verbose: false };
    let known = said(client.images.image_status(status.clone()).await)?.image;
    if known.is_some() {
        return Ok(known);
    }
    let began = Instant::now();
    let mut images = client.images.clone();
    let pull = images.pull_image(v1::PullImageRequest { image: spec, auth: None, sandbox_config: None });
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    tokio::pin!(pull);
    loop {
        tokio::select! {
            pulled = &mut pull => {
                said(pulled)?;
                break;
            }
            () = stop.cancelled() => anyhow::bail!("interrupted"),
            _ = ticks.tick() => {
                eprint!("\rpulling {} ({} s)", container.image, began.elapsed().as_secs());
                std::io::stderr().flush().ok();
            }
        }
    }
    let image = said(client.images.image_status(status).await)?.image;
    let size = image.as_ref().map(|image| report::bytes(image.size)).unwrap_or_default();
    eprintln!("\rpulled {}: {size} ({} ms)", container.image, began.elapsed().as_millis());
    Ok(image)
}

/// `runAsNonRoot`: somebody must have said that the user is another than root.
fn check_user(pod: &Pod, container: &Container, image: Option<&v1::Image>) -> anyhow::Result<()> {
    let (pod, own) = (&pod.spec.security_context, &container.security_context);
    if own.run_as_non_root.or(pod.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let of_image = image.and_then(|image| image.uid.map(|uid| uid.value));
    match own.run_as_user.or(pod.run_as_user).or(of_image) {
        Some(0) => anyhow::bail!("container {}: runAsNonRoot is set, but it would run as root", container.name),
        Some(_) => Ok(()),
        None => anyhow::bail!(
            "container {}: runAsNonRoot is set, but its image names no user by number; set runAsUser",
            container.name
        ),
    }
}

/// Makes the emptyDirs, and what hostPaths ask to be made; checks what they ask to be there.
fn prepare_volumes(plan: &Plan) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for volume in &plan.pod.spec.volumes {
        let named = || format!("volume {}", volume.name);
        let Some(host) = &volume.host_path else {
            let dir = plan.empty_dir(&volume.name);
            std::fs::create_dir_all(&dir).with_context(named)?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).with_context(named)?;
            continue;
        };
        let path = host.path.display();
        match host.kind {
            HostPathType::Unchecked => {}
            HostPathType::DirectoryOrCreate => std::fs::create_dir_all(&host.path).with_context(named)?,
            HostPathType::FileOrCreate if !host.path.exists() => {
                std::fs::File::create(&host.path).with_context(named)?;
            }
            HostPathType::Directory => anyhow::ensure!(host.path.is_dir(), "{}: {path} is not a folder", named()),
            HostPathType::File | HostPathType::FileOrCreate => {
                anyhow::ensure!(host.path.is_file(), "{}: {path} is not a file", named());
            }
        }
    }
    Ok(())
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
