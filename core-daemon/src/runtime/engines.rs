//! Engines (runc, crun) as sealed copies in memory, for our own shims.
//!
//! An engine that runs from such a copy need not protect its own file from the container: that saves it a mount and a
//! start of itself each time (ADR 18). All shims share one copy; each keeps it open, so it outlives this process. When
//! the file changes, new shims get a new copy, and old ones see that theirs is old and run the file.
//!
//! Limits: engines by these two names only, as others may look for things beside their own file; not where SELinux
//! decides by a file's label what may run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use shared_proto::any;
use shared_proto::containerd::runc;
use shared_sys::program::Program;

use super::launch::is_executable;
use crate::domain::Payload;

const KNOWN: [&str; 2] = ["runc", "crun"];
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// The copies that there are, by file.
#[derive(Default)]
pub(super) struct Engines(Mutex<HashMap<PathBuf, Arc<Program>>>);

impl Engines {
    /// What a shim is told of the copy of its engine. `None`: it runs the file, as any shim does. Blocks.
    pub fn describe(&self, options: Option<&Payload>) -> Option<String> {
        let path = engine(options)?;
        if Path::new(SELINUX).exists() {
            return None;
        }
        // Held over the copying, which takes milliseconds, so that it is done once.
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        copies.retain(|_, program| program.is_current());
        if let Some(program) = copies.get(&path) {
            return Some(program.describe());
        }
        match copy(&path) {
            Ok(program) => {
                let text = program.describe();
                copies.insert(path, Arc::new(program));
                Some(text)
            }
            Err(e) => {
                tracing::debug!(engine = %path.display(), error = %e, "shims run the file of the engine");
                None
            }
        }
    }
}

/// The file of the engine that a shim will run, if it is one that we know.
fn engine(options: Option<&Payload>) -> Option<PathBuf> {
    let options = options.map(|o| any::raw(&o.type_url, o.value.clone())).filter(any::is::<runc::Options>);
    let options = options.and_then(|options| any::unpack::<runc::Options>(&options).ok()).unwrap_or_default();
    let named = if options.binary_name.is_empty() { KNOWN[0].to_owned() } else { options.binary_name };
    let named = PathBuf::from(named);
    let known = |path: &Path| KNOWN.iter().any(|name| path.file_name().is_some_and(|file| file == *name));
    if !known(&named) {
        return None;
    }
    if named.is_absolute() {
        return Some(named);
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search).map(|dir| dir.join(&named)).find(|path| is_executable(path))
}

/// A copy that is known to run: a system may forbid that.
fn copy(path: &Path) -> std::io::Result<Program> {
    let program = Program::copy(path)?;
    let mut trial = Command::new(program.executable());
    let status = trial.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(program) } else { Err(std::io::Error::other(format!("a copy of it ends with {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(binary: &str) -> Payload {
        let packed = any::pack(&runc::Options { binary_name: binary.into(), ..Default::default() });
        Payload { type_url: packed.type_url, value: packed.value }
    }

    #[test]
    fn only_known_engines_are_copied_and_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let [runc, other] = ["runc", "kata"].map(|name| dir.path().join(name));
        for file in [&runc, &other] {
            std::fs::copy("/bin/true", file).unwrap();
        }
        let engines = Engines::default();
        let told = |file: &Path| engines.describe(Some(&options(file.to_str().unwrap())));
        assert_eq!(told(&other), None);
        assert_eq!(told(Path::new("relative/to/what/runc")), None);
        if Path::new(SELINUX).exists() {
            assert_eq!(told(&runc), None);
            return;
        }
        let first = told(&runc).unwrap();
        assert_eq!(told(&runc), Some(first.clone()));
        assert_eq!(Program::open(&first).unwrap().path(), runc);
        std::fs::remove_file(&runc).unwrap();
        std::fs::write(&runc, "#!/bin/sh\n").unwrap();
        assert_eq!(told(&runc), None, "a script");
        std::fs::remove_file(&runc).unwrap();
        std::fs::copy("/bin/false", &runc).unwrap();
        assert_eq!(told(&runc), None, "it does not run");
    }
}
