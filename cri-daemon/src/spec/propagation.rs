//! Whether mounts made below a path on the machine appear elsewhere.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::SpecError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    Shared,
    Slave,
    Private,
}

impl Propagation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Slave => "slave",
            Self::Private => "private",
        }
    }
}

/// The mount point that `path` (without links) is on, and how it propagates.
pub(super) fn of(path: &Path) -> Result<(PathBuf, Propagation), SpecError> {
    const TABLE: &str = "/proc/self/mountinfo";
    let failed = |source| SpecError::Io { what: "read", path: TABLE.into(), source };
    let table = fs::read_to_string(TABLE).map_err(failed)?;
    let none = || failed(std::io::Error::other(format!("no mount holds {}", path.display())));
    find(&table, path).ok_or_else(none)
}

/// The last line of the longest mount point that holds `path`: later mounts hide earlier ones.
fn find(table: &str, path: &Path) -> Option<(PathBuf, Propagation)> {
    let parse = |line: &str| {
        let mut fields = line.split(' ');
        let mount_point = unescape(fields.nth(4)?);
        let optional: Vec<_> = fields.skip(1).take_while(|field| *field != "-").collect();
        let has = |name: &str| optional.iter().any(|field| field.starts_with(name));
        let propagation = match (has("shared:"), has("master:")) {
            (true, _) => Propagation::Shared,
            (false, true) => Propagation::Slave,
            (false, false) => Propagation::Private,
        };
        Some((mount_point, propagation))
    };
    let holding = table.lines().filter_map(parse).filter(|(mount_point, _)| path.starts_with(mount_point));
    holding.max_by_key(|(mount_point, _)| mount_point.components().count())
}

/// The kernel writes blank, tab, newline and backslash as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_latest_mount_decides() {
        let table = "\
20 1 8:1 / / rw shared:1 - ext4 /dev/sda rw
21 20 0:5 / /a rw,relatime master:2 propagate_from:1 - tmpfs t rw
22 20 0:6 / /a/b\\040c rw - tmpfs t rw
23 20 0:7 / /d rw - tmpfs t rw
24 23 0:8 / /d rw shared:3 master:1 - tmpfs t rw
";
        let of =
            |path: &str| find(table, Path::new(path)).map(|(mount, kind)| (mount.display().to_string(), kind.name()));
        assert_eq!(of("/x/y"), Some(("/".into(), "shared")));
        assert_eq!(of("/a/x"), Some(("/a".into(), "slave")));
        assert_eq!(of("/a/b c/x"), Some(("/a/b c".into(), "private")));
        assert_eq!(of("/ab"), Some(("/".into(), "shared")));
        assert_eq!(of("/d/x"), Some(("/d".into(), "shared")));
    }
}
