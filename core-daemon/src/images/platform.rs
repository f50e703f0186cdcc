//! Which entry of an index is for this machine: the same operating system and architecture, the best variant.
//!
//! Names are normalised as Go tools write them (`x86_64` is `amd64`). On arm a machine of variant N runs everything
//! from `v5` to N, best first; an `arm64` machine takes `v8` or no variant first, then 32-bit arm. On `amd64` the
//! plain variant is taken, and `v2` to `v4` only where nothing else is there and the client asked for it.

use super::manifest::{Descriptor, Platform};

impl Platform {
    /// The machine that this program was built for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// A platform with its names normalised.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, implied) = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => ("amd64".to_owned(), ""),
            "aarch64" => ("arm64".to_owned(), ""),
            "armhf" => ("arm".to_owned(), "v7"),
            "armel" => ("arm".to_owned(), "v6"),
            "i386" | "x86" => ("386".to_owned(), ""),
            "powerpc64le" => ("ppc64le".to_owned(), ""),
            other => (other.to_owned(), ""),
        };
        let variant = if variant.is_empty() { implied } else { variant };
        let variant = match (architecture.as_str(), variant.to_ascii_lowercase().as_str()) {
            ("arm64", "8" | "v8" | "v8.0") | ("amd64", "v1") => String::new(),
            ("arm", "") => "v7".to_owned(),
            (_, digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => format!("v{digits}"),
            (_, other) => other.to_owned(),
        };
        Self { os: os.to_ascii_lowercase(), architecture, variant }
    }

    fn normal(&self) -> Self {
        Self::new(&self.os, &self.architecture, &self.variant)
    }

    /// How well an image for `image` runs here: smaller is better, `None` is not at all.
    pub fn rank(&self, image: &Platform) -> Option<u32> {
        let (here, image) = (self.normal(), image.normal());
        if here.os != image.os {
            return None;
        }
        let number = |variant: &str| variant.strip_prefix('v').and_then(|v| v.split('.').next()?.parse::<u32>().ok());
        match (here.architecture.as_str(), image.architecture.as_str()) {
            ("arm", "arm") => {
                let (most, is) = (number(&here.variant)?, number(&image.variant)?);
                (is <= most).then(|| most - is)
            }
            ("arm64", "arm") => number(&image.variant).filter(|v| *v <= 8).map(|v| 100 + 8 - v),
            (a, b) if a != b => None,
            _ if here.variant == image.variant => Some(0),
            ("arm64" | "amd64", _) => {
                let (most, is) = (number(&here.variant).unwrap_or(0), number(&image.variant).unwrap_or(0));
                (is <= most).then(|| most - is)
            }
            // Variants that nobody can compare: only an image without one runs everywhere.
            _ => image.variant.is_empty().then_some(1),
        }
    }

    /// The best entry for this platform; the first one of equals.
    pub fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let ranked = entries.iter().filter_map(|entry| {
            // Entries without a platform are nested indexes or single images: last resort.
            let rank = entry.platform.as_ref().map_or(Some(u32::MAX), |platform| self.rank(platform))?;
            Some((rank, entry))
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
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
    use crate::domain::Digest;

    fn choose(here: (&str, &str), entries: &[(&str, &str, &str)]) -> Option<usize> {
        let entries: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(size, (os, architecture, variant))| Descriptor {
                media_type: String::new(),
                digest: Digest::of(b""),
                size: size as u64,
                annotations: Default::default(),
                platform: Some(Platform {
                    os: (*os).into(),
                    architecture: (*architecture).into(),
                    variant: (*variant).into(),
                }),
            })
            .collect();
        Platform::new("linux", here.0, here.1).choose(&entries).map(|e| e.size as usize)
    }

    #[test]
    fn takes_the_best_entry() {
        let all = [
            ("windows", "amd64", ""),
            ("linux", "arm", "v5"),
            ("linux", "arm", "v7"),
            ("linux", "amd64", "v3"),
            ("linux", "amd64", ""),
            ("linux", "arm64", "v8"),
            ("unknown", "unknown", ""),
        ];
        assert_eq!(choose(("x86_64", ""), &all), Some(4));
        assert_eq!(choose(("amd64", "v3"), &all), Some(3));
        assert_eq!(choose(("aarch64", ""), &all), Some(5));
        assert_eq!(choose(("arm", "v7"), &all), Some(2));
        assert_eq!(choose(("arm", "v6"), &all), Some(1));
        assert_eq!(choose(("s390x", ""), &all), None);
        assert_eq!(choose(("aarch64", ""), &all[..3]), Some(2));
    }
}
