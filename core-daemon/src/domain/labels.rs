//! Labels: free key-value pairs on almost every object. Key and value together at most 4096 bytes (containerd's limit).

use std::collections::BTreeMap;

use super::Invalid;

/// Labels in key order.
pub type Labels = BTreeMap<String, String>;

/// The longest label, bytes of key and value.
pub const MAX_LABEL: usize = 4096;

/// Refuses labels that are too long or have no key.
pub fn check(labels: &Labels) -> Result<(), Invalid> {
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

/// Labels as the database keeps them.
pub fn to_json(labels: &Labels) -> String {
    serde_json::to_string(labels).expect("strings are valid JSON")
}

/// The inverse of [`to_json`].
pub fn from_json(text: &str) -> Result<Labels, serde_json::Error> {
    serde_json::from_str(text)
}
