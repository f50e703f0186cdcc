//! Records without behaviour: containers, images, leases, namespaces, sandboxes.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::StreamExt as _;

use super::{FakeCore, Named, in_namespace, key, lock, merge_labels, now, required};
use crate::api::{Containers, Images, Items, Leases, Namespaces, Sandboxes};
use crate::containerd::{containers as c, events, images as i, leases as l, namespaces as n, sandbox as s, types};
use crate::context::Context;
use crate::errdefs::{Error, Result};

#[derive(Default)]
pub(super) struct Records {
    pub containers: Named<c::Container>,
    pub images: Named<i::Image>,
    leases: Named<(l::Lease, BTreeSet<(String, String)>)>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    sandboxes: Named<types::Sandbox>,
    next_lease: u64,
}

fn no_such(what: &str, name: &str) -> Error {
    Error::not_found(format!("{what} {name:?}: not found"))
}

fn taken(what: &str, name: &str) -> Error {
    Error::exists(format!("{what} {name:?}: already exists"))
}

#[async_trait]
impl Containers for FakeCore {
    async fn get(&self, cx: &Context, req: c::GetContainerRequest) -> Result<c::GetContainerResponse> {
        let found = lock(&self.0.records).containers.get(&key(cx, &req.id)?).cloned();
        let container = found.ok_or_else(|| no_such("container", &req.id))?;
        Ok(c::GetContainerResponse { container: Some(container) })
    }

    async fn list(&self, cx: &Context, _: c::ListContainersRequest) -> Result<c::ListContainersResponse> {
        let containers = in_namespace(&lock(&self.0.records).containers, cx.namespace()?).cloned().collect();
        Ok(c::ListContainersResponse { containers })
    }

    async fn list_stream(&self, cx: &Context, req: c::ListContainersRequest) -> Result<Items<c::ListContainerMessage>> {
        let all = Containers::list(self, cx, req).await?.containers;
        let items = all.into_iter().map(|container| Ok(c::ListContainerMessage { container: Some(container) }));
        Ok(futures::stream::iter(items).boxed())
    }

    async fn create(&self, cx: &Context, req: c::CreateContainerRequest) -> Result<c::CreateContainerResponse> {
        let mut container = required(req.container, "container")?;
        let key = key(cx, &container.id)?;
        container.created_at = now();
        container.updated_at = container.created_at;
        let mut records = lock(&self.0.records);
        if records.containers.contains_key(&key) {
            return Err(taken("container", &container.id));
        }
        records.containers.insert(key, container.clone());
        let event = events::ContainerCreate { id: container.id.clone(), image: container.image.clone(), runtime: None };
        self.emit(cx, "/containers/create", &event)?;
        Ok(c::CreateContainerResponse { container: Some(container) })
    }

    async fn update(&self, cx: &Context, req: c::UpdateContainerRequest) -> Result<c::UpdateContainerResponse> {
        let new = required(req.container, "container")?;
        let paths = req.update_mask.unwrap_or_default().paths;
        let mut records = lock(&self.0.records);
        let old = records.containers.get_mut(&key(cx, &new.id)?).ok_or_else(|| no_such("container", &new.id))?;
        let wants = |what: &str| paths.is_empty() || paths.iter().any(|p| p == what);
        if paths.is_empty() || paths.iter().any(|p| p.starts_with("labels")) {
            merge_labels(&mut old.labels, new.labels, &paths);
        }
        for path in paths.iter().filter_map(|p| p.strip_prefix("extensions.")) {
            match new.extensions.get(path) {
                Some(value) => old.extensions.insert(path.to_owned(), value.clone()),
                None => old.extensions.remove(path),
            };
        }
        if wants("extensions") {
            old.extensions = new.extensions;
        }
        if wants("spec") {
            old.spec = new.spec;
        }
        if wants("image") {
            old.image = new.image;
        }
        if wants("snapshot_key") {
            old.snapshot_key = new.snapshot_key;
        }
        old.updated_at = now();
        Ok(c::UpdateContainerResponse { container: Some(old.clone()) })
    }

    async fn delete(&self, cx: &Context, req: c::DeleteContainerRequest) -> Result<()> {
        let gone = lock(&self.0.records).containers.remove(&key(cx, &req.id)?);
        gone.ok_or_else(|| no_such("container", &req.id))?;
        self.emit(cx, "/containers/delete", &events::ContainerDelete { id: req.id })
    }
}

#[async_trait]
impl Images for FakeCore {
    async fn get(&self, cx: &Context, req: i::GetImageRequest) -> Result<i::GetImageResponse> {
        let found = lock(&self.0.records).images.get(&key(cx, &req.name)?).cloned();
        Ok(i::GetImageResponse { image: Some(found.ok_or_else(|| no_such("image", &req.name))?) })
    }

