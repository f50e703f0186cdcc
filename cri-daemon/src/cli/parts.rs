//! Parts of a container's configuration that need more than to be copied: resources, variables, seccomp.

use shared_proto::cri::v1;
use v1::security_profile::ProfileType;

use super::manifest::{Amount, Container, Resources, Seccomp, SeccompType};
use super::quantity;

const CPU_PERIOD_US: i64 = 100_000;
/// The kernel's lower limits.
const MIN_QUOTA_US: i64 = 1000;
const MIN_SHARES: i64 = 2;

/// Containers without a profile get the runtime's, which is what a hardened kubelet does.
pub fn seccomp(profile: Option<&Seccomp>) -> v1::SecurityProfile {
    let kind = match profile.map(|profile| profile.kind) {
        None | Some(SeccompType::RuntimeDefault) => ProfileType::RuntimeDefault,
        Some(SeccompType::Unconfined) => ProfileType::Unconfined,
        Some(SeccompType::Localhost) => ProfileType::Localhost,
    };
    let localhost_ref = profile.map(|profile| profile.localhost_profile.clone()).unwrap_or_default();
    v1::SecurityProfile { profile_type: kind.into(), localhost_ref }
}

/// What is asked for is at least what is guaranteed: a missing request is the limit.
pub fn resources(resources: &Resources) -> v1::LinuxContainerResources {
    // They were checked when the manifest was read.
    let read = |amount: Option<&Amount>, read: fn(&str) -> Result<i64, String>| {
        amount.and_then(|amount| read(&amount.to_string()).ok())
    };
    let limit = read(resources.limits.cpu.as_ref(), quantity::thousandths);
    let request = read(resources.requests.cpu.as_ref(), quantity::thousandths).or(limit);
    let memory = read(resources.limits.memory.as_ref(), quantity::units);
    v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: limit.map_or(0, |milli| (milli * CPU_PERIOD_US / 1000).max(MIN_QUOTA_US)),
        cpu_shares: request.map_or(0, |milli| (milli * 1024 / 1000).max(MIN_SHARES)),
        memory_limit_in_bytes: memory.unwrap_or_default(),
        ..Default::default()
    }
}

/// The variables in their order; each may use those before it.
pub fn environment(container: &Container) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for env in &container.env {
        let value = expand(&env.value, &all);
        all.retain(|(name, _)| *name != env.name);
        all.push((env.name.clone(), value));
    }
    all
}

/// Replaces `$(NAME)` by a variable that is there; `$$` is a dollar.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let name = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match name {
            _ if rest.starts_with('$') => {
                expanded.push('$');
                rest = &rest[1..];
            }
            Some((name, after)) => {
                match env.iter().find(|(known, _)| known == name) {
                    Some((_, value)) => expanded.push_str(value),
                    None => expanded.push_str(&format!("$({name})")),
                }
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::manifest::Amounts;

    #[test]
    fn resources_are_those_of_a_kubelet() {
        let text = |text: &str| Some(Amount::Text(text.into()));
        let limits = Amounts { cpu: text("500m"), memory: text("64Mi") };
        let got = resources(&Resources { limits, requests: Amounts { cpu: text("100m"), memory: None } });
        assert_eq!((got.cpu_period, got.cpu_quota, got.cpu_shares), (100_000, 50_000, 102));
        assert_eq!(got.memory_limit_in_bytes, 64 << 20);
        let none = resources(&Resources::default());
        assert_eq!((none.cpu_quota, none.cpu_shares, none.memory_limit_in_bytes), (0, 0, 0));
    }
}
