//! An answer held against the recorded one: first the code, then the fields, then the reasons.

use bytes::Bytes;
use prost_reflect::DynamicMessage;
use serde_json::Value;
use tonic::{Code, Status};

use super::compare::{self, Difference};
use super::known::{CODE, Case, TEXT, explain};
use super::recording::Recorded;
use super::session::{Found, Session, locked};
use crate::recorder::format::code_name;
use crate::recorder::messages::{self, Method};
use crate::recorder::raw::Answer;
use crate::recorder::redact::redact;

impl Session {
    /// Where an answer differs from the recorded one.
    pub(super) fn judged(&self, recorded: &Recorded, method: Option<&Method>, answer: &Answer) -> Vec<Difference> {
        let call = &recorded.call;
        let (code, text) = match &answer.status {
            Ok(()) => (Code::Ok, ""),
            Err(status) => (status.code(), status.message()),
        };
        let text = locked(&self.names).text_to_recorded(text);
        let recorded_code = call.code.as_deref().unwrap_or_default();
        if recorded_code != code_name(code) {
            return vec![whole(CODE, said(recorded_code, &call.message), said(code_name(code), &text))];
        }
        if code != Code::Ok {
            return if call.message == text { Vec::new() } else { vec![whole(TEXT, call.message.clone(), text)] };
        }
        let Some(method) = method else { return Vec::new() };
        let theirs: Option<Vec<Value>> = match method.streams {
            true => recorded.messages.iter().map(|message| message.response.json.clone()).collect(),
            false => call.response.json.clone().map(|json| vec![json]),
        };
        let ours: Option<Vec<Value>> =
            answer.messages.iter().map(|message| self.in_our_words(method, message)).collect();
        match (theirs, ours) {
            (Some(theirs), Some(ours)) => compare::differences(&merged(theirs), &merged(ours)),
            // One of them is withheld.
            _ => Vec::new(),
        }
    }

    fn in_our_words(&self, method: &Method, message: &Bytes) -> Option<Value> {
        let mut json = told(method, message)?;
        locked(&self.names).to_recorded(&mut json);
        Some(json)
    }

    /// The events of the recording that have not come again, whatever their order and however many more have come.
    pub(super) fn watched(
        &self,
        recorded: &Recorded,
        method: Option<&Method>,
        messages: &[Bytes],
        refused: Option<&Status>,
    ) -> Vec<Difference> {
        if let Some(status) = refused {
            return vec![whole(CODE, "a stream".into(), said(code_name(status.code()), status.message()))];
        }
        let key = |json: &Value| -> Option<(String, String)> {
            let text = |field: &str| json.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            Some((text("container_id"), text("container_event_type"))).filter(|(id, _)| self.facts.made(id))
        };
        let mut came: Vec<_> =
            messages.iter().filter_map(|message| key(&self.in_our_words(method?, message)?)).collect();
        let mut missing = Vec::new();
        for (id, event) in recorded.messages.iter().filter_map(|message| key(message.response.json.as_ref()?)) {
            match came.iter().position(|(other, of)| (other, of) == (&id, &event)) {
                Some(at) => drop(came.swap_remove(at)),
                None => missing.push(Difference {
                    path: format!("events[{}]", compare::shortened(&id)),
                    // The first value of the enum is not written.
                    recorded: Some(if event.is_empty() { "CONTAINER_CREATED_EVENT".into() } else { event.into() }),
                    object: Some(id),
                    replayed: None,
                }),
            }
        }
        missing
    }

    pub(super) fn explained(
        &self,
        recorded: &Recorded,
        found: Vec<Difference>,
        without_credentials: bool,
    ) -> Vec<Found> {
        let failed = locked(&self.failed).clone();
        let reason = |difference: &Difference| {
            explain(&Case {
                recorded,
                difference,
                facts: &self.facts,
                same_runtime: self.same_runtime,
                images: &self.images,
                without_credentials,
                failed: &failed,
            })
        };
        found.into_iter().map(|difference| Found { known: reason(&difference), difference }).collect()
    }
}

/// A difference of the answer as a whole.
pub(super) fn whole(path: &str, recorded: String, replayed: String) -> Difference {
    Difference { path: path.into(), object: None, recorded: Some(recorded.into()), replayed: Some(replayed.into()) }
}

/// A status in one line.
fn said(code: &str, text: &str) -> String {
    if text.is_empty() { code.to_owned() } else { format!("{code}: {text}") }
}

/// A message as the recorder would tell it.
pub(super) fn told(method: &Method, message: &Bytes) -> Option<Value> {
    let mut message = DynamicMessage::decode(method.response.clone(), message.clone()).ok()?;
    redact(&mut message);
    messages::to_json(&message).ok()
}

/// The messages of a stream as one: their lists one after another.
fn merged(messages: Vec<Value>) -> Value {
    let mut whole = serde_json::Map::new();
    for message in messages {
        let Value::Object(fields) = message else { continue };
        for (name, value) in fields {
            match (whole.get_mut(&name), value) {
                (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
                (_, value) => drop(whole.insert(name, value)),
            }
        }
    }
    Value::Object(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_parts_of_a_list_are_one_list() {
        let parts = vec![json!({"items": [1, 2], "more": "a"}), json!({"items": [3]}), json!({})];
        assert_eq!(merged(parts), json!({"items": [1, 2, 3], "more": "a"}));
        assert_eq!(said("NOT_FOUND", "no x"), "NOT_FOUND: no x");
    }
}
