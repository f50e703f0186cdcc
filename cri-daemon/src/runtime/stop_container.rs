//! StopContainer: the stop signal, some time, then SIGKILL.
//!
//! The signal is sent once, however often the kubelet asks. A caller that goes away while the container has time left
//! gives up waiting, and nothing is killed on its behalf.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shared_proto::Result;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;

use crate::container::State;
use crate::{Cri, signal};

impl Cri {
    pub async fn stop_container(&self, req: v1::StopContainerRequest) -> Result<v1::StopContainerResponse> {
        let Some(container) = self.0.containers.find(&req.container_id)? else {
            return Ok(v1::StopContainerResponse {});
        };
        let id = container.record.id.clone();
        let running = match container.life.settled().await {
            State::Running { .. } => true,
            State::Created | State::Starting | State::Exited(_) | State::Unknown { .. } => false,
        };
        if let (true, Ok(seconds @ 1..)) = (running, u64::try_from(req.timeout)) {
            if !container.asked_to_stop.swap(true, Ordering::AcqRel) {
                let number = signal::number(&container.record.stop_signal)?;
                let sent = self.0.signal(&id, "", number, false).await;
                if sent.is_err() {
                    container.asked_to_stop.store(false, Ordering::Release);
                }
                sent.with_context(|| format!("stop container {id}"))?;
            }
            if self.0.await_end(&container, Duration::from_secs(seconds)).await.is_ok() {
                return Ok(v1::StopContainerResponse {});
            }
        }
        let cri = self.clone();
        let work = async move { cri.0.kill(&container).await };
        self.detached(work).await.with_context(|| format!("stop container {id}"))?;
        Ok(v1::StopContainerResponse {})
    }
}
