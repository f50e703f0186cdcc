//! Messages for people: decoded to JSON by their descriptors ([`proto`]), without secrets ([`redact`]).
//!
//! They are kept as they were sent, and decoded only when somebody asks. What can't be decoded is told by its size.

mod proto;
mod redact;

use serde_json::{Value, json};
use shared_proto::seam::v1::{Exchange, Message, Shown};
use shared_proto::seam::{COMMAND, JSON};

/// A message and its answer; `None` when neither was kept.
pub fn exchange(sent: Option<&Message>, received: Option<&Message>) -> Option<Exchange> {
    let (sent, received) = (sent.map(shown), received.map(shown));
    (sent.is_some() || received.is_some()).then_some(Exchange { sent, received })
}

pub fn shown(message: &Message) -> Shown {
    let bytes = message.value.len();
    let text = match message.r#type.as_str() {
        COMMAND => words(&message.value).join(" "),
        kind => {
            let decoded = match kind {
                JSON => serde_json::from_slice(&message.value).ok(),
                name => proto::decode(name, &message.value),
            };
            redact::redacted(decoded.unwrap_or_else(|| opaque(bytes))).to_string()
        }
    };
    Shown { r#type: message.r#type.clone(), text, bytes: bytes as u64 }
}

fn words(command: &[u8]) -> Vec<String> {
    let words = command.strip_suffix(b"\0").unwrap_or(command).split(|b| *b == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// In place of what has no meaning here.
fn opaque(bytes: usize) -> Value {
    json!(format!("{bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use shared_proto::cri::v1;

    use super::*;

    #[test]
    fn a_message_is_shown_without_its_secrets_and_a_command_by_its_words() {
        let envs = vec![v1::KeyValue { key: "TOKEN".into(), value: b"hunter2".to_vec() }];
        let config = Some(v1::ContainerConfig { envs, ..Default::default() });
        let request = v1::CreateContainerRequest { pod_sandbox_id: "ab".into(), config, ..Default::default() };
        let seen = shown(&Message::of(&request));
        assert_eq!(seen.r#type, "runtime.v1.CreateContainerRequest");
        assert!(seen.text.contains("TOKEN") && !seen.text.contains("hunter2"), "{}", seen.text);
        assert!(seen.bytes > 10);
        let command = Message::command(["shim", "-id", "ab", "start"].map(OsStr::new));
        assert_eq!(shown(&command).text, "shim -id ab start");
        assert_eq!(shown(&Message { r#type: "no.such.Message".into(), value: vec![0; 3] }).text, "\"3 bytes\"");
        assert_eq!(shown(&Message::json("{")).text, "\"1 bytes\"");
        assert!(exchange(None, None).is_none());
    }
}
