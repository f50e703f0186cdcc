//! The core's records over its socket: containers, images, leases, namespaces, snapshots, sandboxes.

use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented};
use e2e::Wiring;
use e2e::world;
use shared_proto::containerd::{
    containers as c, content, diff, images as i, leases as l, namespaces as n, sandbox, snapshots as s, tasks, types,
};
use shared_proto::core::Core;
use shared_proto::{Code, Context, any};

use crate::{UNKNOWN, fails};

const X: &str = "unknown-thing";

pub async fn records(wiring: Wiring) {
    let world = world(wiring).await;
    let core = world.core();
    let before = world.inventory().await;
    let cx = Context::new("e2e");
    no_namespace(&core).await;
    containers(&core, &cx).await;
    images(&core, &cx).await;
    leases(&core, &cx).await;
    snapshots(&core, &cx).await;
    namespaces(&core, &cx).await;
    world.assert_as_before(&before).await;
}

async fn no_namespace(core: &Core) {
    for (cx, code, names) in [
        (Context::default(), FailedPrecondition, "namespace is required"),
        (Context::new("no/such namespace"), InvalidArgument, "\"no/such namespace\""),
    ] {
        fails("containers", core.containers.list(&cx, Default::default()).await, code, names);
        fails("tasks", core.tasks.list(&cx, tasks::ListTasksRequest::default()).await, code, names);
        fails("images", core.images.list(&cx, Default::default()).await, code, names);
        fails("a lease", core.leases.create(&cx, l::CreateRequest::default()).await, code, names);
        let stat = s::StatSnapshotRequest { snapshotter: "overlayfs".into(), key: "x".into() };
        fails("a snapshot", core.snapshots.stat(&cx, stat).await, code, names);
        let info = content::InfoRequest { digest: format!("sha256:{UNKNOWN}") };
        fails("content", core.content.info(&cx, info).await, code, names);
        fails("a sandbox", core.sandboxes.list(&cx, Default::default()).await, code, names);
        fails("a layer", core.diff.apply(&cx, diff::ApplyRequest::default()).await, code, names);
    }
}

fn container(id: &str, runtime: &str) -> c::Container {
    c::Container {
        id: id.into(),
        runtime: Some(c::container::Runtime { name: runtime.into(), options: None }),
        spec: Some(any::raw(any::SPEC, crate::tasks::SPEC)),
        ..Default::default()
    }
}

async fn containers(core: &Core, cx: &Context) {
    let create = async |container: c::Container| {
        core.containers.create(cx, c::CreateContainerRequest { container: Some(container) }).await
    };
    let runc = "io.containerd.runc.v2";
    let long = "x".repeat(77);
    let labelled = c::Container { labels: [("key".to_owned(), "v".repeat(5000))].into(), ..container("fine", runc) };
    let keyed = c::Container { snapshot_key: "key".into(), ..container("fine", runc) };
    for (what, wrong, names) in [
        ("an id that is a path", container("../escape", runc), "../escape"),
        ("an id that is too long", container(&long, runc), long.as_str()),
        ("no id", container("", runc), "empty"),
        ("no runtime", container("fine", ""), "runtime"),
        ("a label that is too long", labelled, "\"key\""),
        ("a snapshot of no snapshotter", keyed, "snapshotter"),
    ] {
        fails(what, create(wrong).await, InvalidArgument, names);
    }
    let nothing = core.containers.create(cx, c::CreateContainerRequest::default()).await;
    fails("no container", nothing, InvalidArgument, "container");
    create(container("fine", runc)).await.expect("a good one");
    fails("a taken id", create(container("fine", runc)).await, AlreadyExists, "\"fine\"");
    let update = async |id: &str, path: &str| {
        let request = c::UpdateContainerRequest {
            container: Some(container(id, "other")),
            update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
        };
        core.containers.update(cx, request).await
    };
    fails("a field that is none", update("fine", "no_such_field").await, InvalidArgument, "no_such_field");
    fails("a field that stays", update("fine", "snapshotter").await, InvalidArgument, "snapshotter");
    fails("an update of none", update(X, "labels").await, NotFound, X);
    let read = core.containers.get(cx, c::GetContainerRequest { id: "fine".into() }).await.expect("it is there");
    assert_eq!(read.container.expect("a container").runtime.expect("a runtime").name, runc, "unchanged");
    let get = core.containers.get(cx, c::GetContainerRequest { id: X.into() }).await;
    fails("get", get, NotFound, X);
    let foreign = core.containers.get(&Context::new("other"), c::GetContainerRequest { id: "fine".into() }).await;
    fails("one of another namespace", foreign, NotFound, "fine");
    let delete = |id: &str| core.containers.delete(cx, c::DeleteContainerRequest { id: id.to_owned() });
    fails("delete", delete(X).await, NotFound, X);
    for filter in ["id~=(", "id==", "==x", "id=x", "labels.\"a==b", "id!"] {
        let filters = vec![filter.to_owned()];
        let list = core.containers.list(cx, c::ListContainersRequest { filters }).await;
        fails("a filter that is none", list, InvalidArgument, &format!("{filter:?}"));
    }
    delete("fine").await.expect("delete");

    let stored = |id: &str| sandbox::StoreGetRequest { sandbox_id: id.to_owned() };
    fails("a sandbox", core.sandboxes.get(cx, stored(X)).await, NotFound, X);
    let create = core.sandboxes.create(cx, sandbox::StoreCreateRequest::default()).await;
    fails("no sandbox", create, InvalidArgument, "sandbox");
}

