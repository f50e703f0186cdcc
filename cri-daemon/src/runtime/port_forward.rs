//! PortForward: answers the address under which a client reaches ports inside a pod.

use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result};

use crate::Cri;
use crate::streaming::Allowed;

impl Cri {
    pub async fn port_forward(&self, mut req: v1::PortForwardRequest) -> Result<v1::PortForwardResponse> {
        if req.pod_sandbox_id.is_empty() {
            return Err(Error::invalid("pod_sandbox_id: a port-forward needs it"));
        }
        for port in &req.port {
            if !(1..=i32::from(u16::MAX)).contains(port) {
                return Err(Error::invalid(format!("port: {port} is not between 1 and 65535")));
            }
        }
        let sandbox = self.0.sandboxes.get(&req.pod_sandbox_id).context("port-forward")?;
        let _admitted = sandbox.life.admit().context("port-forward")?;
        req.pod_sandbox_id = sandbox.record().id.clone();
        Ok(v1::PortForwardResponse { url: self.0.streams.url(Allowed::PortForward(req))? })
    }
}