    async fn list(&self, cx: &Context, _: i::ListImagesRequest) -> Result<i::ListImagesResponse> {
        let images = in_namespace(&lock(&self.0.records).images, cx.namespace()?).cloned().collect();
        Ok(i::ListImagesResponse { images })
    }

    async fn create(&self, cx: &Context, req: i::CreateImageRequest) -> Result<i::CreateImageResponse> {
        let mut image = required(req.image, "image")?;
        image.created_at = now();
        image.updated_at = image.created_at;
        let key = key(cx, &image.name)?;
        let mut records = lock(&self.0.records);
        if records.images.contains_key(&key) {
            return Err(taken("image", &image.name));
        }
        records.images.insert(key, image.clone());
        self.emit(cx, "/images/create", &i::ImageCreate { name: image.name.clone(), labels: image.labels.clone() })?;
        Ok(i::CreateImageResponse { image: Some(image) })
    }

    async fn update(&self, cx: &Context, req: i::UpdateImageRequest) -> Result<i::UpdateImageResponse> {
        let new = required(req.image, "image")?;
        let paths = req.update_mask.unwrap_or_default().paths;
        let mut records = lock(&self.0.records);
        let old = records.images.get_mut(&key(cx, &new.name)?).ok_or_else(|| no_such("image", &new.name))?;
        if paths.is_empty() || paths.iter().any(|p| p.starts_with("labels")) {
            merge_labels(&mut old.labels, new.labels, &paths);
        }
        if paths.is_empty() || paths.iter().any(|p| p == "target") {
            old.target = new.target;
        }
        old.updated_at = now();
        let image = old.clone();
        drop(records);
        self.emit(cx, "/images/update", &i::ImageUpdate { name: image.name.clone(), labels: image.labels.clone() })?;
        Ok(i::UpdateImageResponse { image: Some(image) })
    }

    async fn delete(&self, cx: &Context, req: i::DeleteImageRequest) -> Result<()> {
        let gone = lock(&self.0.records).images.remove(&key(cx, &req.name)?);
        gone.ok_or_else(|| no_such("image", &req.name))?;
        self.emit(cx, "/images/delete", &i::ImageDelete { name: req.name })
    }
}

#[async_trait]
impl Leases for FakeCore {
    async fn create(&self, cx: &Context, req: l::CreateRequest) -> Result<l::CreateResponse> {
        let mut records = lock(&self.0.records);
        records.next_lease += 1;
        let id = if req.id.is_empty() { format!("lease-{}", records.next_lease) } else { req.id };
        let key = key(cx, &id)?;
        if records.leases.contains_key(&key) {
            return Err(taken("lease", &id));
        }
        let lease = l::Lease { id, created_at: now(), labels: req.labels };
        records.leases.insert(key, (lease.clone(), BTreeSet::new()));
        Ok(l::CreateResponse { lease: Some(lease) })
    }

    async fn delete(&self, cx: &Context, req: l::DeleteRequest) -> Result<()> {
        let gone = lock(&self.0.records).leases.remove(&key(cx, &req.id)?);
        gone.map(drop).ok_or_else(|| no_such("lease", &req.id))
    }

    async fn list(&self, cx: &Context, _: l::ListRequest) -> Result<l::ListResponse> {
        let records = lock(&self.0.records);
        let leases = in_namespace(&records.leases, cx.namespace()?).map(|(lease, _)| lease.clone()).collect();
        Ok(l::ListResponse { leases })
    }

