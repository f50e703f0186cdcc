//! Exec: answers the address under which a client gets a command's streams. The command begins when it comes.

use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result};

use crate::Cri;
use crate::streaming::{Allowed, check_streams};

impl Cri {
    pub async fn exec(&self, mut req: v1::ExecRequest) -> Result<v1::ExecResponse> {
        check_streams(&req.container_id, req.stdin, req.stdout, req.stderr, req.tty).context("exec")?;
        let container = self.0.running(&req.container_id).context("exec")?;
        if req.cmd.is_empty() {
            return Err(Error::invalid(format!("cmd: an exec in container {} needs a command", container.record.id)));
        }
        req.container_id = container.record.id.clone();
        Ok(v1::ExecResponse { url: self.0.streams.url(Allowed::Exec(req))? })
    }
}
