//! The spec of a pause container: the process that holds the pod's namespaces.

use oci_spec::runtime::{Linux, Root, Spec};
use shared_proto::cri::v1::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext};

use super::lsm::Wanted;
use super::namespaces::{self, Modes};
use super::paths::Paths;
use super::{SandboxInput, SpecError, annotations, apparmor, capabilities, cgroup, devices, mounts};
use super::{VERSION, process, resources, seccomp, sysctls};

const SECURITY: &str = "linux.security_context";

/// The spec of a sandbox's pause container. Blocks.
pub fn sandbox(input: &SandboxInput) -> Result<Spec, SpecError> {
    let nothing = LinuxPodSandboxConfig::default();
    let config = input.config.linux.as_ref().unwrap_or(&nothing);
    let no_security = LinuxSandboxSecurityContext::default();
    let security = config.security_context.as_ref().unwrap_or(&no_security);
    let (settings, host) = (input.settings, input.host);
    let modes = Modes::of(security.namespace_options.as_ref(), &format!("{SECURITY}.namespace_options"))?;
    super::check_hostname(input.hostname)?;

    let capabilities = capabilities::default();
    let profile =
        Wanted::of(security.seccomp.as_ref(), &security.seccomp_profile_path, &format!("{SECURITY}.seccomp"))?;
    let seccomp = seccomp::profile(profile, security.privileged, &capabilities.all, settings, host)?;
    let apparmor = Wanted::of(security.apparmor.as_ref(), "", &format!("{SECURITY}.apparmor"))?;
    let apparmor = apparmor::profile(apparmor, security.privileged, settings, host, input.apparmor)?;

    let mut process = process::new(
        input.user,
        process::image_args(input.image)?,
        process::default_env(input.image),
        process::image_cwd(input.image),
        capabilities::sets(capabilities),
    );
    process
        .set_no_new_privileges(Some(true))
        .set_apparmor_profile(apparmor)
        .set_selinux_label(super::process_label(input.label, security.privileged))
        .set_oom_score_adj(Some(resources::sandbox_oom_score(settings, host)));

    let paths = Paths::default();
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::sandbox(input, &modes)?))
        .set_sysctl(Some(sysctls::sandbox(&config.sysctls, &modes, settings)?))
        .set_resources(Some(resources::sandbox(devices::none())))
        .set_seccomp(seccomp)
        .set_mount_label(super::mount_label(input.label))
        .set_masked_paths(Some(paths.masked))
        .set_readonly_paths(Some(paths.readonly));
    if !settings.disable_cgroup {
        let path = cgroup::path(&config.cgroup_parent, input.id, input.runtime.systemd_cgroup)?;
        linux.set_cgroups_path(Some(path.into()));
    }

    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(true));
    let own_names = input.netns.is_some();
    let mut spec = Spec::default();
    spec.set_version(VERSION.into())
        .set_root(Some(root))
        .set_hostname(own_names.then(|| input.hostname.to_owned()))
        .set_process(Some(process))
        .set_mounts(Some(mounts::sandbox(input, &modes, security.privileged)))
        .set_annotations(Some(annotations::sandbox(input)))
        .set_linux(Some(linux));
    Ok(spec)
}
