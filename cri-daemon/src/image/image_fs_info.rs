//! ImageFsInfo: where images are kept and what they take. The kubelet collects images by it, and refuses to start
//! without it, so the list is never empty.

use std::collections::BTreeSet;

use shared_proto::Result;
use shared_proto::containerd::introspection::PluginsRequest;
use shared_proto::cri::v1;

use super::Images;
use crate::{Cri, call};

impl Cri {
    pub async fn image_fs_info(&self, _: v1::ImageFsInfoRequest) -> Result<v1::ImageFsInfoResponse> {
        let images = &self.0.images;
        let snapshotters = images.snapshotters();
        let roots = futures::future::join_all(snapshotters.iter().map(|name| images.snapshotter_root(name)));
        let (roots, sums) = futures::join!(roots, images.usage());
        let mut image_filesystems = Vec::new();
        for (name, mountpoint) in snapshotters.iter().zip(roots) {
            let sum = sums.get(name).copied().unwrap_or_default();
            image_filesystems.push(v1::FilesystemUsage {
                timestamp: self.0.host.now(),
                fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint? }),
                used_bytes: Some(v1::UInt64Value { value: sum.bytes }),
                inodes_used: Some(v1::UInt64Value { value: sum.inodes }),
            });
        }
        let container_filesystems = image_filesystems.first().cloned().into_iter().collect();
        Ok(v1::ImageFsInfoResponse { image_filesystems, container_filesystems })
    }
}

impl Images {
    /// All that are configured: the default one first, as the kubelet reads no other.
    pub(super) fn snapshotters(&self) -> Vec<String> {
        let default = &self.0.config.snapshotter;
        let own: BTreeSet<&String> =
            self.0.handlers.values().filter(|own| !own.is_empty() && *own != default).collect();
        std::iter::once(default).chain(own).cloned().collect()
    }

    /// The folder of a snapshotter, as the core exports it; as containerd names it, if it doesn't.
    pub(crate) async fn snapshotter_root(&self, name: &str) -> Result<String> {
        let inner = &*self.0;
        let filters = vec![format!("type==io.containerd.snapshotter.v1,id=={name}")];
        let asked = inner.core.introspection.plugins(&inner.cx, PluginsRequest { filters });
        let plugins = call::within("list snapshotters", call::RECORD, asked).await?.plugins;
        let exported = plugins.into_iter().filter(|p| p.id == name).find_map(|mut p| p.exports.remove("root"));
        Ok(exported.unwrap_or_else(|| {
            inner.root.join(format!("io.containerd.snapshotter.v1.{name}")).to_string_lossy().into_owned()
        }))
    }
}
