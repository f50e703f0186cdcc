//! Calls on container records and their snapshots.

use std::collections::BTreeMap;

use prost_types::{Any, FieldMask};
use shared_config::Runtime;
use shared_proto::containerd::{containers as c, runc, snapshots as s, types};
use shared_proto::{Error, Result, any};

use super::{CLEANUP, PATIENCE, PROCESS, RECORD, patient, within};
use crate::Inner;
use crate::image::ResolvedImage;

/// Label that tells sandboxes from containers.
pub const KIND: &str = "io.cri-containerd.kind";

/// The two values of [`KIND`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sandbox,
    Container,
}

impl Kind {
    pub fn label(self) -> &'static str {
        match self {
            Kind::Sandbox => "sandbox",
            Kind::Container => "container",
        }
    }
}

/// What is known of a container before anything of it exists.
pub struct NewRecord<'a> {
    pub id: &'a str,
    pub kind: Kind,
    /// Labels of the CRI object; [`KIND`] is added.
    pub labels: &'a BTreeMap<String, String>,
    pub image: &'a str,
    pub runtime: &'a Runtime,
    pub snapshotter: &'a str,
    /// Id of the sandbox; empty for a sandbox itself.
    pub sandbox: &'a str,
    /// `None`: it follows by [`Inner::complete_record`].
    pub spec: Option<Vec<u8>>,
    pub extension: (&'static str, Any),
}

impl Inner {
    /// Writes the record that everything else of a container can be cleaned from.
    pub async fn create_record(&self, new: NewRecord<'_>) -> Result<()> {
        let mut labels = new.labels.clone();
        labels.insert(KIND.into(), new.kind.label().into());
        let (extension, value) = new.extension;
        let container = c::Container {
            id: new.id.to_owned(),
            labels,
            image: new.image.to_owned(),
            runtime: Some(runtime(new.runtime)),
            spec: new.spec.map(|spec| any::raw(any::SPEC, spec)),
            snapshotter: new.snapshotter.to_owned(),
            snapshot_key: new.id.to_owned(),
            extensions: BTreeMap::from([(extension.to_owned(), value)]),
            sandbox: new.sandbox.to_owned(),
            ..Default::default()
        };
        let request = c::CreateContainerRequest { container: Some(container) };
        let doing = format!("record {} {}", new.kind.label(), new.id);
        let mut tries = 0;
        let made = patient(doing, RECORD, PATIENCE, || {
            tries += 1;
            self.core.containers.create(&self.cx, request.clone())
        });
        match made.await {
            Ok(_) => Ok(()),
            // The id is new and random: an earlier try, whose answer was lost, has made it.
            Err(e) if e.is_exists() && tries > 1 => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Adds the spec, once it is known, or replaces the extension, or both.
    pub async fn complete_record(
        &self,
        id: &str,
        spec: Option<Vec<u8>>,
        extension: Option<(&'static str, Any)>,
    ) -> Result<()> {
        let mut container = c::Container { id: id.to_owned(), ..Default::default() };
        let mut paths = Vec::new();
        if let Some(spec) = spec {
            container.spec = Some(any::raw(any::SPEC, spec));
            paths.push("spec".to_owned());
        }
        if let Some((key, value)) = extension {
            paths.push(format!("extensions.{key}"));
            container.extensions.insert(key.to_owned(), value);
        }
        let request = c::UpdateContainerRequest { container: Some(container), update_mask: Some(FieldMask { paths }) };
        let doing = format!("update the record of {id}");
        patient(doing, RECORD, PATIENCE, || self.core.containers.update(&self.cx, request.clone())).await.map(drop)
    }

    pub async fn record(&self, id: &str) -> Result<c::Container> {
        let request = c::GetContainerRequest { id: id.to_owned() };
        let doing = format!("get the record of {id}");
        let answer = patient(doing, RECORD, PATIENCE, || self.core.containers.get(&self.cx, request.clone())).await?;
        answer.container.ok_or_else(|| Error::internal(format!("get the record of {id}: an empty answer")))
    }

    /// Deletes a record. One that is not there is done.
    pub async fn delete_record(&self, id: &str) -> Result<()> {
        let request = c::DeleteContainerRequest { id: id.to_owned() };
        let doing = format!("delete the record of {id}");
        gone(patient(doing, RECORD, CLEANUP, || self.core.containers.delete(&self.cx, request.clone())).await)
    }

    /// Makes the root file system of a container on top of its image, which is unpacked first where it is not yet.
    pub async fn prepare(&self, snapshotter: &str, key: &str, image: &ResolvedImage) -> Result<Vec<types::Mount>> {
        match self.prepare_on(snapshotter, key, &image.chain_id).await {
            Err(e) if e.is_not_found() && !image.chain_id.is_empty() => {
                self.images.unpack(image, snapshotter).await?;
                self.prepare_on(snapshotter, key, &image.chain_id).await
            }
            prepared => prepared,
        }
    }

    async fn prepare_on(&self, snapshotter: &str, key: &str, parent: &str) -> Result<Vec<types::Mount>> {
        let request = s::PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let doing = format!("prepare the root file system of {key}");
        Ok(within(doing, PROCESS, self.core.snapshots.prepare(&self.cx, request)).await?.mounts)
    }

    /// The mounts of a root file system that was prepared earlier.
    pub async fn mounts(&self, snapshotter: &str, key: &str) -> Result<Vec<types::Mount>> {
        let request = s::MountsRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let doing = format!("get the mounts of {key}");
        Ok(patient(doing, RECORD, PATIENCE, || self.core.snapshots.mounts(&self.cx, request.clone())).await?.mounts)
    }

    /// Removes a root file system. One that is not there is done.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let request = s::RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let doing = format!("remove the root file system of {key}");
        gone(patient(doing, PROCESS, CLEANUP, || self.core.snapshots.remove(&self.cx, request.clone())).await)
    }
}

fn gone(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(e) if e.is_not_found() => Ok(()),
        outcome => outcome,
    }
}

/// Name and options of a runtime, as the shim gets them.
fn runtime(runtime: &Runtime) -> c::container::Runtime {
    let options = runc::Options {
        no_pivot_root: runtime.no_pivot_root,
        no_new_keyring: runtime.no_new_keyring,
        shim_cgroup: runtime.shim_cgroup.clone(),
        io_uid: runtime.io_uid,
        io_gid: runtime.io_gid,
        binary_name: runtime.binary_name.clone(),
        root: runtime.root.clone(),
        systemd_cgroup: runtime.systemd_cgroup,
        ..Default::default()
    };
    c::container::Runtime { name: runtime.runtime_type.clone(), options: Some(any::pack(&options)) }
}
