//! Decodes a protobuf message by its descriptor, into JSON with the names of the `.proto` files.
//!
//! The descriptors are those that the code was generated from. Fields that have their default are not on the wire and
//! so not in the result; fields that the descriptors don't know are left out. Limits: no groups, which nobody here has.

use std::collections::HashMap;
use std::sync::OnceLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};
use shared_proto::DESCRIPTORS;

use super::opaque;

/// Messages may lie so deep in one another.
const DEPTH: usize = 32;

/// The message; `None` when its name is not known or the bytes are none of it.
pub fn decode(name: &str, bytes: &[u8]) -> Option<Value> {
    message(name, bytes, DEPTH)
}

/// Descriptors by full name, with the dot in front that references to them have.
struct Types {
    messages: HashMap<String, DescriptorProto>,
    enums: HashMap<String, EnumDescriptorProto>,
}

fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(|| {
        let mut types = Types { messages: HashMap::new(), enums: HashMap::new() };
        // The build has written them: they are whole.
        for file in FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file {
            let scope = format!(".{}", file.package());
            types.add(&scope, file.message_type, file.enum_type);
        }
        types
    })
}

impl Types {
    fn add(&mut self, scope: &str, messages: Vec<DescriptorProto>, enums: Vec<EnumDescriptorProto>) {
        for one in enums {
            self.enums.insert(format!("{scope}.{}", one.name()), one);
        }
        for mut one in messages {
            let name = format!("{scope}.{}", one.name());
            let (nested, enums) = (std::mem::take(&mut one.nested_type), std::mem::take(&mut one.enum_type));
            self.add(&name, nested, enums);
            self.messages.insert(name, one);
        }
    }
}

/// What stands on the wire for a field.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    match name {
        "google.protobuf.Empty" => return Some(json!({})),
        "google.protobuf.Any" => return any(bytes, depth),
        _ => {}
    }
    let kind = types().messages.get(&format!(".{name}"))?;
    let mut fields = Map::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, wire) = next(&mut rest)?;
        let Some(field) = kind.field.iter().find(|field| field.number() == number) else { continue };
        put(&mut fields, field, wire, depth)?;
    }
    Some(Value::Object(fields))
}

/// The next field of a message.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(i32, Wire<'a>)> {
    let key = varint(rest)?;
    let wire = match key & 7 {
        0 => Wire::Number(varint(rest)?),
        1 => Wire::Number(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => Wire::Number(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?).into()),
        _ => return None,
    };
    Some((i32::try_from(key >> 3).ok()?, wire))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn put(fields: &mut Map<String, Value>, field: &FieldDescriptorProto, wire: Wire, depth: usize) -> Option<()> {
    let name = field.name().to_owned();
    if field.label() != Label::Repeated {
        fields.insert(name, value(field, wire, depth)?);
        return Some(());
    }
    let kind = types().messages.get(field.type_name());
    if kind.and_then(|kind| kind.options.as_ref()).is_some_and(|options| options.map_entry()) {
        let entry = value(field, wire, depth)?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let key = entry.get("key").map(text).unwrap_or_default();
        let map = fields.entry(name).or_insert_with(|| json!({})).as_object_mut()?;
        map.insert(key, entry.get("value").cloned().unwrap_or_else(|| json!("")));
        return Some(());
    }
    let list = fields.entry(name).or_insert_with(|| json!([])).as_array_mut()?;
    match (wire, field.r#type()) {
        (Wire::Bytes(packed), kind) if !matches!(kind, Type::String | Type::Bytes | Type::Message) => {
            let mut rest = packed;
            while !rest.is_empty() {
                let number = match kind {
                    Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                        u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?)
                    }
                    Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                        u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?).into()
                    }
                    _ => varint(&mut rest)?,
                };
                list.push(value(field, Wire::Number(number), depth)?);
            }
        }
        (wire, _) => list.push(value(field, wire, depth)?),
    }
    Some(())
}

