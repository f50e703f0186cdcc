//! Attach: answers the address under which a client gets the streams of a container's own process.

use shared_proto::Result;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;

use crate::Cri;
use crate::streaming::{Allowed, check_streams};

impl Cri {
    pub async fn attach(&self, mut req: v1::AttachRequest) -> Result<v1::AttachResponse> {
        check_streams(&req.container_id, req.stdin, req.stdout, req.stderr, req.tty).context("attach")?;
        let container = self.0.running(&req.container_id).context("attach")?;
        req.container_id = container.record.id.clone();
        Ok(v1::AttachResponse { url: self.0.streams.url(Allowed::Attach(req))? })
    }
}
