//! What a recording needs of the node before it can be played: what a kubelet would have made, and what was there.
//!
//! Folders of logs are made, as a kubelet makes them. Paths that containers mount have to be there, and images that
//! the recording uses without pulling them: they are listed, and nothing is sent. `--make-paths` makes empty ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::Value;
use shared_proto::cri::v1::{
    ImageSpec, ImageStatusRequest, ImageStatusResponse, ListImagesRequest, ListImagesResponse,
};
use tonic::transport::Channel;

use super::ids::Names;
use super::recording::Recording;
use crate::recorder::messages::short;
use crate::recorder::raw;

/// The paths in a container on which a kubelet mounts a file of its own.
const FILES: &[&str] = &["/etc/hosts", "/dev/termination-log"];

/// What the calls of a recording that went well expect to be there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    log_folders: BTreeSet<String>,
    /// What is mounted, and where to.
    mounts: BTreeMap<String, String>,
    /// Images that are used and were not pulled before.
    images: BTreeSet<String>,
}

impl Needs {
    fn of(recording: &Recording) -> Self {
        let (mut needs, mut pulled) = (Self::default(), BTreeSet::new());
        for recorded in &recording.calls {
            let call = &recorded.call;
            let (Some(request), Some("OK")) = (&call.request.json, call.code.as_deref()) else { continue };
            let text = |path: &str| request.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
            match short(&call.method) {
                "RunPodSandbox" => needs.log_folders.extend(text("/config/log_directory").map(str::to_owned)),
                "PullImage" => {
                    let id = call.response.json.as_ref().and_then(|answer| answer.get("image_ref")?.as_str());
                    pulled.extend(text("/image/image").into_iter().chain(id).map(str::to_owned));
                }
                "CreateContainer" => {
                    if let (Some(folder), Some(log)) = (text("/sandbox_config/log_directory"), text("/config/log_path"))
                    {
                        let path = Path::new(folder).join(log);
                        needs.log_folders.extend(path.parent().map(|parent| parent.display().to_string()));
                    }
                    let image = text("/config/image/image").filter(|image| !pulled.contains(*image));
                    needs.images.extend(image.map(str::to_owned));
                    needs.mounts.extend(mounts(request));
                }
                _ => {}
            }
        }
        needs
    }
}

fn mounts(request: &Value) -> impl Iterator<Item = (String, String)> {
    let mounts = request.pointer("/config/mounts").and_then(Value::as_array).into_iter().flatten();
    mounts.filter_map(|mount| {
        let text = |field: &str| mount.get(field).and_then(Value::as_str).map(str::to_owned);
        Some((text("host_path")?, text("container_path").unwrap_or_default()))
    })
}

/// Makes or checks everything; answers the ids of the images that the endpoint has.
pub async fn prepare(
    recording: &Recording,
    channel: Channel,
    names: &Names,
    make_paths: bool,
) -> anyhow::Result<Vec<String>> {
    let needs = Needs::of(recording);
    for folder in &needs.log_folders {
        let folder = names.path(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("make {folder}, where the recording logs to"))?;
    }
    let mut missing = Vec::new();
    for (path, inside) in &needs.mounts {
        let path = names.path(path);
        match Path::new(&path).exists() {
            true => {}
            false if make_paths => make(&path, inside)?,
            false => missing.push(path),
        }
    }
    if !missing.is_empty() {
        bail!("the recording mounts what is not here: {}; say --map OLD=NEW or --make-paths", missing.join(" "));
    }
    let mut absent = Vec::new();
    for image in needs.images {
        let spec = Some(ImageSpec { image: image.clone(), ..Default::default() });
        let request = ImageStatusRequest { image: spec, verbose: false };
        let answer: ImageStatusResponse = ask(&channel, "ImageStatus", &request).await?;
        if answer.image.is_none() {
            absent.push(image);
        }
    }
    if !absent.is_empty() {
        bail!("the recording uses images that it does not pull, and the endpoint has not: {}", absent.join(" "));
    }
    let images: ListImagesResponse = ask(&channel, "ListImages", &ListImagesRequest::default()).await?;
    Ok(images.images.into_iter().map(|image| image.id).collect())
}

fn make(path: &str, inside: &str) -> anyhow::Result<()> {
    let path = Path::new(path);
    let made = match FILES.contains(&inside) {
        true => path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, "")),
        false => std::fs::create_dir_all(path),
    };
    made.with_context(|| format!("make {}", path.display()))
}

/// A question about images, in v1 or, if the endpoint is too old for it, in v1alpha2.
async fn ask<A: prost::Message + Default>(
    channel: &Channel,
    method: &str,
    request: &impl prost::Message,
) -> anyhow::Result<A> {
    let request = Bytes::from(request.encode_to_vec());
    let call = |package: &str| {
        let (path, request) = (format!("/runtime.{package}.ImageService/{method}"), request.clone());
        async move { raw::call(channel.clone(), &path, request, None, |_| ()).await }
    };
    let mut answer = call("v1").await;
    if answer.status.as_ref().is_err_and(|status| status.code() == tonic::Code::Unimplemented) {
        answer = call("v1alpha2").await;
    }
    answer.status.map_err(shared_proto::Error::from).context(method.to_owned())?;
    Ok(A::decode(answer.messages.pop().unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::recording::Recorded;
    use super::*;
    use crate::recorder::format::{Call, Content};

    fn call(method: &str, code: &str, request: Value, response: Value) -> Recorded {
        let content = |json| Content { json: Some(json), ..Default::default() };
        let (method, code) = (format!("/runtime.v1.X/{method}"), Some(code.to_owned()));
        let (request, response) = (content(request), content(response));
        Recorded { call: Call { method, code, request, response, ..Default::default() }, ..Default::default() }
    }

    #[test]
    fn what_went_well_is_needed() {
        let create = |image: &str| {
            json!({
                "sandbox_config": {"log_directory": "/logs/p"},
                "config": {"log_path": "c/0.log", "image": {"image": image},
                    "mounts": [{"host_path": "/etc-hosts", "container_path": "/etc/hosts"}]},
            })
        };
        let calls = vec![
            call("PullImage", "OK", json!({"image": {"image": "a:1"}}), json!({"image_ref": "sha256:a"})),
            call("RunPodSandbox", "OK", json!({"config": {"log_directory": "/logs/p"}}), json!({})),
            call("RunPodSandbox", "INTERNAL", json!({"config": {"log_directory": "/logs/q"}}), json!({})),
            call("CreateContainer", "OK", create("sha256:a"), json!({})),
            call("CreateContainer", "OK", create("b:1"), json!({})),
            call("CreateContainer", "NOT_FOUND", create("c:1"), json!({})),
        ];
        let needs = Needs::of(&Recording { calls, ..Default::default() });
        let set = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!((needs.log_folders, needs.images), (set(&["/logs/p", "/logs/p/c"]), set(&["b:1"])));
        assert_eq!(needs.mounts, [("/etc-hosts".to_owned(), "/etc/hosts".to_owned())].into());

        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        make(&at("a/hosts"), "/etc/hosts").unwrap();
        make(&at("b/data"), "/data").unwrap();
        assert!(dir.path().join("a/hosts").is_file() && dir.path().join("b/data").is_dir());
    }
}
