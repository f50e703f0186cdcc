//! The services over real stores: the contract's suites by plain call and over gRPC, and what only ours do.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use prost_types::FieldMask;
use shared_proto::containerd::{
    containers as c, images as i, introspection as n, leases as l, namespaces, sandbox as s, snapshots, types,
};
use shared_proto::core::Core;
use shared_proto::seam::{CORE_STAGES, v1 as seam};
use shared_proto::{Code, Context, any, conformance};

use crate::testing::{Node, map};

async fn suites(core: &Core) {
    conformance::headers(core).await;
    conformance::versions(core).await;
    conformance::containers(core).await;
    conformance::images(core).await;
    conformance::leases(core).await;
    conformance::namespaces(core).await;
    conformance::content(core).await;
}

#[tokio::test]
async fn the_contract_holds_by_plain_call() {
    suites(&Node::new().await.core()).await;
}

#[tokio::test]
async fn the_contract_holds_over_grpc() {
    suites(&Node::new().await.over_pipe().await).await;
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() })
}

fn container(id: &str) -> c::Container {
    c::Container {
        id: id.into(),
        image: "img".into(),
        labels: map(&[("a", "1"), ("b", "2")]),
        runtime: Some(c::container::Runtime { name: "runc".into(), options: Some(any::raw("opt", b"o".to_vec())) }),
        spec: Some(any::raw(any::SPEC, b"{}".to_vec())),
        snapshotter: "native".into(),
        snapshot_key: id.into(),
        extensions: BTreeMap::from([
            ("x.y/z".to_owned(), any::raw("u", b"1".to_vec())),
            ("w".to_owned(), any::raw("u", b"2".to_vec())),
        ]),
        ..Default::default()
    }
}

#[tokio::test]
async fn masks_change_what_they_name() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.core().containers;
    port.create(&cx, c::CreateContainerRequest { container: Some(container("c")) }).await.unwrap();
    let update = |new: c::Container, paths: &[&str]| {
        let request = c::UpdateContainerRequest { container: Some(new), update_mask: mask(paths) };
        let (port, cx) = (port.clone(), cx.clone());
        async move { port.update(&cx, request).await.map(|answer| answer.container.unwrap()) }
    };
    let mut new = c::Container { id: "c".into(), ..Default::default() };
    new.extensions.insert("x.y/z".into(), any::raw("u", b"9".to_vec()));
    new.spec = Some(any::raw("other", b"new".to_vec()));
    new.image = "ignored".into();
    let updated = update(new, &["extensions.x.y/z", "spec", "labels.a", "extensions.w", "snapshotkey"]).await.unwrap();
    assert_eq!(updated.extensions, BTreeMap::from([("x.y/z".to_owned(), any::raw("u", b"9".to_vec()))]));
    assert_eq!((updated.labels.clone(), updated.image.as_str()), (map(&[("b", "2")]), "img"));
    assert_eq!((updated.spec.clone().unwrap().value, updated.snapshot_key.as_str()), (b"new".to_vec(), ""));
    let read = port.get(&cx, c::GetContainerRequest { id: "c".into() }).await.unwrap().container;
    assert_eq!(read, Some(updated.clone()));
    assert!(updated.updated_at.unwrap().seconds >= updated.created_at.unwrap().seconds);

    for path in ["snapshotter", "created_at", "labelsx.a", "id"] {
        let e = update(container("c"), &[path]).await.unwrap_err();
        assert!(e.code == Code::InvalidArgument && e.message.contains(path), "{e}");
    }
    // Without a mask: everything that can be changed, and nothing else may differ.
    let whole = update(container("c"), &[]).await.unwrap();
    assert_eq!((whole.labels, whole.extensions.len()), (container("c").labels, 2));
    let other = c::container::Runtime { name: "kata".into(), options: None };
    let e = update(c::Container { runtime: Some(other), ..container("c") }, &[]).await.unwrap_err();
    assert!(e.code == Code::InvalidArgument && e.message.contains("runtime"), "{e}");
    assert_eq!(update(container("absent"), &[]).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn bad_containers_are_refused_by_name() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.core().containers;
    let many = (0..300).map(|n| (format!("e{n}"), any::raw("u", vec![]))).collect();
    for (bad, word) in [
        (c::Container { id: "a/b".into(), ..container("x") }, "a/b"),
        (c::Container { runtime: None, ..container("x") }, "runtime"),
        (c::Container { snapshotter: String::new(), ..container("x") }, "snapshotter"),
        (c::Container { labels: map(&[("k", &"v".repeat(5000))]), ..container("x") }, "label"),
        (c::Container { extensions: many, ..container("x") }, "extensions"),
        (c::Container { spec: Some(any::raw("u", vec![0; 16 << 20])), ..container("x") }, "bytes"),
    ] {
        let e = port.create(&cx, c::CreateContainerRequest { container: Some(bad) }).await.unwrap_err();
        assert!(e.code == Code::InvalidArgument && e.message.contains(word), "{e}");
    }
    let left = port.list(&cx, c::ListContainersRequest::default()).await.unwrap().containers;
    assert!(left.is_empty());
}

