//! `cri-daemon rm`: stops and removes pods, whoever made them, and the files that `run` left for its own.

use std::path::Path;

use shared_proto::cri::v1;

use super::client::{Client, said};
use super::pod::POD_UID;

/// Removes the pods that `names` mean: an id or the beginning of one, `NAME` or `NAMESPACE/NAME`.
pub async fn rm(address: &Path, root: &Path, names: &[String], all: bool) -> anyhow::Result<()> {
    let mut client = Client::connect(address).await?;
    let pods = said(client.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await)?.items;
    let mut problems = Vec::new();
    for name in names.iter().filter(|name| !pods.iter().any(|pod| means(name, pod))) {
        problems.push(format!("there is no pod {name:?}"));
    }
    for pod in pods.iter().filter(|pod| all || names.iter().any(|name| means(name, pod))) {
        match remove(&mut client, root, pod).await {
            Ok(()) => println!("removed {} {}", shown(pod), pod.id),
            Err(e) => problems.push(format!("{}: {e:#}", shown(pod))),
        }
    }
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

async fn remove(client: &mut Client, root: &Path, pod: &v1::PodSandbox) -> anyhow::Result<()> {
    client.remove_sandbox(&pod.id).await?;
    match pod.labels.get(POD_UID) {
        Some(uid) => super::run::forget(root, uid),
        None => Ok(()),
    }
}

fn means(name: &str, pod: &v1::PodSandbox) -> bool {
    let metadata = pod.metadata.clone().unwrap_or_default();
    pod.id.starts_with(name) || metadata.name == name || format!("{}/{}", metadata.namespace, metadata.name) == name
}

fn shown(pod: &v1::PodSandbox) -> String {
    let metadata = pod.metadata.clone().unwrap_or_default();
    format!("{}/{}", metadata.namespace, metadata.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_meant_by_id_or_name() {
        let metadata = v1::PodSandboxMetadata { name: "web".into(), namespace: "shop".into(), ..Default::default() };
        let pod = v1::PodSandbox { id: "ab12".into(), metadata: Some(metadata), ..Default::default() };
        for (name, meant) in [("ab", true), ("web", true), ("shop/web", true), ("we", false), ("b1", false)] {
            assert_eq!(means(name, &pod), meant, "{name}");
        }
    }
}
