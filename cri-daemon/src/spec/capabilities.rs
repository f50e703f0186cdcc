//! Which capabilities a process may use.
//!
//! Inheritable and ambient sets hold what `add_ambient_capabilities` names and nothing else, so that a process that is
//! not root really loses what root would have, unless it was given it by name.

use std::collections::HashSet;
use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use shared_proto::cri::v1;

use super::SpecError;

/// What Docker gave containers from the beginning, and everybody after it.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// In the order of the kernel's numbers.
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// What a process is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    /// All that it may ever use; what root starts with.
    pub all: Capabilities,
    /// The part that stays through a change of user and through an exec. Never more than `all`.
    pub ambient: Capabilities,
}

/// The default set.
pub(super) fn default() -> Granted {
    Granted { all: DEFAULT.into(), ambient: Capabilities::new() }
}

/// `available`: the mask of capabilities that this daemon can hand on; `from`: those that nobody has to ask for. `ALL` in
/// a list goes before single names.
pub(super) fn of(
    request: Option<&v1::Capability>,
    privileged: bool,
    available: u64,
    from: Capabilities,
) -> Result<Granted, SpecError> {
    let everything = || ALL.iter().enumerate().filter(|(n, _)| available & (1 << n) != 0).map(|(_, c)| *c).collect();
    let mut set = from;
    let mut ambient = Capabilities::new();
    if let Some(request) = request {
        let add = names("add_capabilities", &request.add_capabilities)?;
        let drop = names("drop_capabilities", &request.drop_capabilities)?;
        if add.all {
            set = everything();
        }
        if drop.all {
            set.clear();
        }
        set.extend(add.single);
        set.retain(|capability| !drop.single.contains(capability));
        let kept = names("add_ambient_capabilities", &request.add_ambient_capabilities)?;
        if kept.all {
            ambient = set.clone();
        }
        if let Some(both) = kept.single.iter().find(|capability| drop.single.contains(capability)) {
            let problem = format!("{both} is in drop_capabilities as well");
            return Err(SpecError::invalid(field("add_ambient_capabilities"), problem));
        }
        set.extend(&kept.single);
        ambient.extend(kept.single);
    }
    if privileged {
        set = everything();
    }
    Ok(Granted { all: set, ambient })
}

/// The sets of a process. The kernel keeps in the ambient set only what is permitted and inheritable too.
pub(super) fn sets(granted: Granted) -> LinuxCapabilities {
    let some = |set: Capabilities| (!set.is_empty()).then_some(set);
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(granted.all.clone()))
        .set_effective(Some(granted.all.clone()))
        .set_permitted(Some(granted.all))
        .set_inheritable(some(granted.ambient.clone()))
        .set_ambient(some(granted.ambient));
    sets
}

fn field(list: &str) -> String {
    format!("linux.security_context.capabilities.{list}")
}

struct Names {
    all: bool,
    single: HashSet<Capability>,
}

/// Names with or without `CAP_`, in any case.
fn names(list: &str, names: &[String]) -> Result<Names, SpecError> {
    let mut out = Names { all: false, single: HashSet::new() };
    for (index, name) in names.iter().enumerate() {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            out.all = true;
            continue;
        }
        let capability = Capability::from_str(short).map_err(|_| {
            SpecError::invalid(format!("{}[{index}]", field(list)), format!("there is no capability {name:?}"))
        })?;
        out.single.insert(capability);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = (1 << 41) - 1;

    fn request(add: &[&str], drop: &[&str]) -> Result<Capabilities, SpecError> {
        let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        let request =
            v1::Capability { add_capabilities: strings(add), drop_capabilities: strings(drop), ..Default::default() };
        of(Some(&request), false, FULL, DEFAULT.into()).map(|granted| granted.all)
    }

    #[test]
    fn lists_are_applied_all_first() {
        assert_eq!(of(None, false, FULL, DEFAULT.into()).unwrap().all.len(), 14);
        assert_eq!(request(&[], &["ALL"]).unwrap(), HashSet::new());
        assert_eq!(request(&["NET_ADMIN"], &["all"]).unwrap(), HashSet::from([Capability::NetAdmin]));
        let most = request(&["ALL"], &["CHOWN"]).unwrap();
        assert!(most.len() == 40 && !most.contains(&Capability::Chown));
        assert!(request(&["cap_sys_time"], &["KILL"]).unwrap().contains(&Capability::SysTime));
        let wrong = request(&["KILL", "FLY"], &[]).unwrap_err().to_string();
        assert_eq!(wrong, r#"linux.security_context.capabilities.add_capabilities[1]: there is no capability "FLY""#);
    }

    #[test]
    fn privileged_is_all_that_this_daemon_has() {
        let without = FULL & !(1 << shared_sys::caps::CAP_SYS_RESOURCE);
        let set = of(None, true, without, DEFAULT.into()).unwrap().all;
        assert!(set.len() == 40 && !set.contains(&Capability::SysResource) && set.contains(&Capability::SysAdmin));
    }

    #[test]
    fn ambient_ones_are_in_every_set() {
        let of = |drop: &[&str], ambient: &[&str]| {
            let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
            let request = v1::Capability {
                drop_capabilities: strings(drop),
                add_ambient_capabilities: strings(ambient),
                ..Default::default()
            };
            of(Some(&request), false, FULL, DEFAULT.into())
        };
        let one = Some(HashSet::from([Capability::NetAdmin]));
        let given = sets(of(&["ALL"], &["net_admin"]).unwrap());
        for set in [given.bounding(), given.effective(), given.permitted(), given.inheritable(), given.ambient()] {
            assert_eq!(*set, one);
        }
        let none = sets(of(&[], &[]).unwrap());
        assert!(none.ambient().is_none() && none.inheritable().is_none());
        let all = of(&["CHOWN"], &["ALL"]).unwrap();
        assert!(all.ambient == all.all && !all.all.contains(&Capability::Chown));
        let both = of(&["KILL"], &["KILL"]).unwrap_err().to_string();
        assert!(both.starts_with("linux.security_context.capabilities.add_ambient_capabilities:"), "{both}");
    }
}
