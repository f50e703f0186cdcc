//! What the endpoint calls the things that the recording speaks of: ids of pods and containers, and paths.
//!
//! Ids are learned from the answers that make them. Paths are mapped by prefix, as the user says, in the fields that
//! name files of the node. Both ways: requests are put into the endpoint's words, answers into the recording's.

use std::collections::HashMap;

use anyhow::bail;
use serde_json::Value;

/// The length of an id as every runtime makes them, in hexadecimal digits.
const ID: usize = 64;
/// Fields that name things of the node rather than of a container.
const NODE_PATHS: &[&str] = &[
    "log_directory",
    "host_path",
    "log_path",
    "cgroup_parent",
    "localhost_ref",
    "seccomp_profile_path",
    "location",
    "mountpoint",
];

/// The words of both sides.
#[derive(Debug, Default)]
pub struct Names {
    to_endpoint: HashMap<String, String>,
    to_recorded: HashMap<String, String>,
    paths: Vec<(String, String)>,
}

impl Names {
    /// `maps` are `OLD=NEW`; the first that fits counts.
    pub fn new(maps: &[String]) -> anyhow::Result<Self> {
        let mut paths = Vec::new();
        for map in maps {
            match map.split_once('=') {
                Some((old, new)) if old.starts_with('/') && new.starts_with('/') => {
                    let clean = |path: &str| path.trim_end_matches('/').to_owned();
                    paths.push((clean(old), clean(new)));
                }
                _ => bail!("--map {map}: it must be OLD=NEW, both of them absolute paths"),
            }
        }
        Ok(Self { paths, ..Default::default() })
    }

    /// The endpoint has made what the recording calls `recorded`.
    pub fn learn(&mut self, recorded: &str, endpoint: &str) {
        self.to_endpoint.insert(recorded.to_owned(), endpoint.to_owned());
        self.to_recorded.insert(endpoint.to_owned(), recorded.to_owned());
    }

    /// A path of the recording, where it is on this node.
    pub fn path(&self, recorded: &str) -> String {
        self.paths.iter().find_map(|(old, new)| moved(recorded, old, new)).unwrap_or_else(|| recorded.to_owned())
    }

    /// A message of the recording, for the endpoint.
    pub fn to_endpoint(&self, message: &mut Value) {
        strings(message, "", &mut |field, text| {
            if NODE_PATHS.contains(&field) {
                *text = self.path(text);
            }
            if let Some(id) = self.beginning(field, text) {
                *text = id.to_owned();
            }
            replace_ids(text, &self.to_endpoint);
        });
    }

    /// A message of the endpoint, in the words of the recording.
    pub fn to_recorded(&self, message: &mut Value) {
        strings(message, "", &mut |field, text| {
            if NODE_PATHS.contains(&field)
                && let Some(old) = self.paths.iter().find_map(|(old, new)| moved(text, new, old))
            {
                *text = old;
            }
            replace_ids(text, &self.to_recorded);
        });
    }

    /// The text of an error, in the words of the recording.
    pub fn text_to_recorded(&self, text: &str) -> String {
        let mut text = self.paths.iter().fold(text.to_owned(), |text, (old, new)| text.replace(new, old));
        replace_ids(&mut text, &self.to_recorded);
        text
    }

    /// Clients may shorten an id.
    fn beginning(&self, field: &str, text: &str) -> Option<&str> {
        if !(field == "id" || field.ends_with("_id")) || text.is_empty() || text.len() >= ID {
            return None;
        }
        let mut fitting = self.to_endpoint.iter().filter(|(recorded, _)| recorded.starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some((_, id)), None) => Some(id),
            _ => None,
        }
    }
}

/// `path` with the folder `from` replaced.
fn moved(path: &str, from: &str, to: &str) -> Option<String> {
    let rest = path.strip_prefix(from)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
}

/// Calls `change` with every string in `value` and the name of the field that it is in.
fn strings(value: &mut Value, field: &str, change: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::String(text) => change(field, text),
        Value::Array(items) => items.iter_mut().for_each(|item| strings(item, field, change)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| strings(value, name, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces `text` if it is a known id, and every known id of the usual length within it.
fn replace_ids(text: &mut String, known: &HashMap<String, String>) {
    if let Some(id) = known.get(text.as_str()) {
        text.clone_from(id);
        return;
    }
    if text.len() < ID || known.is_empty() {
        return;
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let digits = rest[start..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len() - start);
        let word = &rest[start..start + digits];
        out.push_str(&rest[..start]);
        out.push_str(known.get(word).map_or(word, String::as_str));
        rest = &rest[start + digits..];
    }
    out.push_str(rest);
    *text = out;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_go_both_ways_wherever_they_are() {
        let (mine, theirs) = ("ab".repeat(32), "cd".repeat(32));
        let mut names = Names::new(&[]).unwrap();
        names.learn(&mine, &theirs);
        names.learn("short", "brief");
        let image = format!("sha256:{}", "0".repeat(64));
        let recorded = json!({"container_id": mine, "list": [{"image": image, "x": format!("in /{mine}/ns, {mine}")}], "y": "short"});
        let mut message = recorded.clone();
        names.to_endpoint(&mut message);
        let want = json!({"container_id": theirs, "list": [{"image": image, "x": format!("in /{theirs}/ns, {theirs}")}], "y": "brief"});
        assert_eq!(message, want);
        names.to_recorded(&mut message);
        assert_eq!(message, recorded);
        assert_eq!(names.text_to_recorded(&format!("no container {theirs}")), format!("no container {mine}"));

        let mut shortened = json!({"container_id": &mine[..8], "label": &mine[..8]});
        names.to_endpoint(&mut shortened);
        assert_eq!(shortened, json!({"container_id": theirs, "label": &mine[..8]}));
    }

    #[test]
    fn paths_of_the_node_are_mapped_by_whole_folders() {
        let names = Names::new(&["/var/log/pods=/tmp/p/".into(), "/var=/other".into()]).unwrap();
        let mut message = json!({
            "log_directory": "/var/log/pods/a",
            "mounts": [{"host_path": "/var/lib", "container_path": "/var/lib"}],
            "log_path": "/variety",
        });
        let recorded = message.clone();
        names.to_endpoint(&mut message);
        let want = json!({
            "log_directory": "/tmp/p/a",
            "mounts": [{"host_path": "/other/lib", "container_path": "/var/lib"}],
            "log_path": "/variety",
        });
        assert_eq!(message, want);
        names.to_recorded(&mut message);
        assert_eq!(message, recorded);
        for wrong in ["/a", "a=/b", "/a=b"] {
            assert!(Names::new(&[wrong.into()]).unwrap_err().to_string().contains(wrong));
        }
    }
}
