//! What the machine can do, read once at start.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::HostError;

/// Which cgroup hierarchies are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// Version 1 controllers only.
    V1,
    /// Version 1 controllers, and an empty version 2 hierarchy beside them. OCI runtimes use the former.
    Hybrid,
    /// Version 2 only.
    V2,
}

/// The labels that a node's policy gives to containers that name none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelinuxContexts {
    pub process: String,
    pub file: String,
}

impl SelinuxContexts {
    /// From the `lxc_contexts` of the policy in use; what policies usually say where there is no such file.
    fn read_at(root: &Path) -> Self {
        let etc = root.join("etc/selinux");
        let value = |text: &str, key: &str| {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            let mut found =
                pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().trim_matches('"'));
            found.next().filter(|value| !value.is_empty()).map(String::from)
        };
        let config = fs::read_to_string(etc.join("config")).unwrap_or_default();
        let policy = value(&config, "SELINUXTYPE").unwrap_or_else(|| "targeted".into());
        let contexts = fs::read_to_string(etc.join(policy).join("contexts/lxc_contexts")).unwrap_or_default();
        Self {
            process: value(&contexts, "process").unwrap_or_else(|| "system_u:system_r:container_t:s0".into()),
            file: value(&contexts, "file").unwrap_or_else(|| "system_u:object_r:container_file_t:s0".into()),
        }
    }
}

/// Facts that do not change while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    pub cgroups: CgroupMode,
    /// Controllers that OCI runtimes can use: `cpu`, `cpuset`, `memory`, `pids`, `hugetlb`, …
    pub controllers: BTreeSet<String>,
    /// Whether swap can be limited.
    pub swap_limit: bool,
    /// This daemon's `oom_score_adj`.
    pub oom_score_adj: i32,
    /// Whether this daemon has CAP_SYS_RESOURCE: without it no process can go below our OOM score.
    pub sys_resource: bool,
    /// Whether AppArmor is on, and can be reached by us.
    pub apparmor: bool,
    /// SELinux's default labels for containers; `None` where the kernel has no SELinux.
    pub selinux: Option<SelinuxContexts>,
    pub seccomp: bool,
    /// Bit mask of the capabilities that exist and that this daemon may hand on (its bounding set).
    pub capabilities: u64,
}

impl HostFacts {
    pub fn read() -> Result<Self, HostError> {
        Self::read_at(Path::new("/"))
    }

    /// Reads them below `root`, which is `/` outside of tests.
    fn read_at(root: &Path) -> Result<Self, HostError> {
        let status = read(&root.join("proc/self/status"))?;
        let oom_score_adj = read(&root.join("proc/self/oom_score_adj"))?.trim().parse().unwrap_or(0);
        let cgroup = root.join("sys/fs/cgroup");
        let (cgroups, controllers) = match fs::read_to_string(cgroup.join("cgroup.controllers")) {
            Ok(text) => (CgroupMode::V2, text.split_whitespace().map(String::from).collect()),
            Err(_) => {
                let hybrid = cgroup.join("unified/cgroup.controllers").exists();
                let mode = if hybrid { CgroupMode::Hybrid } else { CgroupMode::V1 };
                (mode, v1_controllers(&read(&root.join("proc/self/cgroup"))?))
            }
        };
        let swap_limit = match cgroups {
            CgroupMode::V1 | CgroupMode::Hybrid => cgroup.join("memory/memory.memsw.limit_in_bytes").exists(),
            CgroupMode::V2 => controllers.contains("memory") && v2_swap(&cgroup),
        };
        let enabled = fs::read_to_string(root.join("sys/module/apparmor/parameters/enabled"));
        let effective = capability_line(&status, "CapEff:");
        Ok(Self {
            cgroups,
            controllers,
            swap_limit,
            oom_score_adj,
            sys_resource: effective & (1 << shared_sys::caps::CAP_SYS_RESOURCE) != 0,
            apparmor: enabled.is_ok_and(|text| text.starts_with('Y'))
                && root.join("sys/kernel/security/apparmor").exists(),
            selinux: root.join("sys/fs/selinux/enforce").exists().then(|| SelinuxContexts::read_at(root)),
            seccomp: status.lines().any(|line| line.starts_with("Seccomp:")),
            capabilities: capability_line(&status, "CapBnd:"),
        })
    }
}

fn read(path: &Path) -> Result<String, HostError> {
    fs::read_to_string(path).map_err(|source| HostError::Facts { what: path.display().to_string(), source })
}

/// Named version 1 controllers from lines like `4:memory:/path`, `1:cpu,cpuacct:/`, `9:name=systemd:/`, `0::/`.
fn v1_controllers(text: &str) -> BTreeSet<String> {
    let lists = text.lines().filter_map(|line| line.split(':').nth(1));
    lists.flat_map(|l| l.split(',')).filter(|c| !c.is_empty() && !c.starts_with("name=")).map(String::from).collect()
}

/// The root cgroup of version 2 has no `memory.swap.max`, but any child has it when swap is accounted for.
fn v2_swap(cgroup: &Path) -> bool {
    let Ok(entries) = fs::read_dir(cgroup) else { return false };
    entries.flatten().any(|entry| entry.path().join("memory.swap.max").exists())
}

fn capability_line(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> HostFacts {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        HostFacts::read_at(root.path()).unwrap()
    }

    #[test]
    fn tells_the_cgroup_modes_apart() {
        let proc = [
            ("proc/self/status", "CapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\nSeccomp:\t0\n"),
            ("proc/self/oom_score_adj", "-500\n"),
            ("proc/self/cgroup", "9:name=systemd:/\n4:memory:/a\n1:cpu,cpuacct:/\n0::/\n"),
        ];
        let v1 = machine(&proc);
        assert_eq!(v1.cgroups, CgroupMode::V1);
        assert_eq!(v1.controllers.iter().map(String::as_str).collect::<Vec<_>>(), ["cpu", "cpuacct", "memory"]);
        assert_eq!(v1.oom_score_adj, -500);
        assert!(!v1.sys_resource && v1.seccomp && !v1.apparmor && v1.selinux.is_none() && !v1.swap_limit);

        let mut files = proc.to_vec();
        files.push(("sys/fs/cgroup/unified/cgroup.controllers", ""));
        files.push(("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "1"));
        let hybrid = machine(&files);
        assert_eq!((hybrid.cgroups, hybrid.swap_limit), (CgroupMode::Hybrid, true));

        let mut files = proc.to_vec();
        files.push(("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory hugetlb\n"));
        files.push(("sys/fs/cgroup/init.scope/memory.swap.max", "max\n"));
        files.push(("sys/module/apparmor/parameters/enabled", "Y\n"));
        files.push(("sys/kernel/security/apparmor/profiles", ""));
        files.push(("sys/fs/selinux/enforce", "1"));
        files.push(("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=mls\n"));
        files.push(("etc/selinux/mls/contexts/lxc_contexts", "process = \"su:sr:c_t:s0\"\nro_file = \"x\"\n"));
        let v2 = machine(&files);
        assert_eq!((v2.cgroups, v2.swap_limit, v2.apparmor), (CgroupMode::V2, true, true));
        assert!(v2.controllers.contains("hugetlb"));
        let labels = v2.selinux.unwrap();
        assert_eq!(
            (labels.process.as_str(), labels.file.as_str()),
            ("su:sr:c_t:s0", "system_u:object_r:container_file_t:s0")
        );
    }

    #[test]
    fn reads_this_machine() {
        let facts = HostFacts::read().unwrap();
        assert!(facts.controllers.contains("memory"), "{facts:?}");
        assert_ne!(facts.capabilities, 0);
    }
}