#[tokio::test]
async fn lists_filter_and_stream_beyond_one_message() {
    let node = Node::new().await;
    let (core, cx) = (node.over_pipe().await, Context::new("test"));
    for n in 0..6 {
        let big = any::raw("u", vec![n; 4 << 20]);
        let new =
            c::Container { spec: Some(big), labels: map(&[("n", &n.to_string())]), ..container(&format!("c{n}")) };
        core.containers.create(&cx, c::CreateContainerRequest { container: Some(new) }).await.unwrap();
    }
    let e = core.containers.list(&cx, c::ListContainersRequest::default()).await.unwrap_err();
    assert_eq!(e.code, Code::ResourceExhausted, "{e}");
    let all = core.containers.list_stream(&cx, c::ListContainersRequest::default()).await.unwrap();
    let all: Vec<_> = all.map(|item| item.unwrap().container.unwrap()).collect().await;
    assert_eq!(all.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["c0", "c1", "c2", "c3", "c4", "c5"]);
    assert!(all.iter().enumerate().all(|(n, c)| c.spec.as_ref().unwrap().value == vec![n as u8; 4 << 20]));

    let filters = vec!["labels.n==3".to_owned(), "id==c5,runtime.name==runc".to_owned()];
    let some = core.containers.list(&cx, c::ListContainersRequest { filters }).await.unwrap().containers;
    assert_eq!(some.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["c3", "c5"]);
    let filters = vec!["id=c5".to_owned()];
    let e = core.containers.list(&cx, c::ListContainersRequest { filters }).await.unwrap_err();
    assert_eq!(e.code, Code::InvalidArgument);
}

fn image(name: &str, digest: &str) -> i::Image {
    let target = types::Descriptor { media_type: "m".into(), digest: digest.into(), size: 3, annotations: map(&[]) };
    i::Image { name: name.into(), target: Some(target), labels: map(&[("l", "1")]), ..Default::default() }
}

#[tokio::test]
async fn images_are_checked_changed_and_deleted_conditionally() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let (port, digest) = (node.core().images, node.put(b"abc", &[]).await.to_string());
    let create = |image: i::Image| i::CreateImageRequest { image: Some(image), source_date_epoch: None };
    let mut bad = vec![image("", &digest), image("x", "sha512:00"), image("x", "")];
    bad.push(i::Image { target: None, ..image("x", &digest) });
    for (size, media_type) in [(0, "m"), (1, "")] {
        let mut wrong = image("x", &digest);
        wrong.target = Some(types::Descriptor { size, media_type: media_type.into(), ..wrong.target.unwrap() });
        bad.push(wrong);
    }
    for bad in bad {
        let e = port.create(&cx, create(bad)).await.unwrap_err();
        assert_eq!(e.code, Code::InvalidArgument, "{e}");
    }
    let epoch = prost_types::Timestamp { seconds: 7, nanos: 0 };
    let request = i::CreateImageRequest { source_date_epoch: Some(epoch), ..create(image("x", &digest)) };
    assert_eq!(port.create(&cx, request).await.unwrap().image.unwrap().created_at, Some(epoch));

    let mut new = image("x", &format!("sha256:{}", "b".repeat(64)));
    new.labels = map(&[("l", "2"), ("m", "3")]);
    let request =
        i::UpdateImageRequest { image: Some(new), update_mask: mask(&["target", "labels.m"]), ..Default::default() };
    let updated = port.update(&cx, request).await.unwrap().image.unwrap();
    assert_eq!((updated.labels, updated.created_at), (map(&[("l", "1"), ("m", "3")]), Some(epoch)));
    assert!(updated.target.unwrap().digest.ends_with("bbb"));

    let old = image("x", &digest).target;
    let request = i::DeleteImageRequest { name: "x".into(), sync: false, target: old };
    assert_eq!(port.delete(&cx, request.clone()).await.unwrap_err().code, Code::NotFound);
    let target = image("x", &format!("sha256:{}", "b".repeat(64))).target;
    port.delete(&cx, i::DeleteImageRequest { target, ..request }).await.unwrap();
}

