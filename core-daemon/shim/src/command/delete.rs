//! `delete`: the server is gone; what it kept is killed and taken away.
//!
//! The exit that is printed is the one that the server has kept, if it saw one; else 137, for what still ran was killed
//! just now.

use std::io::Write;
use std::time::SystemTime;

use prost::Message;
use shared_proto::ttrpc::task::DeleteResponse;
use shared_sys::mount;

use crate::args::Args;
use crate::engine;
use crate::error::Error;
use crate::exits::Exit;
use crate::options::Options;
use crate::pause;

/// 128 and SIGKILL.
const KILLED: u32 = 137;

pub fn delete(args: &Args) -> Result<(), Error> {
    let bundle = if args.bundle.as_os_str().is_empty() {
        std::env::current_dir().map_err(Error::io("find", "the working directory"))?
    } else {
        args.bundle.clone()
    };
    let options = Options::load(&bundle, &args.namespace);
    // What can't be done must not keep the rest from being done; the core sees to cgroups and the bundle.
    let killed = if pause::made(&bundle) {
        pause::kill(&bundle)
    } else {
        engine::run_alone(&options, ["delete", "--force", args.id.as_str()]).map(drop)
    };
    if let Err(e) = killed {
        eprintln!("{e}");
    }
    let rootfs = bundle.join("rootfs");
    if let Err(e) = mount::unmount(&rootfs) {
        eprintln!("{e}");
    }
    let init = std::fs::read_to_string(bundle.join("init.pid")).ok().and_then(|pid| pid.trim().parse().ok());
    let assumed = || Exit { pid: init.unwrap_or(0), status: KILLED, at: SystemTime::now() };
    let exit = Exit::load(&bundle).unwrap_or_else(assumed);
    let answer =
        DeleteResponse { pid: exit.pid, exit_status: exit.status, exited_at: Some(exit.timestamp()) }.encode_to_vec();
    std::io::stdout().write_all(&answer).map_err(Error::io("write", "standard output"))
}
