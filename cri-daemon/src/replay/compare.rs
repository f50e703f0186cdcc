//! Where two answers differ, after everything that must differ is left out.
//!
//! Ids and paths were put into the recording's words before (see [`super::ids`]). Lists are compared by what their items
//! are called, in any order: CRI promises none. The table of [`rule`] says what is compared of a field.

use std::collections::BTreeMap;

use serde_json::Value;

/// One place where the answers differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Such as `containers[0123456789ab].state`.
    pub path: String,
    /// The id of the innermost pod, container or image that it is about.
    pub object: Option<String>,
    pub recorded: Option<Value>,
    pub replayed: Option<Value>,
}

impl Difference {
    /// The name of the field that differs.
    pub fn field(&self) -> &str {
        field_of(&self.path)
    }
}

/// What is compared of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// All of it.
    Value,
    /// Whether it is there: its value is another one in each run.
    Presence,
    /// Nothing: it comes and goes.
    Nothing,
    /// An address: of which family it is.
    Family,
    /// The address of a stream: all but its host and port.
    Stream,
}

fn rule(field: &str) -> Rule {
    match field {
        // Times.
        "created_at" | "started_at" | "finished_at" | "timestamp" => Rule::Presence,
        // What was used.
        "usage_core_nano_seconds"
        | "working_set_bytes"
        | "available_bytes"
        | "usage_bytes"
        | "rss_bytes"
        | "page_faults"
        | "major_page_faults"
        | "used_bytes"
        | "inodes_used"
        | "rx_bytes"
        | "rx_errors"
        | "tx_bytes"
        | "tx_errors"
        | "process_count"
        | "swap_available_bytes"
        | "swap_usage_bytes"
        | "psi" => Rule::Presence,
        // Needs two looks at the same thing, some time apart.
        "usage_nano_cores" => Rule::Nothing,
        // The runtime's own folders, and what it tells people.
        "mountpoint" | "info" => Rule::Presence,
        "ip" => Rule::Family,
        "url" => Rule::Stream,
        _ => Rule::Value,
    }
}

/// What counts of a value in this field; equal for values that may differ.
pub fn counts(field: &str, value: Option<&Value>) -> Option<Value> {
    let present = |value: Option<&Value>| value.map(|_| Value::Bool(true));
    let text = value.and_then(Value::as_str);
    match rule(field) {
        Rule::Value => value.cloned(),
        Rule::Presence => present(value),
        Rule::Nothing => None,
        Rule::Family => {
            text.map(|ip| Value::from(if ip.contains(':') { "an IPv6 address" } else { "an IPv4 address" }))
        }
        Rule::Stream => text.map(|url| {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let path = rest.find('/').map_or("", |at| &rest[at..]);
            Value::from(format!("{scheme}://HOST{path}"))
        }),
    }
}

/// Whether an object is a message whose fields have the meanings of [`rule`].
fn is_message(field: &str) -> bool {
    rule(field) == Rule::Value && !matches!(field, "labels" | "annotations")
}

fn field_of(path: &str) -> &str {
    let list = path.strip_suffix(']').and_then(|path| path.rsplit_once('['));
    let path = list.map_or(path, |(list, _)| list);
    path.rsplit('.').next().unwrap_or(path)
}

/// The differences between two answers.
pub fn differences(recorded: &Value, replayed: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut found, String::new(), None, Some(recorded), Some(replayed));
    found
}

fn compare(
    found: &mut Vec<Difference>,
    path: String,
    object: Option<&str>,
    recorded: Option<&Value>,
    replayed: Option<&Value>,
) {
    match (recorded, replayed) {
        (Some(Value::Object(a)), Some(Value::Object(b))) if is_message(field_of(&path)) => {
            let object =
                name(recorded.expect("matched")).filter(|_| a.contains_key("id")).or(object.map(str::to_owned));
            let fields: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for field in fields {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                compare(found, path, object.as_deref(), a.get(field), b.get(field));
            }
        }
        // What has its default value is left out: an empty list and none are the same.
        (Some(Value::Array(a)), b @ (Some(Value::Array(_)) | None)) => {
            let b = b.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            lists(found, &path, object, a, b);
        }
        (None, Some(Value::Array(b))) => lists(found, &path, object, &[], b),
        _ if counts(field_of(&path), recorded) == counts(field_of(&path), replayed) => {}
        _ => {
            let (object, recorded, replayed) = (object.map(str::to_owned), recorded.cloned(), replayed.cloned());
            found.push(Difference { path, object, recorded, replayed });
        }
    }
}

fn lists(found: &mut Vec<Difference>, path: &str, object: Option<&str>, a: &[Value], b: &[Value]) {
    let by_name = |items: &[Value]| -> BTreeMap<String, Value> {
        let mut named = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            let own = name(item).unwrap_or_else(|| at.to_string());
            // Two of one name are told apart by their number.
            let key = if named.contains_key(&own) { format!("{own}#{at}") } else { own };
            named.insert(key, item.clone());
        }
        named
    };
    let (a, b) = (by_name(a), by_name(b));
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for name in names {
        let path = format!("{path}[{}]", shortened(name));
        let item = a.get(name).or(b.get(name));
        let object = if item.is_some_and(|item| item.get("id").is_some() || item.get("attributes").is_some()) {
            Some(name.as_str())
        } else {
            object
        };
        compare(found, path, object, a.get(name), b.get(name));
    }
}

/// What an item of a list is called: by its id, or what stands for one. Texts are called what they are.
fn name(item: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(text) = text(item) {
        return Some(text);
    }
    let fields = ["id", "container_id", "pod_sandbox_id", "type", "container_path", "key", "name"];
    fields.iter().find_map(|field| item.get(field).and_then(text)).or_else(|| item.get("attributes").and_then(name))
}

/// An id as people write it.
pub fn shortened(id: &str) -> &str {
    let (kind, digits) =
        id.split_once(':').filter(|(kind, _)| *kind == "sha256").map_or((0, id), |(k, d)| (k.len() + 1, d));
    match digits.len() >= 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => &id[..kind + 12],
        false => id,
    }
}

#[cfg(test)]
mod tests;
