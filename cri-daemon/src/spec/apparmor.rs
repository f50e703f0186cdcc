//! Which AppArmor profile a process runs under.
//!
//! As in containerd: where the machine has AppArmor, a container that names no profile gets the default one, which is
//! generated and loaded when it is first needed. A profile of the node's must be loaded already. Where the machine has
//! none, only a profile by name is refused: nothing else would be weaker than asked for.

use shared_config::CriRuntime;

use super::SpecError;
use super::apparmor_default;
use super::lsm::Wanted;
use crate::host::{AppArmor, HostFacts};

/// The name under which containerd loads its default profile.
pub(super) const DEFAULT: &str = "cri-containerd.apparmor.d";

const FIELD: &str = "linux.security_context.apparmor";

/// The profile of a process; `None`: unconfined. Blocks; loads the default profile.
pub(super) fn profile(
    wanted: Wanted,
    privileged: bool,
    settings: &CriRuntime,
    facts: &HostFacts,
    host: &dyn AppArmor,
) -> Result<Option<String>, SpecError> {
    let enabled = facts.apparmor && !settings.disable_apparmor;
    match wanted {
        Wanted::Localhost(name) if !enabled => {
            let problem = format!("profile {name:?} is asked for, but AppArmor is off on this machine");
            Err(SpecError::invalid(FIELD, problem))
        }
        Wanted::Localhost(name) if !loaded(host, &name)? => {
            Err(SpecError::invalid(FIELD, format!("profile {name:?} is not loaded")))
        }
        Wanted::Localhost(name) => Ok(Some(name)),
        Wanted::Unconfined => Ok(None),
        Wanted::Unset | Wanted::RuntimeDefault if !enabled || privileged => Ok(None),
        Wanted::Unset | Wanted::RuntimeDefault => {
            if !loaded(host, DEFAULT)? {
                let text = apparmor_default::text(DEFAULT, &host.own_profile());
                host.load(&text).map_err(|source| SpecError::LoadProfile { name: DEFAULT, source })?;
                tracing::info!(profile = DEFAULT, "AppArmor profile loaded");
            }
            Ok(Some(DEFAULT.to_owned()))
        }
    }
}

fn loaded(host: &dyn AppArmor, name: &str) -> Result<bool, SpecError> {
    let failed = |source| SpecError::Io { what: "read", path: crate::host::APPARMOR_PROFILES.into(), source };
    Ok(host.loaded().map_err(failed)?.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{FakeHost, Host};

    /// A machine with AppArmor on which `mine` is loaded.
    fn machine() -> FakeHost {
        let facts = HostFacts { apparmor: true, ..FakeHost::default().facts().clone() };
        let host = FakeHost::new(facts);
        host.load("profile mine { file, }").unwrap();
        host
    }

    fn of(host: &FakeHost, wanted: Wanted, privileged: bool) -> Result<Option<String>, SpecError> {
        profile(wanted, privileged, &CriRuntime::default(), host.facts(), host.apparmor())
    }

    #[test]
    fn without_apparmor_only_names_are_refused() {
        let off = FakeHost::default();
        for wanted in [Wanted::Unset, Wanted::RuntimeDefault, Wanted::Unconfined] {
            assert_eq!(of(&off, wanted, false).unwrap(), None);
        }
        let refused = of(&off, Wanted::Localhost("mine".into()), false).unwrap_err().to_string();
        assert!(refused.contains("\"mine\"") && refused.contains("AppArmor is off"), "{refused}");
        let host = machine();
        let settings = CriRuntime { disable_apparmor: true, ..Default::default() };
        let disabled = |wanted| profile(wanted, false, &settings, host.facts(), host.apparmor());
        assert_eq!(disabled(Wanted::RuntimeDefault).unwrap(), None);
        assert!(disabled(Wanted::Localhost("mine".into())).is_err());
    }

    #[test]
    fn the_default_profile_is_loaded_once() {
        let host = machine();
        assert_eq!(of(&host, Wanted::RuntimeDefault, true).unwrap(), None, "privileged");
        assert!(!host.loaded().unwrap().contains(DEFAULT));
        for wanted in [Wanted::Unset, Wanted::RuntimeDefault] {
            assert_eq!(of(&host, wanted, false).unwrap().as_deref(), Some(DEFAULT));
        }
        assert_eq!(host.profiles_loaded(), 2, "`mine` and the default one, once");
    }

    #[test]
    fn a_profile_by_name_must_be_there() {
        let host = machine();
        assert_eq!(of(&host, Wanted::Localhost("mine".into()), true).unwrap().as_deref(), Some("mine"));
        let missing = of(&host, Wanted::Localhost("other".into()), false).unwrap_err().to_string();
        assert!(missing.contains(r#"profile "other" is not loaded"#), "{missing}");
        // Profiles come and go while we run.
        host.load("profile other { file, }").unwrap();
        assert!(of(&host, Wanted::Localhost("other".into()), false).is_ok());
    }

    #[test]
    fn what_can_not_be_loaded_confines_nobody() {
        let host = machine();
        host.fail("load_apparmor", true);
        let failed = of(&host, Wanted::Unset, false).unwrap_err().to_string();
        assert!(failed.contains(DEFAULT) && failed.contains("injected"), "{failed}");
    }
}
