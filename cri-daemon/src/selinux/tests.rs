//! Labels on a machine that says it has SELinux.

use super::*;
use crate::host::{FakeHost, Host};

fn fedora() -> SelinuxContexts {
    SelinuxContexts {
        process: "system_u:system_r:container_t:s0".into(),
        file: "system_u:object_r:container_file_t:s0".into(),
    }
}

fn options(user: &str, kind: &str, level: &str) -> SeLinuxOption {
    SeLinuxOption { user: user.into(), role: String::new(), r#type: kind.into(), level: level.into() }
}

fn pod(options: Option<&SeLinuxOption>, taken: &[&str]) -> Result<Label, LabelError> {
    of_pod(options, Some(&fedora()), 3, taken.iter().copied())
}

#[test]
fn each_pod_has_categories_of_its_own() {
    let mut taken: Vec<String> = Vec::new();
    for _ in 0..3 {
        let labels: Vec<&str> = taken.iter().map(String::as_str).collect();
        let label = pod(None, &labels).unwrap();
        assert!(label.process.starts_with("system_u:system_r:container_t:s0:c"), "{label:?}");
        let level = label.process.strip_prefix("system_u:system_r:container_t:").unwrap();
        assert_eq!(label.mount, format!("system_u:object_r:container_file_t:{level}"));
        taken.push(label.process);
    }
    let levels: BTreeSet<_> = taken.iter().collect();
    assert_eq!(levels.len(), 3, "three categories make three pairs: {taken:?}");
    let labels: Vec<&str> = taken.iter().map(String::as_str).collect();
    let error = Error::from(pod(None, &labels).unwrap_err());
    assert_eq!(error.code, Code::ResourceExhausted, "{error:?}");
    // A level that was asked for may be shared.
    let asked = pod(Some(&options("", "", "s0:c0,c1")), &labels).unwrap();
    assert_eq!(asked.process, "system_u:system_r:container_t:s0:c0,c1");
}

#[test]
fn the_request_replaces_parts() {
    let asked = options("me_u", "mine_t", "s0:c7");
    let label = pod(Some(&asked), &[]).unwrap();
    assert_eq!(label.process, "me_u:system_r:mine_t:s0:c7");
    assert_eq!(label.mount, "me_u:object_r:container_file_t:s0:c7");

    let of = |options: Option<&SeLinuxOption>| of_container(options, Some(&fedora()), &label.process).unwrap();
    assert_eq!(of(None), label);
    assert_eq!(of(Some(&SeLinuxOption::default())), label);
    let own = of(Some(&options("", "spc_t", "")));
    assert_eq!(own.process, "system_u:system_r:spc_t:s0:c7", "the pod's level");
    assert_eq!(of(Some(&options("", "spc_t", "s0:c8"))).process, "system_u:system_r:spc_t:s0:c8");
    assert_eq!(of_container(None, Some(&fedora()), "").unwrap(), Label::default());
}

#[test]
fn levels_are_checked_even_where_labels_are_off() {
    for level in ["", "s0", "s0:c1", "s0:c1,c2", "s0-s0:c0.c1023", "s0:c1.c3,c5,c7.c9"] {
        assert_eq!(
            of_pod(Some(&options("", "", level)), None, 9, [].into_iter()).unwrap(),
            Label::default(),
            "{level}"
        );
    }
    for level in ["0", "s", "s10", "s0:", "s0:c", "s0:c12345", "s0:c1,", "s0:c1..c2", "s0:1", "top-secret", "s0 "] {
        let error = Error::from(of_container(Some(&options("", "", level)), None, "").unwrap_err());
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("selinux_options.level") && error.message.contains(level), "{error:?}");
    }
    assert!(of_pod(Some(&options("a:b", "", "")), None, 9, [].into_iter()).is_err());
}

#[test]
fn labels_need_the_setting_and_the_kernel() {
    let without = FakeHost::default().facts().clone();
    let with = HostFacts { selinux: Some(fedora()), ..without.clone() };
    let on = CriRuntime { enable_selinux: true, ..Default::default() };
    assert!(contexts(&CriRuntime::default(), &with).is_none());
    assert!(contexts(&on, &without).is_none());
    assert_eq!(contexts(&on, &with), Some(&fedora()));
}

#[test]
fn folders_are_relabelled_but_not_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    let target = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(target.path(), below.join("link")).unwrap();
    relabel(dir.path(), "u:r:t:s0:c1,c2").unwrap();
    let label = |path: &Path| {
        let mut text = [0u8; 64];
        let size = rustix::fs::lgetxattr(path, c"security.selinux", &mut text[..]).unwrap_or(0);
        String::from_utf8_lossy(&text[..size]).into_owned()
    };
    assert_eq!(label(&below), "u:r:t:s0:c1,c2");
    assert_eq!(label(target.path()), "", "links are not followed");
    for system in ["/", "/etc", "/usr"] {
        let error = Error::from(relabel(Path::new(system), "x").unwrap_err());
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(system), "{error:?}");
    }
    assert!(relabel(&dir.path().join("none"), "x").unwrap_err().to_string().contains("none"));
}
