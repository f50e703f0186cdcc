//! What every core must do, whatever carries the call: run on each implementor of the ports, the remote ones included.
//!
//! A suite panics where the contract is broken. It needs an empty namespace and leaves it empty. The suites of a port
//! use no other port, but for tasks, which need a container.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use prost_types::FieldMask;

use crate::any;
use crate::containerd::{containers as c, content as ct, images as i, leases as l, namespaces as n, snapshots as s};
use crate::containerd::{types, version as v};
use crate::context::Context;
use crate::core::Core;
use crate::errdefs::{Code, Result};

/// Runs every suite that needs no processes.
pub async fn all(core: &Core) {
    headers(core).await;
    versions(core).await;
    containers(core).await;
    images(core).await;
    leases(core).await;
    namespaces(core).await;
    content(core).await;
    snapshots(core).await;
}

#[track_caller]
fn fails<T: std::fmt::Debug>(outcome: Result<T>, code: Code) {
    let error = outcome.expect_err("the call must fail");
    assert_eq!(error.code, code, "{error}");
    assert!(!error.message.is_empty());
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() })
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A namespaced call without a namespace is `FailedPrecondition`.
pub async fn headers(core: &Core) {
    let bare = Context::default();
    fails(core.containers.get(&bare, c::GetContainerRequest { id: "x".into() }).await, Code::FailedPrecondition);
    fails(core.images.list(&bare, i::ListImagesRequest::default()).await, Code::FailedPrecondition);
}

pub async fn versions(core: &Core) {
    let v::VersionResponse { version, .. } = core.version.version(&Context::default(), ()).await.unwrap();
    assert!(version.chars().next().is_some_and(|first| first.is_ascii_digit()), "{version}");
}

