//! The OCI runtime that a bench gives to all its sides.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Engine {
    Runc,
    Crun,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    /// The binary, as a configuration names it: by its whole path.
    pub fn binary(self) -> anyhow::Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from));
        let found = dirs.map(|dir| dir.join(self.name())).find(|file| file.is_file());
        found.with_context(|| format!("there is no {}: install it", self.name()))
    }
}
