//! Labels: free key-value pairs on almost every object. Key and value together have at most 4096 bytes (containerd's
//! limit), all labels of an object at most 1 MiB.

use std::collections::BTreeMap;

use super::Invalid;

/// Labels in key order.
pub type Labels = BTreeMap<String, String>;

/// The longest label, bytes of key and value.
pub const MAX_LABEL: usize = 4096;

/// The most bytes of all labels of one object.
pub const MAX_LABELS: usize = 1 << 20;

/// Refuses labels that are too long or have no key.
pub fn check(labels: &Labels) -> Result<(), Invalid> {
    if labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_LABELS {
        return Err(Invalid(format!("labels have more than {MAX_LABELS} bytes")));
    }
    for (key, value) in labels {
        if key.is_empty() {
            return Err(Invalid("a label must have a key".into()));
        }
        if key.len() + value.len() > MAX_LABEL {
            let shown: String = key.chars().take(64).collect();
            return Err(Invalid(format!("label {shown:?} is longer than {MAX_LABEL} bytes (key and value)")));
        }
    }
    Ok(())
}

/// Removes labels with an empty value: such a label does not exist, as in containerd.
pub fn drop_empty(labels: &mut Labels) {
    labels.retain(|_, value| !value.is_empty());
}

/// Sets the labels in `changes`; an empty value deletes.
pub fn merge(labels: &mut Labels, changes: Labels) {
    labels.extend(changes);
    drop_empty(labels);
}

/// Labels as the database keeps them.
pub fn to_json(labels: &Labels) -> String {
    serde_json::to_string(labels).expect("strings are valid JSON")
}

/// The inverse of [`to_json`].
pub fn from_json(text: &str) -> Result<Labels, serde_json::Error> {
    serde_json::from_str(text)
}
