//! What the child does, from its first instruction to the pause program.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fd::{AsFd, RawFd};
use rustix::fs::{Access, AtFlags, CWD, Mode};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, LinkNameSpaceType, Uid};
use shared_sys::fork;
use shared_sys::mount::{self, Mount};

use super::groups::Groups;
use super::{Ends, MAX_WORD, Plan, READY, root};

/// The exit code of a child that could not do it.
const FAILED: i32 = 127;
/// Standard input, output and errors come before.
const OTHERS: RawFd = 3;

/// Does all that `plan` says, and becomes its program; an exit code says that this went wrong. `gate` is the number of
/// the parent's end of the gate, which this process has as well.
pub fn run(plan: &Plan, groups: &Groups, bundle: &Path, mounts: &[Mount], ends: Ends, gate: RawFd) -> i32 {
    let Ends { mut word, gate: mut waiting, streams } = ends;
    let program = match prepare(plan, groups, bundle, mounts, gate) {
        Ok(program) => program,
        Err(e) => {
            let e = e.to_string();
            let _ = word.write_all(&e.as_bytes()[..e.len().min(MAX_WORD)]);
            return FAILED;
        }
    };
    let mut command = Command::new(program);
    command.arg0(&plan.process.args[0]).args(&plan.process.args[1..]).env_clear();
    command.envs(plan.process.env.iter().filter_map(|pair| pair.split_once('=')));
    if !plan.process.env.iter().any(|pair| pair.starts_with("HOME=")) {
        command.env("HOME", "/");
    }
    command.stdin(streams.stdin).stdout(Stdio::from(streams.stdout)).stderr(Stdio::from(streams.stderr));
    if word.write_all(READY).is_err() {
        return FAILED;
    }
    drop(word);
    // Without a byte the parent has gone, and nobody will ever want this process.
    if waiting.read_exact(&mut [0]).is_err() {
        return FAILED;
    }
    let _error = command.exec();
    FAILED
}

fn prepare(plan: &Plan, groups: &Groups, bundle: &Path, mounts: &[Mount], gate: RawFd) -> io::Result<PathBuf> {
    step("close descriptors", fork::close_on_exec_from(OTHERS))?;
    step("close the gate", fork::close(gate))?;
    rustix::process::umask(Mode::empty());
    step("start a session", rustix::process::setsid().map_err(Into::into))?;
    step("make a keyring", keyring(bundle))?;
    step("join the cgroups", groups.join())?;
    if let Some(score) = plan.process.oom_score_adj {
        step("set the OOM score", fs::write("/proc/self/oom_score_adj", score.to_string()))?;
    }
    if let Some(network) = &plan.network {
        step("join the network namespace", join(network))?;
    }
    step("make mounts private", root::keep_to_ourselves())?;
    let rootfs = bundle.join("rootfs");
    step("mount the root filesystem", mount::mount_all(mounts, &rootfs))?;
    step("mount", root::mount_below(&rootfs, &plan.mounts))?;
    step("enter the root filesystem", root::enter(&rootfs))?;
    step("make devices", root::make_devices())?;
    if let Some(name) = &plan.hostname {
        step("set the host name", rustix::system::sethostname(name.as_bytes()).map_err(Into::into))?;
    }
    for (key, value) in &plan.sysctls {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        step(key, fs::write(path, value))?;
    }
    for path in &plan.read_only {
        step("make a path read-only", root::make_read_only(path))?;
    }
    for path in &plan.masked {
        step("hide a path", root::hide(path))?;
    }
    if plan.read_only_root {
        step("make the root read-only", mount::read_only(Path::new("/")))?;
    }
    step("drop privileges", drop_privileges(plan))?;
    step("enter the working directory", rustix::process::chdir(&plan.process.cwd).map_err(Into::into))?;
    step("find the program", find(plan))
}

fn step<T>(name: &str, done: io::Result<T>) -> io::Result<T> {
    done.map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))
}

/// One of its own, so that it has no part in the shim's.
fn keyring(bundle: &Path) -> io::Result<()> {
    let id = bundle.file_name().unwrap_or_default().to_string_lossy();
    match fork::new_session_keyring(&format!("_ses.{id}")) {
        // A kernel without keyrings.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOSYS.raw_os_error()) => Ok(()),
        done => done,
    }
}

fn join(network: &Path) -> io::Result<()> {
    let file = File::open(network)?;
    Ok(rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The user, the capabilities, and that no program can give more.
fn drop_privileges(plan: &Plan) -> io::Result<()> {
    let (user, wanted) = (&plan.process.user, &plan.capabilities);
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if wanted.bounding.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::thread::set_keep_capabilities(true)?;
    let groups: Vec<Gid> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_keep_capabilities(false)?;
    let sets =
        CapabilitySets { effective: wanted.effective, permitted: wanted.permitted, inheritable: wanted.inheritable };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::clear_ambient_capability_set()?;
    for capability in wanted.ambient.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    if plan.process.no_new_privileges {
        rustix::thread::set_no_new_privs(true)?;
    }
    Ok(())
}

/// The program, as this user finds it.
fn find(plan: &Plan) -> io::Result<PathBuf> {
    let name = &plan.process.args[0];
    let usable = |path: &Path| -> io::Result<()> {
        rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
        if fs::metadata(path)?.is_file() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    };
    if name.contains('/') {
        return usable(Path::new(name)).map(|()| name.into());
    }
    let path = plan.process.env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default();
    let mut found = path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name));
    found.find(|path| usable(path).is_ok()).ok_or_else(|| io::ErrorKind::NotFound.into())
}
