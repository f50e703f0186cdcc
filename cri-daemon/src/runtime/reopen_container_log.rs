//! ReopenContainerLog: the kubelet has renamed the log of a running container, and a new one begins.

use shared_proto::cri::v1;
use shared_proto::{Error, Result};

use crate::Cri;
use crate::container::State;

impl Cri {
    pub async fn reopen_container_log(
        &self,
        req: v1::ReopenContainerLogRequest,
    ) -> Result<v1::ReopenContainerLogResponse> {
        let container = self.0.containers.get(&req.container_id)?;
        let id = &container.record.id;
        let state = container.life.state();
        let log = match state {
            State::Running { .. } => container.log(),
            State::Created | State::Starting | State::Exited(_) | State::Unknown { .. } => None,
        };
        let Some(log) = log else {
            let state = state.name();
            return Err(Error::precondition(format!("container {id} is {state}; only a running one has an open log")));
        };
        log.reopen().await.map_err(|e| Error::internal(format!("reopen the log of container {id}: {e}")))?;
        Ok(v1::ReopenContainerLogResponse {})
    }
}
