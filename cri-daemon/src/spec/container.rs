//! The spec of a container.

use oci_spec::runtime::{Linux, Root, Spec};
use shared_proto::cri::v1::{LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext};

use super::lsm::Wanted;
use super::namespaces::{self, Modes};
use super::paths::Paths;
use super::{ContainerInput, SpecError, VERSION, VERSION_UNIFIED};
use super::{
    annotations, apparmor, base, capabilities, cgroup, devices, mounts, not_offered, process, resources, seccomp,
};

const SECURITY: &str = "linux.security_context";

/// The spec of a container. Blocks; makes mount sources that are missing.
pub fn container(input: &ContainerInput) -> Result<Spec, SpecError> {
    let config = input.config;
    let nothing = LinuxContainerConfig::default();
    let linux_config = config.linux.as_ref().unwrap_or(&nothing);
    let no_security = LinuxContainerSecurityContext::default();
    let security = linux_config.security_context.as_ref().unwrap_or(&no_security);
    let no_limits = LinuxContainerResources::default();
    let limits = linux_config.resources.as_ref().unwrap_or(&no_limits);
    let (settings, host) = (input.settings, input.host);

    let sandbox = input.sandbox.linux.as_ref();
    let sandbox_security = sandbox.and_then(|linux| linux.security_context.as_ref());
    if security.privileged && !sandbox_security.is_some_and(|s| s.privileged) {
        let problem = "a privileged container needs a privileged pod sandbox";
        return Err(SpecError::invalid(format!("{SECURITY}.privileged"), problem));
    }
    not_offered::check(input)?;
    let pod = Modes::of(sandbox_security.and_then(|s| s.namespace_options.as_ref()), "sandbox namespace_options")?;
    let own = Modes::of(security.namespace_options.as_ref(), &format!("{SECURITY}.namespace_options"))?;

    let from = input.base.and_then(base::capabilities).unwrap_or_else(|| capabilities::default().all);
    let capabilities = capabilities::of(security.capabilities.as_ref(), security.privileged, host.capabilities, from)?;
    let profile =
        Wanted::of(security.seccomp.as_ref(), &security.seccomp_profile_path, &format!("{SECURITY}.seccomp"))?;
    let named_seccomp = !matches!(profile, Wanted::Unset);
    let seccomp = seccomp::profile(profile, security.privileged, &capabilities.all, settings, host)?;
    let apparmor = Wanted::of(security.apparmor.as_ref(), &security.apparmor_profile, &format!("{SECURITY}.apparmor"))?;
    let named_apparmor = !matches!(apparmor, Wanted::Unset);
    let apparmor = apparmor::profile(apparmor, security.privileged, settings, host, input.apparmor)?;

    let mut process = process::new(
        input.user,
        process::args(config, input.image)?,
        process::env(config, input.image, input.hostname)?,
        process::cwd(config, input.image)?,
        capabilities::sets(capabilities),
    );
    process
        .set_terminal(config.tty.then_some(true))
        .set_no_new_privileges(Some(security.no_new_privs))
        .set_apparmor_profile(apparmor)
        .set_selinux_label(super::process_label(input.label, security.privileged))
        .set_oom_score_adj(Some(resources::oom_score(limits, settings, host)?));

    let devices = devices::container(input)?;
    let mounts = mounts::container(input, &pod)?;
    let paths = Paths::container(linux_config.security_context.as_ref(), settings);
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::container(input, &pod, &own)?))
        .set_sysctl(None)
        .set_resources(Some(resources::container(limits, settings, host, devices.rules)?))
        .set_devices((!devices.nodes.is_empty()).then_some(devices.nodes))
        .set_rootfs_propagation(mounts.rootfs_propagation)
        .set_seccomp(seccomp)
        .set_mount_label(super::mount_label(input.label))
        .set_masked_paths(Some(paths.masked))
        .set_readonly_paths(Some(paths.readonly));
    if !settings.disable_cgroup {
        let parent = sandbox.map(|linux| linux.cgroup_parent.as_str()).unwrap_or_default();
        linux.set_cgroups_path(Some(cgroup::path(parent, input.id, input.runtime.systemd_cgroup)?.into()));
    }

    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(security.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_version(if limits.unified.is_empty() { VERSION } else { VERSION_UNIFIED }.into())
        .set_root(Some(root))
        .set_hostname(None)
        .set_process(Some(process))
        .set_mounts(Some(mounts.mounts))
        .set_annotations(Some(annotations::container(input)))
        .set_linux(Some(linux));
    let decided = base::Decided {
        seccomp: named_seccomp || security.privileged,
        apparmor: named_apparmor || security.privileged,
        selinux: security.privileged,
    };
    match input.base {
        Some(base) => base::onto(base, &spec, decided),
        None => Ok(spec),
    }
}