fn value(field: &FieldDescriptorProto, wire: Wire, depth: usize) -> Option<Value> {
    let name = field.type_name();
    Some(match (field.r#type(), wire) {
        (Type::String, Wire::Bytes(bytes)) => json!(String::from_utf8_lossy(bytes)),
        (Type::Bytes, Wire::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => opaque(bytes.len()),
        },
        (Type::Message, Wire::Bytes(bytes)) => {
            message(name.trim_start_matches('.'), bytes, depth).unwrap_or_else(|| opaque(bytes.len()))
        }
        (Type::Enum, Wire::Number(number)) => {
            let values = types().enums.get(name).map(|one| one.value.as_slice()).unwrap_or_default();
            let known = values.iter().find(|value| i64::from(value.number()) == number.cast_signed());
            known.map_or_else(|| json!(number), |value| json!(value.name()))
        }
        (Type::Bool, Wire::Number(number)) => json!(number != 0),
        (Type::Double, Wire::Number(number)) => json!(f64::from_bits(number)),
        (Type::Float, Wire::Number(number)) => json!(f32::from_bits(number as u32)),
        (Type::Sint32 | Type::Sint64, Wire::Number(number)) => {
            json!((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
        }
        (Type::Sfixed32, Wire::Number(number)) => json!((number as u32).cast_signed()),
        (Type::Int32 | Type::Int64 | Type::Sfixed64, Wire::Number(number)) => json!(number.cast_signed()),
        (_, Wire::Number(number)) => json!(number),
        (_, Wire::Bytes(_)) => return None,
    })
}

/// What an `Any` holds: a message that is known, or JSON, or something else.
fn any(bytes: &[u8], depth: usize) -> Option<Value> {
    let any = prost_types::Any::decode(bytes).ok()?;
    let name = shared_proto::any::name(&any);
    let held = message(name, &any.value, depth).or_else(|| serde_json::from_slice(&any.value).ok());
    Some(json!({ "@type": any.type_url, "value": held.unwrap_or_else(|| opaque(any.value.len())) }))
}

#[cfg(test)]
mod tests {
    use prost::Name;
    use shared_proto::containerd::{containers, tasks, types as pb};
    use shared_proto::cri::v1;
    use shared_proto::{any, containerd::runc};

    use super::*;

    fn decoded<M: Name>(message: &M) -> Value {
        decode(&M::full_name(), &message.encode_to_vec()).unwrap()
    }

    #[test]
    fn fields_have_the_names_and_kinds_of_the_proto_files() {
        let security = v1::LinuxContainerSecurityContext {
            run_as_user: Some(v1::Int64Value { value: -5 }),
            supplemental_groups: vec![1, 300],
            namespace_options: Some(v1::NamespaceOption {
                pid: v1::NamespaceMode::Container.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let config = v1::ContainerConfig {
            labels: [("app".to_owned(), "web".to_owned()), ("empty".to_owned(), String::new())].into(),
            tty: true,
            linux: Some(v1::LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
            ..Default::default()
        };
        let security = json!({
            "run_as_user": {"value": -5}, "supplemental_groups": [1, 300], "namespace_options": {"pid": "CONTAINER"},
        });
        let expected = json!({
            "labels": {"app": "web", "empty": ""}, "tty": true, "linux": {"security_context": security},
        });
        assert_eq!(decoded(&config), expected);
        let mounts = vec![pb::Mount { r#type: "overlay".into(), options: vec!["ro".into()], ..Default::default() }];
        let create = tasks::CreateTaskRequest { container_id: "ab".into(), rootfs: mounts, ..Default::default() };
        let expected = json!({"container_id": "ab", "rootfs": [{"type": "overlay", "options": ["ro"]}]});
        assert_eq!(decoded(&create), expected);
    }

    #[test]
    fn what_an_any_holds_is_decoded() {
        let options = runc::Options { binary_name: "crun".into(), ..Default::default() };
        let container = containers::Container {
            spec: Some(any::raw(any::SPEC, br#"{"ociVersion":"1.1.0"}"#)),
            runtime: Some(containers::container::Runtime { name: "r".into(), options: Some(any::pack(&options)) }),
            extensions: [("odd".to_owned(), any::raw("odd", [1, 2]))].into(),
            ..Default::default()
        };
        let seen = decoded(&container);
        assert_eq!(seen["spec"]["value"]["ociVersion"], "1.1.0");
        assert_eq!(seen["runtime"]["options"]["value"]["binary_name"], "crun");
        assert_eq!(seen["extensions"]["odd"]["value"], "2 bytes");
        assert_eq!(decoded(&()), json!({}));
    }

    #[test]
    fn bytes_that_are_no_message_are_told_apart() {
        assert_eq!(decode("runtime.v1.ContainerConfig", b"\x0a\xff"), None);
        assert_eq!(decode("no.such.Message", b""), None);
    }
}
