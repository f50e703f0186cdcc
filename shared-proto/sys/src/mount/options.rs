//! Mount options, sorted by whom they are for: the mount, the file system, or mount propagation.

use std::io;

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME, c_ulong,
};

/// What is bound, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    No,
    /// This mount alone.
    Plain,
    /// With everything mounted below.
    Recursive,
}

/// The options of one mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub bind: Bind,
    /// `MOUNT_ATTR_*` to set on the mount; the access time modes are among them.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear first.
    pub clear: u64,
    /// Flags of the file system itself: `ro`, `sync`.
    pub flags: Vec<&'static str>,
    /// `MS_SHARED` and its like, and whether that goes for all mounts below.
    pub propagation: Option<(c_ulong, bool)>,
    /// What only the file system understands: `key=value`, or a bare `key`.
    pub data: Vec<String>,
}

impl Options {
    pub fn parse(kind: &str, options: &[String]) -> io::Result<Self> {
        let bind = if kind == "bind" {
            Bind::Plain
        } else if kind == "rbind" {
            Bind::Recursive
        } else {
            Bind::No
        };
        let mut parsed = Self { bind, set: 0, clear: 0, flags: vec![], propagation: None, data: vec![] };
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> io::Result<()> {
        match option {
            "" | "defaults" | "nomand" | "norelatime" | "nostrictatime" | "loud" => {}
            "bind" => self.bind = self.bind.max(Bind::Plain),
            "rbind" => self.bind = Bind::Recursive,
            "ro" => {
                self.attribute(MOUNT_ATTR_RDONLY, true);
                self.flag("ro", true);
            }
            "rw" => {
                self.attribute(MOUNT_ATTR_RDONLY, false);
                self.flag("ro", false);
            }
            "nosuid" => self.attribute(MOUNT_ATTR_NOSUID, true),
            "suid" => self.attribute(MOUNT_ATTR_NOSUID, false),
            "nodev" => self.attribute(MOUNT_ATTR_NODEV, true),
            "dev" => self.attribute(MOUNT_ATTR_NODEV, false),
            "noexec" => self.attribute(MOUNT_ATTR_NOEXEC, true),
            "exec" => self.attribute(MOUNT_ATTR_NOEXEC, false),
            "nodiratime" => self.attribute(MOUNT_ATTR_NODIRATIME, true),
            "diratime" => self.attribute(MOUNT_ATTR_NODIRATIME, false),
            "nosymfollow" => self.attribute(MOUNT_ATTR_NOSYMFOLLOW, true),
            "symfollow" => self.attribute(MOUNT_ATTR_NOSYMFOLLOW, false),
            "noatime" => self.access_time(MOUNT_ATTR_NOATIME),
            "strictatime" => self.access_time(MOUNT_ATTR_STRICTATIME),
            "atime" | "relatime" => self.access_time(0),
            "sync" => self.flag("sync", true),
            "async" => self.flag("sync", false),
            "dirsync" => self.flag("dirsync", true),
            "mand" => self.flag("mand", true),
            "lazytime" => self.flag("lazytime", true),
            "nolazytime" => self.flag("lazytime", false),
            "silent" => self.flag("silent", true),
            "private" => self.propagation = Some((libc::MS_PRIVATE, false)),
            "rprivate" => self.propagation = Some((libc::MS_PRIVATE, true)),
            "shared" => self.propagation = Some((libc::MS_SHARED, false)),
            "rshared" => self.propagation = Some((libc::MS_SHARED, true)),
            "slave" => self.propagation = Some((libc::MS_SLAVE, false)),
            "rslave" => self.propagation = Some((libc::MS_SLAVE, true)),
            "unbindable" => self.propagation = Some((libc::MS_UNBINDABLE, false)),
            "runbindable" => self.propagation = Some((libc::MS_UNBINDABLE, true)),
            "remount" | "loop" => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("mount option {option:?} is not supported"),
                ));
            }
            // Hints for programs, which the kernel would refuse.
            hint if hint.starts_with("X-") || hint.starts_with("x-") => {}
            data => self.data.push(data.to_owned()),
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: u64, on: bool) {
        self.clear |= attribute;
        if on {
            self.set |= attribute;
        } else {
            self.set &= !attribute;
        }
    }

    fn access_time(&mut self, mode: u64) {
        self.clear |= MOUNT_ATTR__ATIME;
        self.set = (self.set & !MOUNT_ATTR__ATIME) | mode;
    }

    fn flag(&mut self, flag: &'static str, on: bool) {
        self.flags.retain(|known| *known != flag);
        if on {
            self.flags.push(flag);
        }
    }
}

impl Bind {
    fn max(self, other: Self) -> Self {
        if self == Bind::Recursive { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, options: &[&str]) -> Options {
        Options::parse(kind, &options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn later_options_win() {
        let both = parse("tmpfs", &["ro", "noexec", "rw", "noatime", "strictatime", "size=1m", "exec"]);
        assert_eq!((both.set, both.flags.as_slice()), (MOUNT_ATTR_STRICTATIME, &[][..]));
        assert_eq!(both.data, ["size=1m"]);
        assert_eq!(parse("none", &["ro", "rbind", "bind"]).bind, Bind::Recursive);
        assert_eq!(parse("bind", &[]).bind, Bind::Plain);
    }

    #[test]
    fn what_would_do_something_else_is_refused() {
        assert!(Options::parse("bind", &["remount".to_owned()]).is_err());
    }
}
