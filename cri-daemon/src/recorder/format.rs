//! The lines of a recording: one JSON object each, told apart by `kind`. `docs/flight-recorder.md` has the whole.
//!
//! Calls are written when they end, so the lines are in the order of ends; `seq` counts their begins. A call that
//! answers a stream is `open`, then `message` by `message`, then a `call` without its request. Later versions of the
//! format may add fields; a reader ignores those that it doesn't know, and refuses a higher `version`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the header says in `format`.
pub const FORMAT: &str = "seam-flight-recording";
/// The version that is written, and the highest that is read.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    Header(Header),
    Call(Call),
    Open(Open),
    Message(Message),
    Dropped(Dropped),
    Footer(Footer),
}

/// The first line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Header {
    pub format: String,
    pub version: u32,
    /// RFC 3339; every offset counts from here.
    pub started: String,
    pub recorder: String,
    pub target: Target,
}

/// Who answers, in the words of its `Version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    pub runtime_name: String,
    pub runtime_version: String,
    pub runtime_api_version: String,
}

/// A call that has ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    pub seq: u64,
    pub method: String,
    pub start_ns: u64,
    pub took_ns: u64,
    /// What the client allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The name of the gRPC code; none when the call was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Who ended it before it had a status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    #[serde(skip_serializing_if = "Content::is_empty")]
    pub request: Content,
    #[serde(skip_serializing_if = "Content::is_empty")]
    pub response: Content,
    /// Messages answered, and the bytes of all of them.
    pub responses: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// Who cut a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// The client cancelled it, or went away.
    Client,
    /// The target's connection broke.
    Target,
    /// The recording ended first.
    Recorder,
}

/// A message, as far as it may be told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The bytes of a message whose form isn't known, where the operator asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Why there is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// How many values were replaced, and how many fields were not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub redacted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown_fields: u64,
}

impl Content {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A call that answers a stream has begun.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Open {
    pub seq: u64,
    pub method: String,
    pub start_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    pub request: Content,
    pub request_bytes: u64,
}

/// One message of a stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    pub seq: u64,
    pub at_ns: u64,
    pub response: Content,
    pub response_bytes: u64,
}

/// What could not be recorded up to here, since the last such line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// Lines that are missing, and the bytes of their messages.
    pub lines: u64,
    pub bytes: u64,
}

/// The last line of a recording that ended in order.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Footer {
    pub ended_ns: u64,
    pub calls: u64,
    pub dropped: Dropped,
}

/// The gRPC codes by name, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A code as gRPC's specification writes it.
pub fn code_name(code: tonic::Code) -> &'static str {
    CODES[code as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_names() {
        assert_eq!(code_name(tonic::Code::Ok), "OK");
        assert_eq!(code_name(tonic::Code::NotFound), "NOT_FOUND");
        assert_eq!(code_name(tonic::Code::Unauthenticated), "UNAUTHENTICATED");
    }

    #[test]
    fn a_line_says_its_kind_and_no_more_than_it_has() {
        let call = Call { seq: 7, method: "/a/B".into(), code: Some("OK".into()), ..Default::default() };
        let text = serde_json::to_string(&Line::Call(call)).unwrap();
        assert!(text.starts_with(r#"{"kind":"call","seq":7,"method":"/a/B","#), "{text}");
        assert!(!text.contains("request\":") && !text.contains("cut"), "{text}");
        // What a later version adds is read over.
        let line = r#"{"kind":"call","seq":7,"cut":"client","colour":"red"}"#;
        let Line::Call(call) = serde_json::from_str(line).unwrap() else { panic!("not a call") };
        assert_eq!((call.seq, call.cut), (7, Some(Cut::Client)));
    }
}
