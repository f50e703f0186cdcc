//! ContainerStatus: from memory; only the verbose answer asks the core.

use serde_json::json;
use shared_proto::Result;
use shared_proto::cri::v1;

use super::{info, spec_json};
use crate::container::{Container, State};
use crate::{Cri, Inner, signal};

impl Cri {
    pub async fn container_status(&self, req: v1::ContainerStatusRequest) -> Result<v1::ContainerStatusResponse> {
        let container = self.0.containers.get(&req.container_id)?;
        let info = match req.verbose {
            true => info(&self.0.describe_container(&container).await?, &container.timeline.shown(|_| true)),
            false => Default::default(),
        };
        Ok(v1::ContainerStatusResponse { status: Some(self.0.container_status_of(&container)), info })
    }
}

impl Inner {
    pub(crate) fn container_status_of(&self, container: &Container) -> v1::ContainerStatus {
        let (record, config) = (&container.record, &container.record.config);
        let state = container.life.state();
        let mut status = v1::ContainerStatus {
            id: record.id.clone(),
            metadata: config.metadata.clone(),
            state: state.cri().into(),
            created_at: record.created_at,
            image: Some(v1::ImageSpec {
                image: or(&record.image_name, &record.image_ref),
                user_specified_image: config.image.as_ref().map(|i| i.user_specified_image.clone()).unwrap_or_default(),
                ..Default::default()
            }),
            image_ref: or(&record.repo_digest, &record.image_ref),
            image_id: record.image_ref.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: record.log_path.clone(),
            resources: container.resources().map(|linux| v1::ContainerResources { linux: Some(linux), windows: None }),
            user: record.user.as_ref().map(|user| v1::ContainerUser {
                linux: Some(v1::LinuxContainerUser {
                    uid: user.uid.into(),
                    gid: user.gid.into(),
                    supplemental_groups: user.additional_gids.iter().map(|gid| i64::from(*gid)).collect(),
                }),
            }),
            stop_signal: signal::to_cri(&record.stop_signal).into(),
            ..Default::default()
        };
        match state {
            State::Created | State::Starting => {}
            State::Running { started_at, .. } => status.started_at = started_at,
            State::Exited(exit) => {
                (status.started_at, status.finished_at) = (exit.started_at, exit.finished_at);
                status.exit_code = exit.code;
                (status.reason, status.message) = (exit.reason, exit.message);
            }
            State::Unknown { reason, .. } => (status.reason, status.message) = ("Unknown".into(), reason),
        }
        status
    }

    async fn describe_container(&self, container: &Container) -> Result<serde_json::Value> {
        let record = &container.record;
        let stored = self.record(&record.id).await?;
        let state = container.life.state();
        let pid = match state {
            State::Running { pid, .. } => pid,
            State::Created | State::Starting | State::Exited(_) | State::Unknown { .. } => 0,
        };
        Ok(json!({
            "sandboxID": record.sandbox_id,
            "pid": pid,
            "state": state.name(),
            "snapshotKey": stored.snapshot_key,
            "snapshotter": stored.snapshotter,
            "runtimeType": stored.runtime.as_ref().map(|runtime| runtime.name.as_str()),
            "config": record.config,
            "runtimeSpec": spec_json(&stored),
        }))
    }
}

fn or(text: &str, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text.to_owned() }
}
