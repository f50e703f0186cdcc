//! What has to be there before a pod is started: images, users, folders.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shared_proto::cri::v1;
use tokio_util::sync::CancellationToken;

use super::client::{Client, said};
use super::manifest::{Container, HostPathType, Pod};
use super::pod::Plan;
use super::report;

/// The container's image, pulled if it is absent.
pub async fn image(
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
    tokio::pin!(pull);
    // On a terminal the line is renewed every second; elsewhere it is written once.
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    if !terminal {
        eprintln!("pulling {}", container.image);
    }
    loop {
        tokio::select! {
            pulled = &mut pull => {
                if terminal {
                    eprint!("\x1b[K");
                }
                said(pulled)?;
                break;
            }
            () = stop.cancelled() => anyhow::bail!("interrupted"),
            _ = ticks.tick(), if terminal => {
                eprint!("pulling {} ({} s)\r", container.image, began.elapsed().as_secs());
                std::io::stderr().flush().ok();
            }
        }
    }
    let image = said(client.images.image_status(status).await)?.image;
    let size = image.as_ref().map(|image| report::bytes(image.size)).unwrap_or_default();
    eprintln!("pulled {}: {size} ({} ms)", container.image, began.elapsed().as_millis());
    Ok(image)
}

/// `runAsNonRoot`: somebody must have said that the user is another than root.
pub fn check_user(pod: &Pod, container: &Container, image: Option<&v1::Image>) -> anyhow::Result<()> {
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
pub fn prepare_volumes(plan: &Plan) -> anyhow::Result<()> {
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