pub async fn containers(core: &Core) {
    let cx = Context::new("conformance");
    let port = &core.containers;
    // Not valid protobuf or JSON on purpose: a spec is carried, never read.
    let spec = any::raw(any::SPEC, b"{\"ociVersion\": \"1.0.2\"}\xff".to_vec());
    let container = c::Container {
        id: "one".into(),
        image: "img".into(),
        labels: labels(&[("a", "1"), ("b.c/d", "2")]),
        runtime: Some(c::container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(spec.clone()),
        extensions: BTreeMap::from([("ext".to_owned(), any::raw("url", b"\x00\x01".to_vec()))]),
        ..Default::default()
    };
    let create = || c::CreateContainerRequest { container: Some(container.clone()) };
    let made = port.create(&cx, create()).await.unwrap().container.unwrap();
    assert!(made.created_at.is_some_and(|t| t.seconds > 0));
    fails(port.create(&cx, create()).await, Code::AlreadyExists);
    fails(port.get(&cx, c::GetContainerRequest { id: "two".into() }).await, Code::NotFound);
    fails(port.get(&Context::new("other"), c::GetContainerRequest { id: "one".into() }).await, Code::NotFound);

    let got = port.get(&cx, c::GetContainerRequest { id: "one".into() }).await.unwrap().container.unwrap();
    assert_eq!(
        (got.spec.as_ref(), &got.extensions, &got.labels),
        (Some(&spec), &container.extensions, &container.labels)
    );

    // One label by its literal key, behind `labels.`; everything else stays.
    let update = c::Container { id: "one".into(), labels: labels(&[("b.c/d", "3")]), ..Default::default() };
    let request = c::UpdateContainerRequest { container: Some(update), update_mask: mask(&["labels.b.c/d"]) };
    let updated = port.update(&cx, request).await.unwrap().container.unwrap();
    assert_eq!(updated.labels, labels(&[("a", "1"), ("b.c/d", "3")]));
    assert_eq!((updated.image.as_str(), updated.spec), ("img", Some(spec)));

    let listed = port.list(&cx, c::ListContainersRequest::default()).await.unwrap().containers;
    assert_eq!(listed.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["one"]);
    let streamed = port.list_stream(&cx, c::ListContainersRequest::default()).await.unwrap();
    assert_eq!(streamed.map(|item| item.unwrap().container.unwrap().id).collect::<Vec<_>>().await, ["one"]);

    port.delete(&cx, c::DeleteContainerRequest { id: "one".into() }).await.unwrap();
    fails(port.delete(&cx, c::DeleteContainerRequest { id: "one".into() }).await, Code::NotFound);
}

pub async fn images(core: &Core) {
    let cx = Context::new("conformance");
    let port = &core.images;
    let digest = format!("sha256:{}", "a".repeat(64));
    let target = types::Descriptor { media_type: "m".into(), digest, size: 3, annotations: BTreeMap::new() };
    let image = i::Image {
        name: "docker.io/library/x:1".into(),
        target: Some(target.clone()),
        labels: labels(&[("k", "v")]),
        ..Default::default()
    };
    let create = || i::CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
    port.create(&cx, create()).await.unwrap();
    fails(port.create(&cx, create()).await, Code::AlreadyExists);
    let get = |name: &str| i::GetImageRequest { name: name.to_owned() };
    assert_eq!(port.get(&cx, get(&image.name)).await.unwrap().image.unwrap().target, Some(target));
    fails(port.get(&cx, get("absent")).await, Code::NotFound);
    let request = i::UpdateImageRequest {
        image: Some(i::Image { labels: labels(&[("k", "")]), ..image.clone() }),
        update_mask: mask(&["labels.k"]),
        source_date_epoch: None,
    };
    assert!(port.update(&cx, request).await.unwrap().image.unwrap().labels.is_empty());
    let delete = || i::DeleteImageRequest { name: image.name.clone(), sync: true, target: None };
    port.delete(&cx, delete()).await.unwrap();
    fails(port.delete(&cx, delete()).await, Code::NotFound);
    assert!(port.list(&cx, i::ListImagesRequest::default()).await.unwrap().images.is_empty());
}

pub async fn leases(core: &Core) {
    let cx = Context::new("conformance");
    let port = &core.leases;
    let named = port.create(&cx, l::CreateRequest { id: "l1".into(), labels: BTreeMap::new() }).await.unwrap();
    assert_eq!(named.lease.unwrap().id, "l1");
    fails(port.create(&cx, l::CreateRequest { id: "l1".into(), labels: BTreeMap::new() }).await, Code::AlreadyExists);
    let random = port.create(&cx, l::CreateRequest::default()).await.unwrap().lease.unwrap().id;
    assert!(!random.is_empty());

    let resource = Some(l::Resource { id: "key".into(), r#type: "snapshots/overlayfs".into() });
    let add = |id: &str| l::AddResourceRequest { id: id.to_owned(), resource: resource.clone() };
    port.add_resource(&cx, add("l1")).await.unwrap();
    fails(port.add_resource(&cx, add("absent")).await, Code::NotFound);
    let held = port.list_resources(&cx, l::ListResourcesRequest { id: "l1".into() }).await.unwrap().resources;
    assert_eq!(held, [resource.clone().unwrap()]);
    port.delete_resource(&cx, l::DeleteResourceRequest { id: "l1".into(), resource }).await.unwrap();

    for id in ["l1", &random] {
        port.delete(&cx, l::DeleteRequest { id: id.to_owned(), sync: true }).await.unwrap();
    }
    fails(port.delete(&cx, l::DeleteRequest { id: "l1".into(), sync: true }).await, Code::NotFound);
    assert!(port.list(&cx, l::ListRequest::default()).await.unwrap().leases.is_empty());
}

pub async fn namespaces(core: &Core) {
    let cx = Context::default();
    let port = &core.namespaces;
    // Go clients ask before they have made anything, and give up on NotFound.
    let absent = port.get(&cx, n::GetNamespaceRequest { name: "absent".into() }).await.unwrap().namespace.unwrap();
    assert!(absent.labels.is_empty());
    let namespace = Some(n::Namespace { name: "conf-ns".into(), labels: labels(&[("x", "y")]) });
    let create = || n::CreateNamespaceRequest { namespace: namespace.clone() };
    port.create(&cx, create()).await.unwrap();
    fails(port.create(&cx, create()).await, Code::AlreadyExists);

    let inside = Context::new("conf-ns");
    let container = Some(c::Container {
        id: "keeps-it".into(),
        runtime: Some(c::container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        ..Default::default()
    });
    core.containers.create(&inside, c::CreateContainerRequest { container }).await.unwrap();
    fails(port.delete(&cx, n::DeleteNamespaceRequest { name: "conf-ns".into() }).await, Code::FailedPrecondition);
    core.containers.delete(&inside, c::DeleteContainerRequest { id: "keeps-it".into() }).await.unwrap();
    port.delete(&cx, n::DeleteNamespaceRequest { name: "conf-ns".into() }).await.unwrap();
    fails(port.delete(&cx, n::DeleteNamespaceRequest { name: "conf-ns".into() }).await, Code::NotFound);
}

/// SHA-256 of `hello world`.
const HELLO: &str = "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";

fn write(action: ct::WriteAction, offset: i64, data: &'static [u8]) -> ct::WriteContentRequest {
    ct::WriteContentRequest {
        action: action.into(),
        r#ref: "conf-ref".into(),
        total: 11,
        expected: HELLO.into(),
        offset,
        data: bytes::Bytes::from_static(data),
        labels: BTreeMap::new(),
    }
}

/// Sends the requests one by one and gives the answers, up to the first error.
async fn write_all(
    core: &Core,
    cx: &Context,
    requests: Vec<ct::WriteContentRequest>,
) -> Result<Vec<ct::WriteContentResponse>> {
    let requests = futures::stream::iter(requests.into_iter().map(Ok)).boxed();
    let answers: Vec<_> = core.content.write(cx, requests).await?.collect().await;
    answers.into_iter().collect()
}

pub async fn content(core: &Core) {
    use ct::WriteAction::{Commit, Stat, Write};
    let cx = Context::new("conformance");
    let port = &core.content;
    fails(port.info(&cx, ct::InfoRequest { digest: HELLO.into() }).await, Code::NotFound);

    // A writer that goes away leaves its ingest, and the next one goes on from there.
    let answers = write_all(core, &cx, vec![write(Stat, 0, b""), write(Write, 0, b"hello ")]).await.unwrap();
    assert_eq!(answers.iter().map(|a| a.offset).collect::<Vec<_>>(), [0, 6]);
    let status = port.status(&cx, ct::StatusRequest { r#ref: "conf-ref".into() }).await.unwrap().status.unwrap();
    assert_eq!(status.offset, 6);
    fails(write_all(core, &cx, vec![write(Stat, 0, b""), write(Write, 7, b"x")]).await, Code::OutOfRange);
    let answers =
        write_all(core, &cx, vec![write(Stat, 0, b""), write(Write, 6, b"world"), write(Commit, 11, b"")]).await;
    assert_eq!(answers.unwrap().iter().map(|a| a.offset).collect::<Vec<_>>(), [6, 11, 11]);
    fails(port.status(&cx, ct::StatusRequest { r#ref: "conf-ref".into() }).await, Code::NotFound);
    fails(write_all(core, &cx, vec![write(Stat, 0, b"")]).await, Code::AlreadyExists);

    let read = |offset, size| ct::ReadContentRequest { digest: HELLO.into(), offset, size };
    let mut data = Vec::new();
    let mut blocks = port.read(&cx, read(3, 5)).await.unwrap();
    while let Some(block) = blocks.next().await {
        data.extend_from_slice(&block.unwrap().data);
    }
    assert_eq!(data, b"lo wo");
    let beyond = match port.read(&cx, read(12, 0)).await {
        Ok(mut blocks) => blocks.next().await.expect("an answer").map(drop),
        Err(e) => Err(e),
    };
    fails(beyond, Code::OutOfRange);

    let info = ct::Info { digest: HELLO.into(), labels: labels(&[("containerd.io/x.y", "z")]), ..Default::default() };
    let request = ct::UpdateRequest { info: Some(info), update_mask: mask(&["labels.containerd.io/x.y"]) };
    let updated = port.update(&cx, request).await.unwrap().info.unwrap();
    assert_eq!((updated.size, updated.labels), (11, labels(&[("containerd.io/x.y", "z")])));
    fails(port.info(&Context::new("other"), ct::InfoRequest { digest: HELLO.into() }).await, Code::NotFound);

    port.delete(&cx, ct::DeleteContentRequest { digest: HELLO.into() }).await.unwrap();
    fails(port.delete(&cx, ct::DeleteContentRequest { digest: HELLO.into() }).await, Code::NotFound);
}

pub async fn snapshots(core: &Core) {
    let cx = Context::new("conformance");
    let port = &core.snapshots;
    let sn = || "overlayfs".to_owned();
    let prepare = |key: &str, parent: &str| s::PrepareSnapshotRequest {
        snapshotter: sn(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels: BTreeMap::new(),
    };
    let remove = |key: &str| s::RemoveSnapshotRequest { snapshotter: sn(), key: key.to_owned() };
    let unknown = s::StatSnapshotRequest { snapshotter: "no-such".into(), key: "x".into() };
    fails(port.stat(&cx, unknown).await, Code::InvalidArgument);
    fails(port.prepare(&cx, prepare("a", "absent")).await, Code::NotFound);

    assert_eq!(port.prepare(&cx, prepare("a", "")).await.unwrap().mounts.len(), 1);
    fails(port.prepare(&cx, prepare("a", "")).await, Code::AlreadyExists);
    let commit =
        s::CommitSnapshotRequest { snapshotter: sn(), name: "base".into(), key: "a".into(), ..Default::default() };
    port.commit(&cx, commit).await.unwrap();
    fails(port.mounts(&cx, s::MountsRequest { snapshotter: sn(), key: "a".into() }).await, Code::NotFound);

    port.prepare(&cx, prepare("child", "base")).await.unwrap();
    let stat = |key: &str| s::StatSnapshotRequest { snapshotter: sn(), key: key.to_owned() };
    let info = port.stat(&cx, stat("child")).await.unwrap().info.unwrap();
    assert_eq!((info.parent.as_str(), info.kind()), ("base", s::Kind::Active));
    assert_eq!(port.stat(&cx, stat("base")).await.unwrap().info.unwrap().kind(), s::Kind::Committed);
    fails(port.stat(&Context::new("other"), stat("base")).await, Code::NotFound);
    fails(port.remove(&cx, remove("base")).await, Code::FailedPrecondition);

    port.remove(&cx, remove("child")).await.unwrap();
    port.remove(&cx, remove("base")).await.unwrap();
    fails(port.remove(&cx, remove("base")).await, Code::NotFound);
    let listed = port.list(&cx, s::ListSnapshotsRequest { snapshotter: sn(), filters: vec![] }).await.unwrap();
    let left: Vec<_> = listed.flat_map(|block| futures::stream::iter(block.unwrap().info)).collect().await;
    assert_eq!(left, []);
}

#[cfg(test)]
mod tests {
    use crate::fake::FakeCore;
    use crate::meter::Meter;

    #[tokio::test]
    async fn the_fake_conforms() {
        super::all(&FakeCore::default().core()).await;
    }

    #[tokio::test]
    async fn the_fake_over_grpc_conforms_and_is_metered() {
        let meter = Meter::default();
        let core = FakeCore::default().over_pipe().await.unwrap().metered(&meter, true);
        super::all(&core).await;
        let samples = meter.samples();
        let create = samples.iter().find(|s| (s.service, s.method) == ("Containers", "create")).unwrap();
        assert_eq!((create.calls, create.errors), (3, 1));
        assert!(create.bytes_out > create.bytes_in && create.time.as_nanos() > 0, "{create:?}");
    }
}
