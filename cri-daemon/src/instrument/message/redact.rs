//! Takes the secrets out of a message that is to be shown.
//!
//! Secret are the values of environment variables, in CRI's form, in the OCI specification's and in records; what
//! somebody logs in with; and kubectl's annotation with the whole manifest, which holds them again. Limit: a secret in
//! a command line, or in an annotation that only its author knows, is not recognised.

use serde_json::Value;

/// What stands in place of a secret.
const SECRET: &str = "[redacted]";
/// Keys whose values are secret, wherever they are, without regard to `_` and case.
const CREDENTIALS: &[&str] =
    &["password", "auth", "username", "identitytoken", "registrytoken", "token", "secret", "credentials"];
/// The manifest as it was applied.
const MANIFEST: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The same value without secrets.
pub fn redacted(mut value: Value) -> Value {
    clean(&mut value);
    value
}

fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match (key.as_str(), &mut *value) {
                    // An object below `auth` has its own keys.
                    (key, Value::String(text)) if is_secret(key) && !text.is_empty() => *text = SECRET.into(),
                    ("env", Value::Array(variables)) => variables.iter_mut().for_each(variable),
                    ("envs", Value::Array(variables)) => variables.iter_mut().for_each(pair),
                    _ => clean(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_secret(key: &str) -> bool {
    let bare: String = key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
    CREDENTIALS.contains(&bare.as_str()) || key == MANIFEST
}

/// `NAME=VALUE`
fn variable(value: &mut Value) {
    if let Value::String(text) = value
        && let Some((name, _)) = text.split_once('=')
    {
        *text = format!("{name}={SECRET}");
    }
}

/// `{"key": NAME, "value": VALUE}`
fn pair(value: &mut Value) {
    if let Some(value) = value.get_mut("value") {
        *value = SECRET.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_found_in_every_form() {
        let value = json!({
            "auth": {"username": "me", "password": "hunter2", "auth": "bWU6aHVudGVyMg==", "server_address": "r.io"},
            "process": {"env": ["PATH=/hunter2", "EMPTY"], "args": ["sleep", "1"]},
            "config": {"envs": [{"key": "A", "value": "hunter2"}], "annotations": {MANIFEST: "{hunter2}", "note": "kept"}},
            "registryToken": "hunter2", "identity_token": ""
        });
        let clean = redacted(value);
        let text = clean.to_string();
        assert!(!text.contains("hunter2") && !text.contains("bWU6") && !text.contains("\"me\""), "{text}");
        assert_eq!(clean["auth"]["server_address"], "r.io");
        assert_eq!(clean["process"], json!({"env": ["PATH=[redacted]", "EMPTY"], "args": ["sleep", "1"]}));
        assert_eq!(clean["config"]["envs"][0]["key"], "A");
        assert_eq!((&clean["config"]["annotations"]["note"], &clean["identity_token"]), (&json!("kept"), &json!("")));
    }
}