async fn images(core: &Core, cx: &Context) {
    let target = |digest: &str| {
        let media_type = "application/vnd.oci.image.manifest.v1+json".into();
        Some(types::Descriptor { media_type, digest: digest.to_owned(), size: 3, ..Default::default() })
    };
    let digest = format!("sha256:{UNKNOWN}");
    let image = |name: &str, target| i::Image { name: name.to_owned(), target, ..Default::default() };
    let create = async |image: i::Image| {
        core.images.create(cx, i::CreateImageRequest { image: Some(image), source_date_epoch: None }).await
    };
    fails("no name", create(image("", target(&digest))).await, InvalidArgument, "name");
    fails("no target", create(image("x:1", None)).await, InvalidArgument, "target");
    fails("no digest", create(image("x:1", target("md5:abc"))).await, InvalidArgument, "md5:abc");
    let get = core.images.get(cx, i::GetImageRequest { name: X.into() }).await;
    fails("get", get, NotFound, X);
    let request = i::UpdateImageRequest { image: Some(image(X, target(&digest))), ..Default::default() };
    fails("update", core.images.update(cx, request).await, NotFound, X);
    let delete = i::DeleteImageRequest { name: X.into(), sync: true, ..Default::default() };
    fails("delete", core.images.delete(cx, delete).await, NotFound, X);
    let list = core.images.list(cx, i::ListImagesRequest { filters: vec!["name~=(".into()] }).await;
    fails("a filter that is none", list, InvalidArgument, "name~=(");
}

