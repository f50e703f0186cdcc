//! What filters can look at in an event: `namespace`, `topic`, and `event.` with the fields of the message itself.
//!
//! The messages that this program knows are read by their descriptors: text fields, fields of nested messages, and
//! maps of text (`event.labels."a/b"`). An event of another type has no `event.` fields.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::Event;
use crate::domain::filter::Fields;

impl Fields for Event {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["namespace"] => Some(self.ns.as_str().into()),
            ["topic"] => Some(self.topic.as_str().into()),
            ["event", rest @ ..] => find(name(&self.payload.type_url), &self.payload.value, rest).map(Cow::Owned),
            _ => None,
        }
    }
}

fn name(type_url: &str) -> &str {
    type_url.strip_prefix("type.googleapis.com/").unwrap_or(type_url)
}

/// The fields of one message type, by name.
type Shape = HashMap<String, (u32, Kind)>;

enum Kind {
    Text,
    Message(String),
    TextMap,
}

/// All message types, by full name.
static SHAPES: LazyLock<HashMap<String, Shape>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(shared_proto::DESCRIPTORS).expect("our own descriptors");
    let mut shapes = HashMap::new();
    for file in &set.file {
        for message in &file.message_type {
            add(&mut shapes, file.package(), message);
        }
    }
    shapes
});

fn add(shapes: &mut HashMap<String, Shape>, prefix: &str, message: &DescriptorProto) {
    let full = format!("{prefix}.{}", message.name());
    let text_maps: Vec<String> = message
        .nested_type
        .iter()
        .filter(|nested| nested.options.as_ref().is_some_and(|o| o.map_entry()))
        .filter(|nested| nested.field.iter().all(|f| f.r#type() == Type::String))
        .map(|nested| format!(".{full}.{}", nested.name()))
        .collect();
    let fields = message.field.iter().filter_map(|field| {
        let kind = match field.r#type() {
            Type::String => Kind::Text,
            Type::Message if text_maps.iter().any(|map| map == field.type_name()) => Kind::TextMap,
            Type::Message => Kind::Message(field.type_name().trim_start_matches('.').to_owned()),
            _ => return None,
        };
        Some((field.name().to_owned(), (u32::try_from(field.number()).ok()?, kind)))
    });
    shapes.insert(full.clone(), fields.collect());
    for nested in &message.nested_type {
        add(shapes, &full, nested);
    }
}

/// The text at `path` of an encoded message.
fn find(type_name: &str, value: &[u8], path: &[&str]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let (number, kind) = SHAPES.get(type_name)?.get(*first)?;
    let mut occurrences = occurrences(value, *number).into_iter();
    match kind {
        Kind::Text if rest.is_empty() => String::from_utf8(occurrences.next_back()?.to_vec()).ok(),
        Kind::Text => None,
        Kind::Message(inner) => find(inner, occurrences.next_back()?, rest),
        Kind::TextMap => {
            let key = rest.join(".");
            let text = |entry: &[u8], number| {
                Some(String::from_utf8_lossy(self::occurrences(entry, number).pop()?).into_owned())
            };
            let entry = occurrences.rfind(|entry| text(entry, 1).unwrap_or_default() == key)?;
            text(entry, 2)
        }
    }
}

/// The bytes of a length-delimited field, as often as it occurs. Malformed data ends the list.
fn occurrences(mut value: &[u8], wanted: u32) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while value.has_remaining() {
        let Ok((number, wire)) = decode_key(&mut value) else { break };
        if number == wanted && wire == WireType::LengthDelimited {
            let Ok(length) = decode_varint(&mut value) else { break };
            let Some((bytes, rest)) = usize::try_from(length).ok().and_then(|n| value.split_at_checked(n)) else {
                break;
            };
            found.push(bytes);
            value = rest;
        } else if skip_field(wire, number, &mut value, DecodeContext::default()).is_err() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use prost::Name;
    use shared_proto::containerd::events::{ContainerCreate, TaskExit, container_create};

    use super::*;
    use crate::domain::{Filters, Payload};

    fn event<M: Name>(message: &M) -> Event {
        let payload = Payload { type_url: M::full_name(), value: message.encode_to_vec() };
        Event { at: SystemTime::now(), ns: "moby".into(), topic: "/tasks/exit".into(), payload }
    }

    fn passes(filter: &str, event: &Event) -> bool {
        Filters::parse(&[filter]).unwrap().matches(event)
    }

    #[test]
    fn fields_of_the_envelope_and_of_the_message() {
        let exit = event(&TaskExit { container_id: "c1".into(), id: "e1".into(), pid: 7, ..Default::default() });
        assert!(passes("namespace==moby,topic~=|^/tasks/|", &exit));
        assert!(!passes("namespace==default", &exit));
        assert!(passes("event.container_id==c1,event.id==e1", &exit));
        assert!(!passes("event.container_id==c2", &exit) && !passes("event.nothing", &exit));
        let runtime = container_create::Runtime { name: "runc".into(), options: None };
        let create = event(&ContainerCreate { id: "c".into(), runtime: Some(runtime), ..Default::default() });
        assert!(passes("event.runtime.name==runc", &create));
    }

    #[test]
    fn foreign_and_malformed_events_have_no_fields() {
        let mut exit = event(&TaskExit { container_id: "c1".into(), ..Default::default() });
        exit.payload.value.truncate(2);
        assert!(!passes("event.container_id", &exit));
        exit.payload.type_url = "example.Thing".into();
        assert!(!passes("event.container_id", &exit) && passes("topic==/tasks/exit", &exit));
    }
}
