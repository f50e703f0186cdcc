//! Which part of a multi-platform image is for this machine. The core unpacks by the same rule.

use serde::Deserialize;
use shared_proto::containerd::Platform as Wire;

/// For what an image was built, in Go's names: `linux`, `amd64`, `v8`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

impl Platform {
    /// The machine that this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        let variant = if architecture == "arm" { "v7" } else { "" };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// How well an image for `image` runs here: smaller is better, `None` is not at all.
    pub fn rank(&self, image: &Self) -> Option<u32> {
        if self.os != image.os {
            return None;
        }
        let number = |variant: &str| match variant {
            "" => 0,
            text => text.trim_start_matches('v').parse::<u32>().unwrap_or(u32::MAX),
        };
        match (self.architecture.as_str(), image.architecture.as_str()) {
            ("arm", "arm") => number(&self.variant).checked_sub(match number(&image.variant) {
                0 => 7,
                n => n,
            }),
            ("arm64", "arm64") => matches!(image.variant.as_str(), "" | "8" | "v8").then_some(0),
            ("amd64", "amd64") => matches!(image.variant.as_str(), "" | "v1").then_some(0),
            (here, there) => (here == there && image.variant.is_empty()).then_some(0),
        }
    }

    pub fn to_wire(&self) -> Wire {
        Wire {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            ..Default::default()
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(os: &str, architecture: &str, variant: &str) -> Platform {
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }
    }

    #[test]
    fn ranks() {
        let amd64 = of("linux", "amd64", "");
        assert_eq!(amd64.rank(&of("linux", "amd64", "")), Some(0));
        assert_eq!(amd64.rank(&of("linux", "amd64", "v3")), None);
        assert_eq!(amd64.rank(&of("linux", "arm64", "v8")), None);
        assert_eq!(amd64.rank(&of("unknown", "unknown", "")), None);
        assert_eq!(of("linux", "arm64", "").rank(&of("linux", "arm64", "v8")), Some(0));
        let v7 = of("linux", "arm", "v7");
        assert!(v7.rank(&of("linux", "arm", "v7")) < v7.rank(&of("linux", "arm", "v6")));
        assert_eq!(v7.rank(&of("linux", "arm", "v8")), None);
    }
}
