//! Objects of one namespace, and what keeps what: nodes, edges, and the walk from the roots.

use std::collections::{HashMap, HashSet};

use super::mark::PREFIX;
use crate::domain::Labels;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    Content(String),
    /// Snapshotter and name.
    Snapshot(String, String),
    Image(String),
    Ingest(String),
    Container(String),
}

/// The objects of one namespace and what they name.
#[derive(Default)]
pub(super) struct Graph {
    /// Those that are kept for their own sake. The flag: only what they can't be without.
    pub roots: Vec<(Node, bool)>,
    /// What an object can't be without.
    pub parts: HashMap<Node, Vec<Node>>,
    /// What its labels name.
    references: HashMap<Node, Vec<Node>>,
    /// Who attached itself to it.
    attached: HashMap<Node, Vec<Node>>,
}

pub(super) fn resource(kind: &str, id: String) -> Option<Node> {
    match kind {
        "content" => Some(Node::Content(id)),
        "images" => Some(Node::Image(id)),
        "ingests" => Some(Node::Ingest(id)),
        other => other.strip_prefix("snapshots/").map(|snapshotter| Node::Snapshot(snapshotter.to_owned(), id)),
    }
}

/// The object in a reference: `kind` is what stands between `gc.ref.` or `gc.bref.` and the label's end.
fn reference(kind: &str, value: &str) -> Option<Node> {
    let names = |kind: &str, wanted: &str| {
        kind.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    };
    if let Some(rest) = kind.strip_prefix("snapshot.") {
        let snapshotter = rest.split('/').next().unwrap_or_default();
        return Some(Node::Snapshot(snapshotter.to_owned(), value.to_owned()));
    }
    let value = value.to_owned();
    match kind {
        _ if names(kind, "content") => Some(Node::Content(value)),
        _ if names(kind, "image") => Some(Node::Image(value)),
        _ if names(kind, "container") => Some(Node::Container(value)),
        _ => None,
    }
}

/// What the labels name.
pub(super) fn named(labels: &Labels) -> impl Iterator<Item = Node> {
    labels.iter().filter_map(|(key, value)| reference(key.strip_prefix(PREFIX)?.strip_prefix("ref.")?, value))
}

impl Graph {
    pub fn add_labels(&mut self, node: &Node, labels: &Labels) {
        for (key, value) in labels {
            let key = &key[PREFIX.len()..];
            if key.starts_with("root") {
                self.roots.push((node.clone(), false));
            } else if let Some(target) = key.strip_prefix("ref.").and_then(|kind| reference(kind, value)) {
                self.references.entry(node.clone()).or_default().push(target);
            } else if let Some(host) = key.strip_prefix("bref.").and_then(|kind| reference(kind, value)) {
                self.attached.entry(host).or_default().push(node.clone());
            }
        }
    }

    /// Everything that the roots keep.
    pub fn needed(&mut self) -> HashSet<Node> {
        let mut open = std::mem::take(&mut self.roots);
        let (mut full, mut flat) = (HashSet::new(), HashSet::new());
        while let Some((node, only_parts)) = open.pop() {
            if full.contains(&node) || only_parts && flat.contains(&node) {
                continue;
            }
            let list = |of: &HashMap<Node, Vec<Node>>| of.get(&node).cloned().unwrap_or_default();
            open.extend(list(&self.parts).into_iter().map(|part| (part, only_parts)));
            if only_parts {
                flat.insert(node);
            } else {
                open.extend(list(&self.references).into_iter().map(|named| (named, false)));
                open.extend(list(&self.attached).into_iter().map(|guest| (guest, false)));
                full.insert(node);
            }
        }
        full.extend(flat);
        full
    }
}
