//! The text of the default AppArmor profile: what containerd and Docker have, for the same reasons.
//!
//! Everything is allowed but what could change the machine through `/proc` and `/sys`, mounting, and signals to and
//! traces of processes outside of containers.

use std::path::Path;

const RULES: &str = "
  network,
  capability,
  file,
  umount,

  # The daemon and the OCI runtimes stop containers; containers signal each other.
  signal (receive) peer={daemon},
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer={name},

  # Below /proc: files of processes, and of /proc/sys only what belongs to a namespace (kernel/shm*).
  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}/** w,
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/mem rwklx,
  deny @{PROC}/kmem rwklx,
  deny @{PROC}/kcore rwklx,

  deny mount,

  # Below /sys: nothing but cgroups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,

  # As far as other rules of the machine let them.
  ptrace (trace, tracedby, read, readby) peer={name},
";

/// The profile called `name`. `daemon`: the profile that this daemon runs under.
pub(super) fn text(name: &str, daemon: &str) -> String {
    with_macros(name, daemon, Path::new("/etc/apparmor.d"))
}

/// `macros`: where the distribution keeps what profiles include; machines without it are served as well.
fn with_macros(name: &str, daemon: &str, macros: &Path) -> String {
    let tunables = match macros.join("tunables/global").exists() {
        true => "#include <tunables/global>",
        false => "@{PROC}=/proc/",
    };
    let base = if macros.join("abstractions/base").exists() { "  #include <abstractions/base>\n" } else { "" };
    let rules = RULES.replace("{name}", name).replace("{daemon}", daemon);
    format!("{tunables}\n\nprofile {name} flags=(attach_disconnected,mediate_deleted) {{\n{base}{rules}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_what_the_distribution_has() {
        let dir = tempfile::tempdir().unwrap();
        let bare = with_macros("p", "unconfined", dir.path());
        assert!(bare.starts_with("@{PROC}=/proc/\n") && !bare.contains("#include"), "{bare}");
        for file in ["tunables/global", "abstractions/base"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let full = with_macros("p", "/usr/bin/d", dir.path());
        assert!(full.starts_with("#include <tunables/global>\n") && full.contains("  #include <abstractions/base>\n"));
        assert!(full.contains("peer=p,") && full.contains("peer=/usr/bin/d,") && !full.contains("{name}"), "{full}");
        assert_eq!(full.matches('{').count(), full.matches('}').count());
    }
}
