//! AppArmor and SELinux.
//!
//! Limits: profiles are not loaded here. Without a loaded default profile containers run unconfined by AppArmor, with
//! one warning. SELinux labels are not offered: `enable_selinux` is refused.

use std::sync::Once;

use shared_config::CriRuntime;
use shared_proto::cri::v1::SecurityProfile;
use shared_proto::cri::v1::security_profile::ProfileType;

use super::SpecError;
use crate::host::HostFacts;

/// The name under which containerd loads its default profile.
const DEFAULT_APPARMOR: &str = "cri-containerd.apparmor.d";

/// What a request says about a profile, in the new field or in the old string.
#[derive(Debug, PartialEq)]
pub(super) enum Wanted {
    Unset,
    RuntimeDefault,
    Unconfined,
    /// A profile's name (AppArmor) or its file (seccomp).
    Localhost(String),
}

impl Wanted {
    /// `field` names the new field, for errors.
    pub fn of(profile: Option<&SecurityProfile>, old: &str, field: &str) -> Result<Self, SpecError> {
        let Some(profile) = profile else { return Self::old(old, field) };
        let kind = ProfileType::try_from(profile.profile_type).map_err(|_| {
            SpecError::invalid(
                format!("{field}.profile_type"),
                format!("no type has the number {}", profile.profile_type),
            )
        })?;
        match kind {
            ProfileType::RuntimeDefault => Ok(Self::RuntimeDefault),
            ProfileType::Unconfined => Ok(Self::Unconfined),
            ProfileType::Localhost => {
                // Kubelets of the time of the old string prefix the new field as well.
                let name = profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref);
                Self::localhost(name, field)
            }
        }
    }

    /// The string of kubelets before 1.20, and of settings.
    pub fn old(text: &str, field: &str) -> Result<Self, SpecError> {
        match text {
            "" => Ok(Self::Unset),
            "runtime/default" | "docker/default" => Ok(Self::RuntimeDefault),
            "unconfined" => Ok(Self::Unconfined),
            text => match text.strip_prefix("localhost/") {
                Some(name) => Self::localhost(name, field),
                None => Err(SpecError::invalid(field, format!("{text:?} is no kind of profile"))),
            },
        }
    }

    fn localhost(name: &str, field: &str) -> Result<Self, SpecError> {
        match name {
            "" => Err(SpecError::invalid(format!("{field}.localhost_ref"), "names no profile")),
            name => Ok(Self::Localhost(name.to_owned())),
        }
    }
}

/// The AppArmor profile of a process.
pub(super) fn apparmor(
    wanted: Wanted,
    privileged: bool,
    settings: &CriRuntime,
    host: &HostFacts,
) -> Result<Option<String>, SpecError> {
    let enabled = host.apparmor && !settings.disable_apparmor;
    match wanted {
        Wanted::Localhost(name) if !enabled => {
            let problem = format!("profile {name:?} is asked for, but AppArmor is off on this machine");
            Err(SpecError::invalid("linux.security_context.apparmor", problem))
        }
        Wanted::Localhost(name) if !host.apparmor_profiles.contains(&name) => {
            Err(SpecError::invalid("linux.security_context.apparmor", format!("profile {name:?} is not loaded")))
        }
        Wanted::Localhost(name) => Ok(Some(name)),
        Wanted::Unconfined => Ok(None),
        Wanted::Unset | Wanted::RuntimeDefault if !enabled || privileged => Ok(None),
        Wanted::Unset | Wanted::RuntimeDefault if host.apparmor_profiles.contains(DEFAULT_APPARMOR) => {
            Ok(Some(DEFAULT_APPARMOR.to_owned()))
        }
        Wanted::Unset | Wanted::RuntimeDefault => {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!("AppArmor profile {DEFAULT_APPARMOR} is not loaded: containers run without a profile");
            });
            Ok(None)
        }
    }
}

/// Refuses the setting whose absence would go unnoticed.
pub(super) fn selinux(settings: &CriRuntime) -> Result<(), SpecError> {
    match settings.enable_selinux {
        true => Err(SpecError::Unsupported("SELinux (the setting enable_selinux)".into())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{FakeHost, Host};

    #[test]
    fn old_and_new_ways_to_name_a_profile() {
        let new = |kind: ProfileType, name: &str| {
            let profile = SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() };
            Wanted::of(Some(&profile), "unconfined", "seccomp")
        };
        assert_eq!(new(ProfileType::RuntimeDefault, "").unwrap(), Wanted::RuntimeDefault);
        assert_eq!(new(ProfileType::Localhost, "/p/x.json").unwrap(), Wanted::Localhost("/p/x.json".into()));
        assert_eq!(new(ProfileType::Localhost, "localhost//p").unwrap(), Wanted::Localhost("/p".into()));
        assert!(new(ProfileType::Localhost, "").unwrap_err().to_string().starts_with("seccomp.localhost_ref"));
        let old = |text| Wanted::of(None, text, "seccomp");
        assert_eq!(old("").unwrap(), Wanted::Unset);
        assert_eq!(old("docker/default").unwrap(), Wanted::RuntimeDefault);
        assert_eq!(old("localhost/p").unwrap(), Wanted::Localhost("p".into()));
        assert!(old("strict").is_err());
    }

    #[test]
    fn apparmor_needs_a_loaded_profile() {
        let settings = CriRuntime::default();
        let off = FakeHost::default().facts().clone();
        let profiles = [DEFAULT_APPARMOR, "mine"].map(String::from).into();
        let on = HostFacts { apparmor: true, apparmor_profiles: profiles, ..off.clone() };
        let of = |wanted, privileged, host| apparmor(wanted, privileged, &settings, host);
        assert_eq!(of(Wanted::Unset, false, &off).unwrap(), None);
        assert!(of(Wanted::Localhost("mine".into()), false, &off).is_err());
        assert_eq!(of(Wanted::Unset, false, &on).unwrap().as_deref(), Some(DEFAULT_APPARMOR));
        assert_eq!(of(Wanted::RuntimeDefault, true, &on).unwrap(), None);
        assert_eq!(of(Wanted::Unconfined, false, &on).unwrap(), None);
        assert_eq!(of(Wanted::Localhost("mine".into()), true, &on).unwrap().as_deref(), Some("mine"));
        let missing = of(Wanted::Localhost("other".into()), false, &on).unwrap_err().to_string();
        assert!(missing.contains(r#"profile "other" is not loaded"#), "{missing}");
    }
}
