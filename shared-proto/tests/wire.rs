//! Holds the compiled `.proto` files against the wire tables in `wire/`: names, numbers, types, methods.
//!
//! The tables are facts about containerd 2.4 and CRI 0.36 / 0.20. A field that is missing, renumbered or of another
//! type would be read as something else by a client that nobody here wrote.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Everything that a file set or a table says, one line a fact, keyed by what it is about.
type Facts = BTreeMap<String, String>;

fn descriptors(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Facts {
    let set = FileDescriptorSet::decode(bytes).unwrap();
    let mut facts = Facts::new();
    for file in set.file.iter().filter(|f| wanted(f.package())) {
        file_facts(file, &mut facts);
    }
    facts
}

fn file_facts(file: &FileDescriptorProto, facts: &mut Facts) {
    let package = file.package();
    for service in &file.service {
        for m in &service.method {
            let stream = |on: bool| if on { "stream " } else { "" };
            let (input, output) = (short(m.input_type(), package), short(m.output_type(), package));
            facts.insert(
                format!("rpc {package}.{}.{}", service.name(), m.name()),
                format!("{}{input} -> {}{output}", stream(m.client_streaming()), stream(m.server_streaming())),
            );
        }
    }
    for message in &file.message_type {
        message_facts(message, package, package, facts);
    }
    for e in &file.enum_type {
        enum_facts(e, package, facts);
    }
}

fn message_facts(message: &DescriptorProto, scope: &str, package: &str, facts: &mut Facts) {
    let name = format!("{scope}.{}", message.name());
    facts.insert(format!("message {name}"), String::new());
    for field in &message.field {
        facts.insert(format!("field {name} #{}", field.number()), field_fact(field, message, package));
    }
    for nested in message.nested_type.iter().filter(|n| !is_map(n)) {
        message_facts(nested, &name, package, facts);
    }
    for e in &message.enum_type {
        enum_facts(e, &name, facts);
    }
}

fn enum_facts(e: &EnumDescriptorProto, scope: &str, facts: &mut Facts) {
    for value in &e.value {
        facts.insert(format!("enum {scope}.{}.{}", e.name(), value.name()), value.number().to_string());
    }
}

fn field_fact(field: &FieldDescriptorProto, message: &DescriptorProto, package: &str) -> String {
    let optional = if field.proto3_optional() { " ?" } else { "" };
    let entry =
        message.nested_type.iter().find(|n| is_map(n) && field.type_name().ends_with(&format!(".{}", n.name())));
    if let Some(entry) = entry {
        let value = type_name(&entry.field[1], package);
        return format!("{} map<{},{value}>", field.name(), type_name(&entry.field[0], package));
    }
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    format!("{} {repeated}{}{optional}", field.name(), type_name(field, package))
}

fn is_map(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|o| o.map_entry())
}

fn type_name(field: &FieldDescriptorProto, package: &str) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name(), package),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

/// A type's name as the tables write it: without its package when that is the file's own.
fn short(full: &str, package: &str) -> String {
    let full = full.trim_start_matches('.');
    full.strip_prefix(&format!("{package}.")).unwrap_or(full).to_owned()
}

fn table(text: &str) -> Facts {
    let mut facts = Facts::new();
    let (mut package, mut service) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("## package ") {
            package = rest.split_whitespace().next().unwrap().to_owned();
        } else if let Some(name) = line.strip_prefix("  service ") {
            service = name.trim_end_matches(':').to_owned();
        } else if let Some(method) = line.strip_prefix("    ") {
            let (name, rest) = method.split_once('(').unwrap();
            facts.insert(format!("rpc {package}.{service}.{name}"), rest.replacen(')', "", 1));
        } else if let Some(e) = line.strip_prefix("  enum ") {
            let (name, values) = e.split_once(": ").unwrap();
            for value in values.split(", ") {
                let (value, number) = value.split_once('=').unwrap();
                facts.insert(format!("enum {package}.{name}.{value}"), number.to_owned());
            }
        } else if let Some((name, fields)) = line.strip_prefix("  ").and_then(|l| l.split_once(": ")) {
            facts.insert(format!("message {package}.{name}"), String::new());
            for field in fields.split("; ").filter(|f| *f != "(empty)") {
                let (number, rest) = field.split_once(' ').unwrap();
                let (field, kind) = rest.split_once(' ').unwrap();
                // The tables write `repeated` before or behind the type; normalise to the front.
                let kind = kind.strip_suffix(" repeated").map_or(kind.to_owned(), |k| format!("repeated {k}"));
                facts.insert(format!("field {package}.{name} #{number}"), format!("{field} {kind}"));
            }
        }
    }
    facts
}

fn assert_same(ours: &Facts, tables: &Facts) {
    assert!(tables.len() > 50, "the table was not read");
    let wrong: Vec<String> = tables
        .iter()
        .filter(|(key, value)| ours.get(*key) != Some(value))
        .map(|(key, value)| format!("{key}: table says {value:?}, proto says {:?}", ours.get(key)))
        .chain(ours.keys().filter(|key| !tables.contains_key(*key)).map(|key| format!("{key}: not in the table")))
        .collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn containerd_api() {
    let ours = descriptors(shared_proto::DESCRIPTORS, |p| {
        (p.starts_with("containerd.") && !p.starts_with("containerd.cgroups")) || p.starts_with("runtimeoptions")
    });
    assert_same(&ours, &table(include_str!("../wire/containerd.txt")));
}

#[test]
fn cgroup_metrics() {
    let ours = descriptors(shared_proto::DESCRIPTORS, |p| p.starts_with("io.containerd.cgroups."));
    assert_same(&ours, &table(include_str!("../wire/cgroup-metrics.txt")));
}

#[test]
fn cri_v1() {
    let ours = descriptors(shared_proto::DESCRIPTORS, |p| p == "runtime.v1");
    assert_same(&ours, &table(include_str!("../wire/cri-v1.txt")));
}

#[test]
fn cri_v1alpha2() {
    let ours = descriptors(shared_proto::DESCRIPTORS_V1ALPHA2, |p| p == "runtime.v1alpha2");
    assert_same(&ours, &table(include_str!("../wire/cri-v1alpha2.txt")));
}

/// What lets one server answer both versions: whatever v1alpha2 says on the wire, v1 says as well.
///
/// One field changed its type, from string to bytes. On the wire the two are the same, and every string is bytes.
#[test]
fn v1alpha2_is_a_subset_of_v1() {
    let rename = |facts: Facts| -> Facts {
        facts.into_iter().map(|(k, v)| (k.replace("runtime.v1alpha2.", "runtime.v1."), v)).collect()
    };
    let mut old = rename(descriptors(shared_proto::DESCRIPTORS_V1ALPHA2, |p| p == "runtime.v1alpha2"));
    assert_eq!(old.remove("field runtime.v1.KeyValue #2").as_deref(), Some("value string"));
    let new = descriptors(shared_proto::DESCRIPTORS, |p| p == "runtime.v1");
    let wrong: Vec<_> = old.iter().filter(|(key, value)| new.get(*key) != Some(value)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