    async fn add_resource(&self, cx: &Context, req: l::AddResourceRequest) -> Result<()> {
        let resource = required(req.resource, "resource")?;
        let mut records = lock(&self.0.records);
        let lease = records.leases.get_mut(&key(cx, &req.id)?).ok_or_else(|| no_such("lease", &req.id))?;
        lease.1.insert((resource.r#type, resource.id));
        Ok(())
    }

    async fn delete_resource(&self, cx: &Context, req: l::DeleteResourceRequest) -> Result<()> {
        let resource = required(req.resource, "resource")?;
        let mut records = lock(&self.0.records);
        let lease = records.leases.get_mut(&key(cx, &req.id)?).ok_or_else(|| no_such("lease", &req.id))?;
        lease.1.remove(&(resource.r#type, resource.id));
        Ok(())
    }

    async fn list_resources(&self, cx: &Context, req: l::ListResourcesRequest) -> Result<l::ListResourcesResponse> {
        let records = lock(&self.0.records);
        let (_, held) = records.leases.get(&key(cx, &req.id)?).ok_or_else(|| no_such("lease", &req.id))?;
        let resources = held.iter().map(|(kind, id)| l::Resource { id: id.clone(), r#type: kind.clone() }).collect();
        Ok(l::ListResourcesResponse { resources })
    }
}

#[async_trait]
impl Namespaces for FakeCore {
    async fn get(&self, _: &Context, req: n::GetNamespaceRequest) -> Result<n::GetNamespaceResponse> {
        let labels = lock(&self.0.records).namespaces.get(&req.name).cloned().unwrap_or_default();
        Ok(n::GetNamespaceResponse { namespace: Some(n::Namespace { name: req.name, labels }) })
    }

    async fn list(&self, _: &Context, _: n::ListNamespacesRequest) -> Result<n::ListNamespacesResponse> {
        let records = lock(&self.0.records);
        let mut all = records.namespaces.clone();
        for (ns, _) in records.containers.keys().chain(records.images.keys()) {
            all.entry(ns.clone()).or_default();
        }
        let namespaces = all.into_iter().map(|(name, labels)| n::Namespace { name, labels }).collect();
        Ok(n::ListNamespacesResponse { namespaces })
    }

    async fn create(&self, _: &Context, req: n::CreateNamespaceRequest) -> Result<n::CreateNamespaceResponse> {
        let namespace = required(req.namespace, "namespace")?;
        let mut records = lock(&self.0.records);
        if records.namespaces.contains_key(&namespace.name) {
            return Err(taken("namespace", &namespace.name));
        }
        records.namespaces.insert(namespace.name.clone(), namespace.labels.clone());
        Ok(n::CreateNamespaceResponse { namespace: Some(namespace) })
    }

    async fn update(&self, _: &Context, req: n::UpdateNamespaceRequest) -> Result<n::UpdateNamespaceResponse> {
        let namespace = required(req.namespace, "namespace")?;
        let paths = req.update_mask.unwrap_or_default().paths;
        let mut records = lock(&self.0.records);
        let name = namespace.name;
        let labels = records.namespaces.get_mut(&name).ok_or_else(|| no_such("namespace", &name))?;
        merge_labels(labels, namespace.labels, &paths);
        let labels = labels.clone();
        Ok(n::UpdateNamespaceResponse { namespace: Some(n::Namespace { name, labels }) })
    }

    async fn delete(&self, _: &Context, req: n::DeleteNamespaceRequest) -> Result<()> {
        let mut records = lock(&self.0.records);
        if records.containers.keys().chain(records.images.keys()).any(|(ns, _)| *ns == req.name) {
            return Err(Error::precondition(format!("namespace {:?} is not empty", req.name)));
        }
        records.namespaces.remove(&req.name).map(drop).ok_or_else(|| no_such("namespace", &req.name))
    }
}

#[async_trait]
impl Sandboxes for FakeCore {
    async fn create(&self, cx: &Context, req: s::StoreCreateRequest) -> Result<s::StoreCreateResponse> {
        let mut sandbox = required(req.sandbox, "sandbox")?;
        sandbox.created_at = now();
        sandbox.updated_at = sandbox.created_at;
        let key = key(cx, &sandbox.sandbox_id)?;
        let mut records = lock(&self.0.records);
        if records.sandboxes.contains_key(&key) {
            return Err(taken("sandbox", &sandbox.sandbox_id));
        }
        records.sandboxes.insert(key, sandbox.clone());
        Ok(s::StoreCreateResponse { sandbox: Some(sandbox) })
    }

    async fn update(&self, cx: &Context, req: s::StoreUpdateRequest) -> Result<s::StoreUpdateResponse> {
        let new = required(req.sandbox, "sandbox")?;
        let mut records = lock(&self.0.records);
        let old =
            records.sandboxes.get_mut(&key(cx, &new.sandbox_id)?).ok_or_else(|| no_such("sandbox", &new.sandbox_id))?;
        merge_labels(&mut old.labels, new.labels, &req.fields);
        old.updated_at = now();
        Ok(s::StoreUpdateResponse { sandbox: Some(old.clone()) })
    }

    async fn delete(&self, cx: &Context, req: s::StoreDeleteRequest) -> Result<s::StoreDeleteResponse> {
        let gone = lock(&self.0.records).sandboxes.remove(&key(cx, &req.sandbox_id)?);
        gone.ok_or_else(|| no_such("sandbox", &req.sandbox_id))?;
        Ok(s::StoreDeleteResponse {})
    }

    async fn list(&self, cx: &Context, _: s::StoreListRequest) -> Result<s::StoreListResponse> {
        let list = in_namespace(&lock(&self.0.records).sandboxes, cx.namespace()?).cloned().collect();
        Ok(s::StoreListResponse { list })
    }

    async fn get(&self, cx: &Context, req: s::StoreGetRequest) -> Result<s::StoreGetResponse> {
        let found = lock(&self.0.records).sandboxes.get(&key(cx, &req.sandbox_id)?).cloned();
        Ok(s::StoreGetResponse { sandbox: Some(found.ok_or_else(|| no_such("sandbox", &req.sandbox_id))?) })
    }
}
