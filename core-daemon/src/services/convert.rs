//! Proto values to domain values and back, where several services share them.

use prost_types::{Any, FieldMask, Timestamp};
use shared_proto::containerd::{self, types};
use shared_sys::mount::Mount;

use crate::domain::{Descriptor, Digest, Invalid, Payload};

pub use crate::metadata::nanos;

/// A proto timestamp from nanoseconds since the epoch.
pub fn timestamp(nanos: i64) -> Timestamp {
    Timestamp { seconds: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) as i32 }
}

pub fn payload(any: Any) -> Payload {
    Payload { type_url: any.type_url, value: any.value }
}

pub fn any(payload: Payload) -> Any {
    Any { type_url: payload.type_url, value: payload.value }
}

pub fn mount(mount: containerd::Mount) -> Mount {
    Mount { kind: mount.r#type, source: mount.source, target: mount.target, options: mount.options }
}

pub fn mount_message(mount: Mount) -> containerd::Mount {
    containerd::Mount { r#type: mount.kind, source: mount.source, target: mount.target, options: mount.options }
}

/// Nanoseconds since the epoch from a proto timestamp. Beyond what 64 bits hold it is the nearest.
pub fn from_timestamp(at: Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos))
}

/// A descriptor of which the digest is well-formed.
pub fn descriptor(proto: types::Descriptor) -> Result<Descriptor, Invalid> {
    let types::Descriptor { media_type, digest, size, annotations } = proto;
    Ok(Descriptor { media_type, digest: Digest::parse(&digest)?, size, annotations })
}

pub fn to_descriptor(descriptor: Descriptor) -> types::Descriptor {
    let Descriptor { media_type, digest, size, annotations } = descriptor;
    types::Descriptor { media_type, digest: digest.to_string(), size, annotations }
}

/// A path of a field mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path<'a> {
    Field(&'a str),
    /// One entry of a map: map and key. All that is behind the first dot is the key, dots and slashes included.
    Entry(&'a str, &'a str),
}

/// The paths of a field mask; `maps` are the fields of which single entries may be named. No mask has no paths, which
/// means: replace everything that can be changed.
pub fn paths<'a>(mask: Option<&'a FieldMask>, maps: &'a [&'a str]) -> Vec<Path<'a>> {
    let all = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    let path = |path: &'a String| match path.split_once('.') {
        Some((map, key)) if maps.contains(&map) && !key.is_empty() => Path::Entry(map, key),
        Some(_) | None => Path::Field(path),
    };
    all.iter().map(path).collect()
}

/// The error for a path that can't be changed.
pub fn immutable(path: Path<'_>, kind: &str, name: &str) -> shared_proto::Error {
    let shown = match path {
        Path::Field(field) => field.to_owned(),
        Path::Entry(map, key) => format!("{map}.{key}"),
    };
    shared_proto::Error::invalid(format!("cannot update field {shown:?} of {kind} {name:?}"))
}

/// The error for a request without its object.
pub fn missing(kind: &str) -> shared_proto::Error {
    shared_proto::Error::invalid(format!("the request has no {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_behind_the_first_dot_is_the_key() {
        let all = ["labels.containerd.io/gc.ref.content.l.0", "labels", "spec", "labels.", "other.x"];
        let mask = FieldMask { paths: all.map(str::to_owned).to_vec() };
        let found = paths(Some(&mask), &["labels"]);
        let expected = [
            Path::Entry("labels", "containerd.io/gc.ref.content.l.0"),
            Path::Field("labels"),
            Path::Field("spec"),
            Path::Field("labels."),
            Path::Field("other.x"),
        ];
        assert_eq!(found, expected);
        assert!(paths(None, &["labels"]).is_empty());
    }

    #[test]
    fn times_before_the_epoch_round_trip() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, -5_000_000_001] {
            assert_eq!(from_timestamp(timestamp(nanos)), nanos);
        }
    }
}
