//! Names of namespaces, containers and execs, and the wider ids of leases.
//!
//! The rule for names is containerd's: `[A-Za-z0-9]+([._-][A-Za-z0-9]+)*`, at most 76 bytes. So a name can't be empty, can't
//! leave a folder, and is safe in a path.

use std::fmt;

use super::Invalid;

/// The longest name, bytes.
pub const MAX_NAME: usize = 76;

fn check(what: &str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid(format!("{what} must not be empty")));
    }
    if name.len() > MAX_NAME {
        return Err(Invalid(format!("{what} {name:?} is longer than {MAX_NAME} characters")));
    }
    let separator = |b: u8| matches!(b, b'.' | b'_' | b'-');
    let bytes = name.as_bytes();
    let legal = bytes.iter().all(|&b| b.is_ascii_alphanumeric() || separator(b))
        && !bytes.windows(2).any(|pair| separator(pair[0]) && separator(pair[1]))
        && !separator(bytes[0])
        && !separator(bytes[bytes.len() - 1]);
    if legal {
        Ok(())
    } else {
        Err(Invalid(format!("{what} {name:?} is not of the form [A-Za-z0-9]+([._-][A-Za-z0-9]+)*")))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            pub fn parse(name: &str) -> Result<Self, Invalid> {
                check($what, name)?;
                Ok(Self(name.to_owned()))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A containerd namespace: keeps the clients of one core apart.
    Namespace, "namespace"
}
name! {
    /// The id of a container, an exec or a sandbox.
    Id, "id"
}

/// The longest id of a lease, bytes.
pub const MAX_LEASE: usize = 256;

/// The id of a lease. Clients choose freely here (`moby-image-sha256:…`, `853842910-_x8a`), so all that is asked for
/// is visible ASCII, which fits into a header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(String);

impl LeaseId {
    pub fn parse(id: &str) -> Result<Self, Invalid> {
        if id.is_empty() {
            return Err(Invalid("lease id must not be empty".into()));
        }
        if id.len() > MAX_LEASE {
            return Err(Invalid(format!("lease id {id:?} is longer than {MAX_LEASE} characters")));
        }
        if !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid(format!("lease id {id:?} has characters that are not visible ASCII")));
        }
        Ok(Self(id.to_owned()))
    }

    /// An id that nobody has.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_containerd_accepts() {
        for good in ["default", "k8s.io", "plugins.moby", "a-b_c.d", "0"] {
            assert_eq!(Namespace::parse(good).unwrap().as_str(), good);
        }
        assert!(Id::parse(&"a".repeat(MAX_NAME)).is_ok());
    }

    #[test]
    fn names_what_is_wrong() {
        for bad in ["", "..", "a/b", "-a", "a-", "a..b", "a b", "ü"] {
            let e = Id::parse(bad).unwrap_err();
            assert!(e.0.contains("id"), "{e}");
        }
        assert!(Id::parse(&"a".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn leases_may_have_the_ids_that_clients_choose() {
        let docker = format!("moby-image-sha256:{}", "a".repeat(64));
        for good in [docker.as_str(), "853842910-_x8a", "853842910-ab_-"] {
            assert_eq!(LeaseId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ü", "a\n"] {
            assert!(LeaseId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
