//! Where a container's cgroup is.

use std::path::{Path, PathBuf};

use super::SpecError;

/// The driver decides the form, not the look of the parent: `slice:prefix:id` for systemd, a path for cgroupfs.
///
/// cAdvisor finds containers by the id in the last component, which both forms keep.
pub(super) fn path(parent: &str, id: &str, systemd: bool) -> Result<String, SpecError> {
    let field = "linux.cgroup_parent";
    if parent.split('/').any(|part| part == "..") {
        return Err(SpecError::invalid(field, format!("{parent:?} must not contain \"..\"")));
    }
    if parent.contains(['\0', ':']) {
        return Err(SpecError::invalid(field, format!("{parent:?} is no name of a cgroup")));
    }
    let parent = parent.trim_end_matches('/');
    if !systemd {
        return Ok(match parent {
            "" => format!("/k8s.io/{id}"),
            parent => format!("/{}/{id}", parent.trim_start_matches('/')),
        });
    }
    // A slice's name holds its ancestors, so the last component is enough; no slice at all means systemd's default.
    let slice = parent.rsplit('/').next().unwrap_or_default();
    if !slice.is_empty() && !slice.ends_with(".slice") {
        let problem = format!("{parent:?} is no systemd slice, which the runtime's SystemdCgroup option needs");
        return Err(SpecError::invalid(field, problem));
    }
    Ok(format!("{slice}:cri-containerd:{id}"))
}

/// Where the OCI runtime makes the cgroup of [`path`], below the root of each hierarchy.
pub fn cgroup_folder(parent: &str, id: &str, systemd: bool) -> Result<PathBuf, SpecError> {
    let path = path(parent, id, systemd)?;
    if !systemd {
        return Ok(path.into());
    }
    let slice = path.split(':').next().filter(|slice| !slice.is_empty()).unwrap_or("system.slice");
    // `a-b.slice` lies in `a.slice`.
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = name.match_indices('-').map(|(end, _)| end).chain([name.len()]);
    let mut folder = PathBuf::from("/");
    folder.extend(ends.filter(|end| *end > 0).map(|end| format!("{}.slice", &name[..end])));
    Ok(folder.join(Path::new(&format!("cri-containerd-{id}.scope"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_driver() {
        let cases = [
            ("", false, "/k8s.io/ID"),
            ("/", false, "/k8s.io/ID"),
            ("/kubepods/pod1", false, "/kubepods/pod1/ID"),
            ("kubepods/", false, "/kubepods/ID"),
            ("/kubepods/burstable/pod7d2a-1", false, "/kubepods/burstable/pod7d2a-1/ID"),
            ("/kubepods/besteffort/pod7d2a-1", false, "/kubepods/besteffort/pod7d2a-1/ID"),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7d2a_1.slice",
                true,
                "kubepods-burstable-pod7d2a_1.slice:cri-containerd:ID",
            ),
            ("kubepods-pod7d2a_1.slice", true, "kubepods-pod7d2a_1.slice:cri-containerd:ID"),
            ("/kubepods.slice/kubepods-pod1.slice", false, "/kubepods.slice/kubepods-pod1.slice/ID"),
            ("/kubepods.slice/kubepods-pod1.slice", true, "kubepods-pod1.slice:cri-containerd:ID"),
            ("", true, ":cri-containerd:ID"),
        ];
        for (parent, systemd, expected) in cases {
            assert_eq!(path(parent, "ID", systemd).unwrap(), expected, "{parent} {systemd}");
        }
        assert!(path("/kubepods/pod1", "ID", true).unwrap_err().to_string().contains("SystemdCgroup"));
        assert!(path("/a/../b", "ID", false).is_err());
        assert!(path("a:b.slice", "ID", true).is_err(), "it would be read as three parts");
    }

    #[test]
    fn folders_hold_their_ancestors() {
        let folder = |parent: &str, systemd| cgroup_folder(parent, "ID", systemd).unwrap();
        assert_eq!(folder("/kubepods/pod1", false), Path::new("/kubepods/pod1/ID"));
        let pod = "/kubepods.slice/kubepods-pod7d2a_1.slice";
        let expected = "/kubepods.slice/kubepods-pod7d2a_1.slice/cri-containerd-ID.scope";
        assert_eq!(folder(pod, true), Path::new(expected));
        assert_eq!(folder("", true), Path::new("/system.slice/cri-containerd-ID.scope"));
        assert!(cgroup_folder("/a/../b", "ID", true).is_err());
    }
}
