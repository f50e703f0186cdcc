//! Which system calls a container may make.

use std::collections::BTreeSet;
use std::fs;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};
use shared_config::CriRuntime;

use super::SpecError;
use super::lsm::Wanted;
use super::seccomp_default as data;
use crate::host::HostFacts;

const FIELD: &str = "linux.security_context.seccomp";

/// The filter of a process; `None`: unconfined. Privileged containers are never confined.
pub(super) fn profile(
    wanted: Wanted,
    privileged: bool,
    capabilities: &Capabilities,
    settings: &CriRuntime,
    host: &HostFacts,
) -> Result<Option<LinuxSeccomp>, SpecError> {
    if privileged {
        return Ok(None);
    }
    let wanted = match wanted {
        Wanted::Unset => Wanted::old(&settings.unset_seccomp_profile, "unset_seccomp_profile")?,
        named => named,
    };
    match wanted {
        Wanted::Unset | Wanted::Unconfined => Ok(None),
        Wanted::RuntimeDefault | Wanted::Localhost(_) if !host.seccomp => {
            Err(SpecError::invalid(FIELD, "a profile is asked for, but this kernel has no seccomp"))
        }
        Wanted::RuntimeDefault => Ok(Some(default(capabilities))),
        Wanted::Localhost(path) => local(&path).map(Some),
    }
}

/// A profile from a file on this machine.
fn local(path: &str) -> Result<LinuxSeccomp, SpecError> {
    let field = || format!("{FIELD}.localhost_ref");
    let text = fs::read(path).map_err(|e| SpecError::invalid(field(), format!("read {path}: {e}")))?;
    serde_json::from_slice(&text).map_err(|e| SpecError::invalid(field(), format!("{path} is no seccomp profile: {e}")))
}

/// The default profile: everything is refused that is not listed, and capabilities extend the list.
fn default(capabilities: &Capabilities) -> LinuxSeccomp {
    let mut allowed: BTreeSet<&str> = words(data::ALWAYS).chain(words(data::NATIVE)).collect();
    for (capability, names) in data::WITH_CAPABILITY {
        if capabilities.contains(&capability) {
            allowed.extend(words(names));
        }
    }
    let mut syscalls = vec![allow(allowed.into_iter().map(String::from).collect())];
    syscalls.push(allow_if("socket", argument(0, data::AF_VSOCK, None, LinuxSeccompOperator::ScmpCmpNe)));
    for domain in data::PERSONALITIES {
        syscalls.push(allow_if("personality", argument(0, domain, None, LinuxSeccompOperator::ScmpCmpEq)));
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        // The flags are the second argument on s390.
        let index = usize::from(cfg!(target_arch = "s390x"));
        let flags = argument(index, data::NEW_NAMESPACES, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq);
        syscalls.push(allow_if("clone", flags));
        // The flags of clone3 are in memory, out of a filter's reach. "No such call" makes libraries use clone.
        let mut clone3 = LinuxSyscall::default();
        clone3
            .set_names(vec!["clone3".into()])
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(libc::ENOSYS as u32));
        syscalls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(syscalls));
    profile
}

fn words(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split_whitespace()
}

fn allow(names: Vec<String>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names).set_action(LinuxSeccompAction::ScmpActAllow);
    rule
}

fn allow_if(name: &str, argument: LinuxSeccompArg) -> LinuxSyscall {
    let mut rule = allow(vec![name.to_owned()]);
    rule.set_args(Some(vec![argument]));
    rule
}

fn argument(index: usize, value: u64, two: Option<u64>, operator: LinuxSeccompOperator) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).value(value).op(operator);
    let builder = match two {
        Some(two) => builder.value_two(two),
        None => builder,
    };
    builder.build().expect("all fields have defaults")
}

/// The architecture that this is built for, and those whose programs it runs as well.
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        "powerpc64" => vec![Arch::ScmpArchPpc64le],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        // An empty list is the native one.
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{FakeHost, Host};
    use crate::spec::capabilities;

    fn allowed(profile: &LinuxSeccomp, name: &str) -> bool {
        let rules = profile.syscalls().as_ref().unwrap().iter();
        let mut of_name = rules.filter(|rule| rule.names().iter().any(|n| n == name));
        of_name.any(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow && rule.args().is_none())
    }

    #[test]
    fn capabilities_extend_the_list() {
        let plain = default(&capabilities::default().all);
        assert!(allowed(&plain, "read") && allowed(&plain, "chroot") && allowed(&plain, "arch_prctl"));
        assert!(!allowed(&plain, "mount") && !allowed(&plain, "clone") && !allowed(&plain, "io_uring_setup"));
        let mut more = capabilities::default().all;
        more.insert(Capability::SysAdmin);
        let admin = default(&more);
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone3"));
    }

    #[test]
    fn the_word_of_the_request_decides() {
        let host = FakeHost::default().facts().clone();
        let set = |wanted, privileged, unset: &str, host: &HostFacts| {
            let settings = CriRuntime { unset_seccomp_profile: unset.into(), ..Default::default() };
            profile(wanted, privileged, &capabilities::default().all, &settings, host).map(|p| p.is_some())
        };
        assert!(!set(Wanted::Unset, false, "", &host).unwrap());
        assert!(set(Wanted::Unset, false, "runtime/default", &host).unwrap());
        assert!(!set(Wanted::Unconfined, false, "runtime/default", &host).unwrap());
        assert!(set(Wanted::RuntimeDefault, false, "", &host).unwrap());
        assert!(!set(Wanted::RuntimeDefault, true, "", &host).unwrap());
        let without = HostFacts { seccomp: false, ..host.clone() };
        assert!(set(Wanted::RuntimeDefault, false, "", &without).is_err());
        assert!(!set(Wanted::Unset, false, "", &without).unwrap());

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        let local = || set(Wanted::Localhost(file.display().to_string()), false, "", &host);
        assert!(local().unwrap_err().to_string().contains("p.json"));
        fs::write(
            &file,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#,
        )
        .unwrap();
        assert!(local().unwrap());
        fs::write(&file, "{").unwrap();
        assert!(local().unwrap_err().to_string().starts_with("linux.security_context.seccomp.localhost_ref"));
    }
}