#[tokio::test]
async fn a_synchronous_delete_leaves_no_bytes() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let core = node.over_pipe().await;
    let lease = node.lease("pull", &[]).await;
    let layer = node.put_as(&lease, b"layer", &[]).await;
    let label = layer.to_string();
    let manifest = node.put_as(&lease, b"man", &[("containerd.io/gc.ref.content.l.0", &label)]).await;
    for name in ["one", "two"] {
        let request = i::CreateImageRequest { image: Some(image(name, manifest.as_str())), source_date_epoch: None };
        core.images.create(&cx, request).await.unwrap();
    }
    core.leases.delete(&cx, l::DeleteRequest { id: "pull".into(), sync: true }).await.unwrap();
    assert!(node.on_disk(&manifest) && node.on_disk(&layer));
    let delete = |name: &str| i::DeleteImageRequest { name: name.into(), sync: true, target: None };
    core.images.delete(&cx, delete("one")).await.unwrap();
    assert!(node.on_disk(&manifest) && node.on_disk(&layer));
    core.images.delete(&cx, delete("two")).await.unwrap();
    assert!(!node.on_disk(&manifest) && !node.on_disk(&layer));
}

#[tokio::test]
async fn leases_hold_only_what_can_be_held() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.core().leases;
    let id = format!("moby-image-sha256:{}", "a".repeat(64));
    port.create(&cx, l::CreateRequest { id: id.clone(), labels: map(&[("k", "v")]) }).await.unwrap();
    let add = |kind: &str, what: &str| {
        let resource = Some(l::Resource { id: what.into(), r#type: kind.into() });
        l::AddResourceRequest { id: id.clone(), resource }
    };
    for (kind, what, code) in [
        ("content", "not-a-digest", Code::InvalidArgument),
        ("snapshots", "x", Code::Unimplemented),
        ("snapshots/", "x", Code::InvalidArgument),
        ("tasks", "x", Code::Unimplemented),
        ("ingests", "", Code::InvalidArgument),
    ] {
        assert_eq!(port.add_resource(&cx, add(kind, what)).await.unwrap_err().code, code, "{kind}");
    }
    port.add_resource(&cx, add("images", "x")).await.unwrap();
    port.add_resource(&cx, add("images", "x")).await.unwrap();
    let held = port.list_resources(&cx, l::ListResourcesRequest { id: id.clone() }).await.unwrap().resources;
    assert_eq!(held.len(), 1);
    let filters = vec!["labels.k==v".to_owned()];
    assert_eq!(port.list(&cx, l::ListRequest { filters }).await.unwrap().leases.len(), 1);
    assert!(port.list(&Context::new("other"), l::ListRequest::default()).await.unwrap().leases.is_empty());
}

#[tokio::test]
async fn namespaces_appear_by_use_and_go_when_empty() {
    let (node, none) = (Node::new().await, Context::default());
    let core = node.core();
    let inside = Context::new("by-use");
    core.leases.create(&inside, l::CreateRequest::default()).await.unwrap();
    let update = |paths: Option<FieldMask>, labels: &[(&str, &str)]| namespaces::UpdateNamespaceRequest {
        namespace: Some(namespaces::Namespace { name: "by-use".into(), labels: map(labels) }),
        update_mask: paths,
    };
    let labels = |answer: namespaces::UpdateNamespaceResponse| answer.namespace.unwrap().labels;
    let all = core.namespaces.update(&none, update(None, &[("a", "1"), ("b", "2")])).await.unwrap();
    assert_eq!(labels(all), map(&[("a", "1"), ("b", "2")]));
    let one = core.namespaces.update(&none, update(mask(&["labels.a"]), &[("b", "9")])).await.unwrap();
    assert_eq!(labels(one), map(&[("b", "2")]));
    let e = core.namespaces.update(&none, update(mask(&["name"]), &[])).await.unwrap_err();
    assert_eq!(e.code, Code::InvalidArgument);

    let create = c::CreateContainerRequest { container: Some(container("c")) };
    core.containers.create(&inside, create).await.unwrap();
    let delete = || namespaces::DeleteNamespaceRequest { name: "by-use".into() };
    let e = core.namespaces.delete(&none, delete()).await.unwrap_err();
    assert!(e.code == Code::FailedPrecondition && e.message.contains("containers"), "{e}");
    core.containers.delete(&inside, c::DeleteContainerRequest { id: "c".into() }).await.unwrap();
    // Its lease does not keep it.
    core.namespaces.delete(&none, delete()).await.unwrap();
    assert!(core.namespaces.list(&none, Default::default()).await.unwrap().namespaces.is_empty());
    assert_eq!(
        core.namespaces.get(&none, namespaces::GetNamespaceRequest { name: "a/b".into() }).await.unwrap_err().code,
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn sandboxes_are_carried() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let port = node.core().sandboxes;
    let sandbox = types::Sandbox {
        sandbox_id: "s".into(),
        labels: map(&[("a", "1")]),
        spec: Some(any::raw("spec", b"\xff".to_vec())),
        extensions: BTreeMap::from([("e".to_owned(), any::raw("u", b"1".to_vec()))]),
        sandboxer: "podsandbox".into(),
        ..Default::default()
    };
    let create = || s::StoreCreateRequest { sandbox: Some(sandbox.clone()) };
    let made = port.create(&cx, create()).await.unwrap().sandbox.unwrap();
    assert_eq!((&made.spec, &made.sandboxer, &made.labels), (&sandbox.spec, &sandbox.sandboxer, &sandbox.labels));
    assert_eq!(port.create(&cx, create()).await.unwrap_err().code, Code::AlreadyExists);
    let new = types::Sandbox { sandbox_id: "s".into(), labels: map(&[("b", "2")]), ..Default::default() };
    let update = |fields: &[&str]| s::StoreUpdateRequest {
        sandbox: Some(new.clone()),
        fields: fields.iter().map(|f| (*f).to_owned()).collect(),
    };
    let updated = port.update(&cx, update(&["labels.b", "extensions.e"])).await.unwrap().sandbox.unwrap();
    assert_eq!((updated.labels, updated.extensions.len()), (map(&[("a", "1"), ("b", "2")]), 0));
    assert_eq!((updated.created_at, &updated.spec), (made.created_at, &sandbox.spec));
    assert_eq!(port.update(&cx, update(&["sandbox_id"])).await.unwrap_err().code, Code::InvalidArgument);
    let listed = port.list(&cx, s::StoreListRequest { filters: vec!["labels.b==2".into()] }).await.unwrap().list;
    assert_eq!(listed.len(), 1);
    port.delete(&cx, s::StoreDeleteRequest { sandbox_id: "s".into() }).await.unwrap();
    assert_eq!(port.get(&cx, s::StoreGetRequest { sandbox_id: "s".into() }).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn introspection_filters_and_keeps_its_uuid() {
    let (node, cx) = (Node::new().await, Context::default());
    let port = node.core().introspection;
    let all = port.plugins(&cx, n::PluginsRequest::default()).await.unwrap().plugins;
    assert!(all.iter().any(|p| p.r#type == "io.containerd.grpc.v1" && p.id == "tasks"));
    let filters = vec!["type==io.containerd.content.v1,id==content".to_owned()];
    let some = port.plugins(&cx, n::PluginsRequest { filters }).await.unwrap().plugins;
    assert_eq!(some.len(), 1);
    assert_eq!(some[0].exports["root"], node.content.root().display().to_string());

    let server = port.server(&cx, ()).await.unwrap();
    assert_eq!((server.pid, server.pidns > 0), (u64::from(std::process::id()), true));
    assert_eq!(node.core().introspection.server(&cx, ()).await.unwrap().uuid, server.uuid);
    let info =
        |id: &str| n::PluginInfoRequest { r#type: "io.containerd.runtime.v2".into(), id: id.into(), options: None };
    assert_eq!(port.plugin_info(&cx, info("task")).await.unwrap().plugin.unwrap().id, "task");
    assert_eq!(port.plugin_info(&cx, info("nope")).await.unwrap_err().code, Code::NotFound);
}

/// In every wiring: over gRPC it goes the same way.
#[tokio::test]
async fn the_runtime_tells_what_was_done_for_a_container() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let core = node.core();
    core.containers.create(&cx, c::CreateContainerRequest { container: Some(container("a")) }).await.unwrap();
    let prepare =
        snapshots::PrepareSnapshotRequest { snapshotter: "native".into(), key: "a".into(), ..Default::default() };
    core.snapshots.prepare(&cx, prepare).await.unwrap();
    let ask = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let options = Some(any::pack(&seam::CoreStagesRequest { ids }));
        n::PluginInfoRequest { r#type: CORE_STAGES.0.into(), id: CORE_STAGES.1.into(), options }
    };
    let told = core.introspection.plugin_info(&cx, ask(&["nobody", "a"])).await.unwrap().extra.unwrap();
    let stages = any::unpack::<seam::CoreStagesResponse>(&told).unwrap().stages;
    let seen: Vec<_> = stages.iter().map(|stage| (stage.id.as_str(), stage.name.as_str(), stage.running)).collect();
    assert_eq!(
        seen,
        [
            ("a", "Containers.create", false),
            ("a", "database", false),
            ("a", "Snapshots.prepare", false),
            ("a", "database", false)
        ]
    );
    let now = u64::try_from(shared_sys::clock::monotonic().as_micros()).unwrap();
    assert!(stages.iter().all(|stage| stage.began_us + stage.us <= now && stage.began_us + 60_000_000 > now));
    let other = core.introspection.plugin_info(&Context::new("other"), ask(&["a"])).await.unwrap().extra.unwrap();
    assert!(any::unpack::<seam::CoreStagesResponse>(&other).unwrap().stages.is_empty(), "another namespace's");
}

#[tokio::test]
async fn a_damaged_record_is_left_out_and_delays_no_other() {
    let (node, cx) = (Node::new().await, Context::new("test"));
    let (core, digest) = (node.core(), node.put(b"abc", &[]).await.to_string());
    for name in ["a", "b", "c"] {
        let request = i::CreateImageRequest { image: Some(image(name, &digest)), source_date_epoch: None };
        core.images.create(&cx, request).await.unwrap();
        core.containers.create(&cx, c::CreateContainerRequest { container: Some(container(name)) }).await.unwrap();
    }
    let spoil = |c: &rusqlite::Connection| {
        c.execute("UPDATE images SET labels = 'no json' WHERE name = 'b'", [])?;
        Ok(c.execute("UPDATE container_payloads SET kind = 'what' WHERE container = 'b' AND kind = 'spec'", [])?)
    };
    node.write(spoil).await.unwrap();
    let images = core.images.list(&cx, i::ListImagesRequest::default()).await.unwrap().images;
    assert_eq!(images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    let containers = core.containers.list(&cx, c::ListContainersRequest::default()).await.unwrap().containers;
    assert_eq!(containers.iter().map(|container| container.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    let e = core.containers.get(&cx, c::GetContainerRequest { id: "b".into() }).await.unwrap_err();
    assert!(e.code == Code::Internal && e.message.contains("\"b\""), "{e}");
    // Labels that can't be read keep nothing, but the image still keeps its target.
    node.gc.collect().await.unwrap();
    assert_eq!(node.content.page(&node.scope, String::new(), 10, Default::default()).await.unwrap().len(), 1);
}
