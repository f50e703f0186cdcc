//! How a request names a profile of seccomp or AppArmor: in the new field, or in the string of older kubelets.

use shared_proto::cri::v1::SecurityProfile;
use shared_proto::cri::v1::security_profile::ProfileType;

use super::SpecError;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
