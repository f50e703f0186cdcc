//! `start`: leaves a server behind and prints where it listens, or finds the pod's server.
//!
//! Socket names are those of containerd's own shims: a hash of the core's socket, the namespace and the pod. So a
//! server is found without a record of it. With `MAX_SHIM_VERSION` of 3 and more the answer is JSON, else the address
//! alone; either way it is written to the bundle as well, for a core that dies before it has read it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use prost::Message;
use prost_types::Any;
use rustix::fd::{AsFd, OwnedFd};
use sha2::{Digest, Sha256};
use shared_sys::cgroup::Hierarchies;
use shared_sys::fifo;
use shared_sys::files::{Durability, write_atomic};
use shared_sys::program::{self, Program};

use super::SOCKETS;
use crate::args::Args;
use crate::error::Error;
use crate::log;
use crate::options::Options;
use crate::spec;

/// More options are not read, bytes.
const MAX_OPTIONS: u64 = 1 << 20;

pub fn start(args: &Args) -> Result<(), Error> {
    let bundle = std::env::current_dir().map_err(Error::io("find", "the working directory"))?;
    let options = read_options(&args.namespace)?;
    let group = spec::read(&bundle)?.group.unwrap_or_else(|| args.id.clone());
    let socket = socket(args, &group);
    if group != args.id && UnixStream::connect(&socket).is_ok() {
        return tell(&bundle, &socket);
    }
    let listener = match listen(&socket)? {
        Some(listener) => listener,
        None => return tell(&bundle, &socket),
    };
    match serve(args, &bundle, listener, &options) {
        Ok(()) => tell(&bundle, &socket),
        Err(e) => {
            let _ = fs::remove_file(&socket);
            Err(e)
        }
    }
}

/// What the core says of the engine, on standard input.
fn read_options(namespace: &str) -> Result<Options, Error> {
    let mut bytes = Vec::new();
    let input = io::stdin().lock().take(MAX_OPTIONS).read_to_end(&mut bytes);
    input.map_err(Error::io("read", "the options on standard input"))?;
    let given = (!bytes.is_empty()).then(|| Any::decode(bytes.as_slice())).transpose();
    let given = given.map_err(|e| Error::Invalid(format!("malformed options on standard input: {e}")))?;
    Options::new(given.as_ref(), namespace)
}

fn socket(args: &Args, group: &str) -> PathBuf {
    let owner = Path::new(&args.address).join(&args.namespace).join(group);
    let hash = Sha256::digest(owner.as_os_str().as_encoded_bytes());
    Path::new(SOCKETS).join(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// `None`: somebody listens there already.
fn listen(socket: &Path) -> Result<Option<UnixListener>, Error> {
    fs::create_dir_all(SOCKETS).map_err(Error::io("make", SOCKETS))?;
    let private = fs::Permissions::from_mode(0o711);
    fs::set_permissions(SOCKETS, private).map_err(Error::io("set the mode of", SOCKETS))?;
    let listener = match UnixListener::bind(socket) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(socket).is_ok() {
                return Ok(None);
            }
            fs::remove_file(socket).map_err(Error::io("remove", socket))?;
            UnixListener::bind(socket)
        }
        bound => bound,
    };
    let listener = listener.map_err(Error::io("listen on", socket))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(Error::io("set the mode of", socket))?;
    Ok(Some(listener))
}

/// Starts the server. It has nothing of ours but the socket, the log, and the copy of the engine as standard output.
fn serve(args: &Args, bundle: &Path, listener: UnixListener, options: &Options) -> Result<(), Error> {
    let log = bundle.join("log");
    let stderr = match fifo::open_both(&log) {
        Ok(log) => Stdio::from(OwnedFd::from(log)),
        // A core that wants no log.
        Err(_) => Stdio::null(),
    };
    // The file may be replaced or removed at any time; what runs is what was started.
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, std::env::args_os().next().unwrap_or_default());
    command.current_dir(bundle);
    command.args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address]);
    if args.debug {
        command.arg("-debug");
    }
    let engine = std::env::var(program::ENGINE).ok().and_then(|text| Program::open(&text).ok());
    let stdout = match engine.and_then(|engine| engine.as_fd().try_clone_to_owned().ok()) {
        Some(engine) => engine.into(),
        None => Stdio::null(),
    };
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(stdout).stderr(stderr);
    let child = command.spawn().map_err(|source| Error::Spawn { binary: "the server".into(), source })?;
    place(child.id(), options);
    Ok(())
}

/// Puts the server where the options want it, and makes it less precious than the core.
fn place(pid: u32, options: &Options) {
    let adjust = format!("/proc/{pid}/oom_score_adj");
    let score = fs::read_to_string(&adjust).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score
        && let Err(e) = fs::write(&adjust, (score + 1).min(1000).to_string())
    {
        log::warn(format_args!("{adjust}: {e}"));
    }
    if options.shim_cgroup.is_empty() {
        return;
    }
    for root in Hierarchies::read().unwrap_or_default().mount_points() {
        let folder = root.join(options.shim_cgroup.trim_start_matches('/'));
        let moved = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("cgroup.procs"), pid.to_string()));
        if let Err(e) = moved {
            log::warn(format_args!("the shim's cgroup {}: {e}", folder.display()));
        }
    }
}

/// Says where the server listens.
fn tell(bundle: &Path, socket: &Path) -> Result<(), Error> {
    let address = format!("unix://{}", socket.display());
    let path = bundle.join("address");
    write_atomic(&path, address.as_bytes(), Durability::Rebuildable).map_err(Error::io("write", path))?;
    let newest = std::env::var("MAX_SHIM_VERSION").ok().and_then(|text| text.parse::<u32>().ok());
    let answer = match newest {
        Some(3..) => format!(r#"{{"version":3,"address":"{address}","protocol":"ttrpc"}}"#),
        Some(_) | None => address,
    };
    io::stdout().write_all(answer.as_bytes()).map_err(Error::io("write", "standard output"))
}
