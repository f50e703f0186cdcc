//! The machine's AppArmor: which profiles are loaded, and loading one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Where the kernel lists its profiles.
pub const APPARMOR_PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// What a spec needs of AppArmor. Everything here blocks.
pub trait AppArmor: Send + Sync {
    /// The names of the loaded profiles, now: a node's own come and go.
    fn loaded(&self) -> io::Result<BTreeSet<String>>;
    /// Loads the profiles in `text`, over old ones of the same names.
    fn load(&self, text: &str) -> io::Result<()>;
    /// The profile that this daemon runs under.
    fn own_profile(&self) -> String;
}

/// The kernel's, through `apparmor_parser`.
pub struct RealAppArmor;

impl AppArmor for RealAppArmor {
    fn loaded(&self) -> io::Result<BTreeSet<String>> {
        Ok(profiles(&fs::read_to_string(APPARMOR_PROFILES)?))
    }

    fn load(&self, text: &str) -> io::Result<()> {
        run_parser("apparmor_parser", &["-Kr"], text)
    }

    fn own_profile(&self) -> String {
        let text = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        own(&text)
    }
}

/// Runs the program that compiles profiles, with `text` as its input.
fn run_parser(program: &str, args: &[&str], text: &str) -> io::Result<()> {
    let mut command = Command::new(program);
    let child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| {
        io::Error::new(e.kind(), format!("run {program}: {e} (or turn AppArmor off with disable_apparmor)"))
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it says when it ends early is better than a broken pipe.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{program}: {}: {}", output.status, said.trim())))
        }
    }
}

/// Profile names from lines like `docker-default (enforce)`.
fn profiles(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.rsplit_once(" (")).map(|(name, _)| name.to_owned()).collect()
}

/// `NAME (enforce)` or `unconfined`.
fn own(text: &str) -> String {
    let text = text.trim_end_matches(['\0', '\n']);
    let name = text.rsplit_once(" (").map_or(text, |(name, _)| name);
    if name.is_empty() { "unconfined".into() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_kernel_s_lists() {
        let loaded = profiles("docker-default (enforce)\n/usr/bin/man (x) (complain)\n");
        assert!(loaded.contains("docker-default") && loaded.contains("/usr/bin/man (x)"));
        assert_eq!(own("/usr/bin/core-daemon (complain)\n"), "/usr/bin/core-daemon");
        assert_eq!(own("unconfined\n"), "unconfined");
        assert_eq!(own(""), "unconfined");
    }

    #[test]
    fn the_parser_s_own_words_are_told() {
        run_parser("grep", &["-q", "profile x"], "profile x {}").unwrap();
        let failed =
            run_parser("sh", &["-c", "cat >/dev/null; echo line 1: no such rule >&2; exit 1"], "x").unwrap_err();
        assert!(failed.to_string().contains("no such rule"), "{failed}");
        let missing = run_parser("no-such-parser", &[], "x").unwrap_err();
        assert!(missing.to_string().contains("no-such-parser") && missing.to_string().contains("disable_apparmor"));
    }
}
