//! Scripts for records without behaviour.

use shared_proto::Context;
use shared_proto::containerd::{containers as c, images as i, leases as l, namespaces as n, sandbox as s, types};

use futures::FutureExt as _;

use super::{ID, Script, Step, drain};
use crate::{BLOB, NAMESPACE, container};

pub(super) fn containers() -> Script {
    vec![
        one!(containers.create, c::CreateContainerRequest { container: Some(container(ID)) }),
        one!(containers.get, c::GetContainerRequest { id: ID.into() }),
        one!(containers.list, c::ListContainersRequest::default()),
        all!(containers.list_stream, c::ListContainersRequest::default()),
        one!(containers.update, c::UpdateContainerRequest { container: Some(container(ID)), ..Default::default() }),
        one!(containers.delete, c::DeleteContainerRequest { id: ID.into() }),
    ]
}

fn image() -> i::Image {
    let labels = [("io.cri-containerd.image".to_owned(), "managed".to_owned())].into();
    i::Image { name: "docker.io/library/made:1".into(), labels, ..Default::default() }
}

pub(super) fn images() -> Script {
    vec![
        one!(images.create, i::CreateImageRequest { image: Some(image()), ..Default::default() }),
        one!(images.get, i::GetImageRequest { name: image().name }),
        one!(images.list, i::ListImagesRequest::default()),
        one!(images.update, i::UpdateImageRequest { image: Some(image()), ..Default::default() }),
        one!(images.delete, i::DeleteImageRequest { name: image().name, ..Default::default() }),
    ]
}

fn resource() -> Option<l::Resource> {
    Some(l::Resource { id: BLOB.into(), r#type: "content".into() })
}

pub(super) fn leases() -> Script {
    vec![
        one!(leases.create, l::CreateRequest { id: ID.into(), ..Default::default() }),
        one!(leases.add_resource, l::AddResourceRequest { id: ID.into(), resource: resource() }),
        one!(leases.list_resources, l::ListResourcesRequest { id: ID.into() }),
        one!(leases.list, l::ListRequest::default()),
        one!(leases.delete_resource, l::DeleteResourceRequest { id: ID.into(), resource: resource() }),
        one!(leases.delete, l::DeleteRequest { id: ID.into(), ..Default::default() }),
    ]
}

fn namespace() -> Option<n::Namespace> {
    Some(n::Namespace { name: ID.into(), labels: [("a".to_owned(), "b".to_owned())].into() })
}

pub(super) fn namespaces() -> Script {
    vec![
        one!(namespaces.create, n::CreateNamespaceRequest { namespace: namespace() }),
        one!(namespaces.get, n::GetNamespaceRequest { name: ID.into() }),
        one!(namespaces.list, n::ListNamespacesRequest::default()),
        one!(namespaces.update, n::UpdateNamespaceRequest { namespace: namespace(), ..Default::default() }),
        one!(namespaces.delete, n::DeleteNamespaceRequest { name: ID.into() }),
    ]
}

fn sandbox() -> Option<types::Sandbox> {
    Some(types::Sandbox { sandbox_id: ID.into(), ..Default::default() })
}

pub(super) fn sandboxes() -> Script {
    vec![
        one!(sandboxes.create, s::StoreCreateRequest { sandbox: sandbox() }),
        one!(sandboxes.get, s::StoreGetRequest { sandbox_id: ID.into() }),
        one!(sandboxes.list, s::StoreListRequest::default()),
        one!(sandboxes.update, s::StoreUpdateRequest { sandbox: sandbox(), ..Default::default() }),
        one!(sandboxes.delete, s::StoreDeleteRequest { sandbox_id: ID.into() }),
    ]
}