async fn leases(core: &Core, cx: &Context) {
    let create = |id: &str| core.leases.create(cx, l::CreateRequest { id: id.to_owned(), ..Default::default() });
    fails("an id with a blank", create("a b").await, InvalidArgument, "\"a b\"");
    create("held").await.expect("a good one");
    fails("a taken id", create("held").await, AlreadyExists, "\"held\"");
    let add = |id: &str, kind: &str, what: &str| {
        let resource = Some(l::Resource { id: what.to_owned(), r#type: kind.to_owned() });
        core.leases.add_resource(cx, l::AddResourceRequest { id: id.to_owned(), resource })
    };
    fails("content that is none", add("held", "content", "md5:abc").await, InvalidArgument, "md5:abc");
    fails("a snapshot of nobody", add("held", "snapshots/", "x").await, InvalidArgument, "snapshots/");
    fails("what is not leased", add("held", "tasks", "x").await, Unimplemented, "\"tasks\"");
    fails("a lease that is not there", add(X, "images", "x").await, NotFound, X);
    let held = core.leases.list_resources(cx, l::ListResourcesRequest { id: "held".into() }).await.expect("list");
    assert!(held.resources.is_empty(), "{held:?}");
    let none = l::AddResourceRequest { id: "held".into(), resource: None };
    fails("nothing", core.leases.add_resource(cx, none).await, InvalidArgument, "resource");
    let list = core.leases.list_resources(cx, l::ListResourcesRequest { id: X.into() }).await;
    fails("resources of none", list, NotFound, X);
    let list = core.leases.list(cx, l::ListRequest { filters: vec!["id~=(".into()] }).await;
    fails("a filter that is none", list, InvalidArgument, "id~=(");
    let delete = |id: &str| core.leases.delete(cx, l::DeleteRequest { id: id.to_owned(), sync: true });
    fails("delete", delete(X).await, NotFound, X);
    delete("held").await.expect("delete");
    fails("delete once more", delete("held").await, NotFound, "held");

    // What would be made under a lease that is gone is not made at all.
    let under = cx.with_lease("held");
    let prepare = s::PrepareSnapshotRequest { snapshotter: "overlayfs".into(), key: "k".into(), ..Default::default() };
    fails("a snapshot under no lease", core.snapshots.prepare(&under, prepare).await, NotFound, "held");
    let stat = s::StatSnapshotRequest { snapshotter: "overlayfs".into(), key: "k".into() };
    fails("and so there is none", core.snapshots.stat(cx, stat).await, NotFound, "\"k\"");
}

async fn snapshots(core: &Core, cx: &Context) {
    core.leases.create(cx, l::CreateRequest { id: "work".into(), ..Default::default() }).await.expect("a lease");
    let cx = &cx.with_lease("work");
    let sn = || "overlayfs".to_owned();
    let stat = |snapshotter: &str, key: &str| {
        core.snapshots.stat(cx, s::StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() })
    };
    fails("an unknown snapshotter", stat("no-such-snapshotter", X).await, InvalidArgument, "no-such-snapshotter");
    fails("an unknown snapshot", stat("overlayfs", X).await, NotFound, X);
    let prepare = |key: &str, parent: &str| {
        let (key, parent) = (key.to_owned(), parent.to_owned());
        core.snapshots.prepare(cx, s::PrepareSnapshotRequest { snapshotter: sn(), key, parent, ..Default::default() })
    };
    fails("a snapshot on nothing", prepare("child", X).await, NotFound, X);
    fails("no key", prepare("", "").await, InvalidArgument, "name");
    prepare("below", "").await.expect("a good one");
    fails("a taken key", prepare("below", "").await, AlreadyExists, "\"below\"");
    fails("on one that is written", prepare("child", "below").await, InvalidArgument, "\"below\"");
    let commit = |name: &str, key: &str| {
        let (name, key) = (name.to_owned(), key.to_owned());
        core.snapshots.commit(cx, s::CommitSnapshotRequest { snapshotter: sn(), name, key, ..Default::default() })
    };
    fails("commit of none", commit("done", X).await, NotFound, X);
    commit("done", "below").await.expect("commit");
    fails("commit of a committed one", commit("again", "done").await, FailedPrecondition, "\"done\"");
    prepare("child", "done").await.expect("on a committed one");
    fails("commit under a taken name", commit("done", "child").await, AlreadyExists, "\"done\"");
    let remove =
        |key: &str| core.snapshots.remove(cx, s::RemoveSnapshotRequest { snapshotter: sn(), key: key.to_owned() });
    fails("remove with children", remove("done").await, FailedPrecondition, "\"done\"");
    fails("remove of none", remove(X).await, NotFound, X);
    let mounts = |key: &str| core.snapshots.mounts(cx, s::MountsRequest { snapshotter: sn(), key: key.to_owned() });
    fails("mounts of none", mounts(X).await, NotFound, X);
    fails("mounts of a committed one", mounts("done").await, FailedPrecondition, "\"done\"");
    let usage = s::UsageRequest { snapshotter: sn(), key: X.into() };
    fails("usage of none", core.snapshots.usage(cx, usage).await, NotFound, X);
    let update = s::UpdateSnapshotRequest {
        snapshotter: sn(),
        info: Some(s::Info { name: "done".into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["parent".into()] }),
    };
    fails("a field that stays", core.snapshots.update(cx, update).await, InvalidArgument, "parent");
    let list = s::ListSnapshotsRequest { snapshotter: sn(), filters: vec!["name~=(".into()] };
    fails("a filter that is none", core.snapshots.list(cx, list).await, InvalidArgument, "name~=(");
    remove("child").await.expect("remove");
    remove("done").await.expect("remove");

    let layer = |media_type: &str, digest: &str| {
        let (media_type, digest) = (media_type.to_owned(), digest.to_owned());
        let diff = Some(types::Descriptor { media_type, digest, ..Default::default() });
        core.diff.apply(cx, diff::ApplyRequest { diff, ..Default::default() })
    };
    let (tar, digest) = ("application/vnd.oci.image.layer.v1.tar", format!("sha256:{UNKNOWN}"));
    fails("a layer that is not there", layer(tar, &digest).await, NotFound, &digest);
    fails("a layer without a digest", layer(tar, "md5:abc").await, InvalidArgument, "md5:abc");
    fails("what is no layer", layer("text/plain", &digest).await, Unimplemented, "text/plain");
    let none = core.diff.apply(cx, diff::ApplyRequest::default()).await;
    fails("no layer", none, InvalidArgument, "descriptor");
    core.leases.delete(cx, l::DeleteRequest { id: "work".into(), sync: true }).await.expect("delete the lease");
}

async fn namespaces(core: &Core, cx: &Context) {
    let none = Context::default();
    let get = |name: &str| core.namespaces.get(&none, n::GetNamespaceRequest { name: name.to_owned() });
    let gone = get(X).await.expect("an unknown namespace is an empty one: clients die of anything else");
    assert!(gone.namespace.is_some_and(|namespace| namespace.labels.is_empty()));
    fails("a namespace that is no name", get("a/b").await, InvalidArgument, "\"a/b\"");
    let create = |name: &str| {
        let namespace = Some(n::Namespace { name: name.to_owned(), ..Default::default() });
        core.namespaces.create(&none, n::CreateNamespaceRequest { namespace })
    };
    fails("no name", create("").await, InvalidArgument, "empty");
    create("full").await.expect("a good one");
    fails("a taken name", create("full").await, AlreadyExists, "\"full\"");
    let inside = Context::new("full");
    let request = c::CreateContainerRequest { container: Some(container("one", "io.containerd.runc.v2")) };
    core.containers.create(&inside, request).await.expect("create");
    let delete = |name: &str| core.namespaces.delete(&none, n::DeleteNamespaceRequest { name: name.to_owned() });
    fails("one that is not empty", delete("full").await, FailedPrecondition, "containers");
    fails("by name", delete("full").await, FailedPrecondition, "\"full\"");
    fails("an unknown one", delete(X).await, NotFound, X);
    core.containers.delete(&inside, c::DeleteContainerRequest { id: "one".into() }).await.expect("delete");
    delete("full").await.expect("delete");
    // What the other parts used.
    let used = cx.namespace.clone().expect("a namespace");
    delete(&used).await.expect("nothing is left in it");
}
