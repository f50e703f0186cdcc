//! Proto values to domain values and back, where several services share them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::{Any, Timestamp};

use shared_proto::containerd;
use shared_sys::mount::Mount;

use crate::domain::Payload;

/// Nanoseconds since the epoch, as the database keeps times.
pub fn nanos(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as i64
}

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
