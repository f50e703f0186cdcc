//! `google.protobuf.Any` as containerd uses it.
//!
//! Type URLs are bare message names (`containerd.events.TaskExit`), without `type.googleapis.com/`: containerd 1.6's
//! `ctr` and Docker Engine look them up literally. JSON payloads of the OCI runtime specification carry URLs below
//! `types.containerd.io/`. Payloads are passed on byte for byte: nothing in this module decodes what it only carries.

use prost::Name;
use prost_types::Any;

use crate::errdefs::{Error, Result};

/// URL of a JSON-encoded OCI runtime `Spec`.
pub const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// URL of a JSON-encoded OCI runtime `Process`.
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// URL of JSON-encoded OCI runtime `LinuxResources`.
pub const LINUX_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// Packs a message under its bare name.
pub fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Packs bytes that already have an encoding, such as a JSON specification.
pub fn raw(type_url: &str, value: impl Into<Vec<u8>>) -> Any {
    Any { type_url: type_url.to_owned(), value: value.into() }
}

/// Whether `any` holds an `M`. A `type.googleapis.com/` prefix, which some clients write, is tolerated.
pub fn is<M: Name>(any: &Any) -> bool {
    name(any) == M::full_name()
}

/// Unpacks an `M`, or says what was found instead (`InvalidArgument`).
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M> {
    if !is::<M>(any) {
        return Err(Error::invalid(format!("expected a {}, got \"{}\"", M::full_name(), any.type_url)));
    }
    M::decode(any.value.as_slice()).map_err(|e| Error::invalid(format!("malformed {}: {e}", M::full_name())))
}

/// The message name in a type URL.
pub fn name(any: &Any) -> &str {
    any.type_url.strip_prefix("type.googleapis.com/").unwrap_or(&any.type_url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::events::TaskExit;

    #[test]
    fn urls_are_bare_names() {
        let any = pack(&TaskExit { container_id: "c1".into(), ..Default::default() });
        assert_eq!(any.type_url, "containerd.events.TaskExit");
        assert_eq!(unpack::<TaskExit>(&any).unwrap().container_id, "c1");
    }

    #[test]
    fn a_prefix_is_tolerated_and_another_type_is_named() {
        let mut any = pack(&TaskExit::default());
        any.type_url = format!("type.googleapis.com/{}", any.type_url);
        assert!(is::<TaskExit>(&any));
        let err = unpack::<crate::containerd::runc::Options>(&any).unwrap_err();
        assert!(err.message.contains("containerd.runc.v1.Options") && err.message.contains("TaskExit"), "{err}");
    }
}
