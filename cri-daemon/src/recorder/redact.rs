//! Takes secrets out of messages before they are written.
//!
//! | where | what becomes [`MARK`] |
//! |---|---|
//! | [`SECRET`] fields: credentials of a pull, environment values, Windows credentials | the value |
//! | [`URLS`]: the addresses that Exec, Attach and PortForward answer | the one-time token at their end |
//! | annotation [`APPLIED`], in which kubectl keeps the whole manifest, environment included | the value |
//! | `info` of verbose answers | values of environments within it; what is no JSON as a whole |
//! | the text of an error | the secrets of its own request, where it repeats them |
//!
//! A value that is empty stays so. CRI's proto declares no field `debug_redact`, so the list is kept here; a test
//! holds it against the descriptors. Commands, their output, other annotations and labels are **not** redacted: whoever
//! puts secrets there shows them to everybody who may list containers.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, Value};
use serde_json::Value as Json;

/// What stands for a secret.
pub const MARK: &str = "REDACTED";

/// Fields whose value is secret.
const SECRET: &[&str] = &[
    "runtime.v1.AuthConfig.username",
    "runtime.v1.AuthConfig.password",
    "runtime.v1.AuthConfig.auth",
    "runtime.v1.AuthConfig.server_address",
    "runtime.v1.AuthConfig.identity_token",
    "runtime.v1.AuthConfig.registry_token",
    "runtime.v1.KeyValue.value",
    "runtime.v1.WindowsContainerSecurityContext.credential_spec",
    "runtime.v1.WindowsSandboxSecurityContext.credential_spec",
];
/// Fields with an address that holds a token.
const URLS: &[&str] =
    &["runtime.v1.ExecResponse.url", "runtime.v1.AttachResponse.url", "runtime.v1.PortForwardResponse.url"];
/// The annotation in which `kubectl apply` keeps the manifest.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What was done to a message.
#[derive(Debug, Default)]
pub struct Redacted {
    /// How many values were replaced.
    pub count: u64,
    /// Fields of a newer CRI: they are in no JSON, so that no secret gets through in one.
    pub unknown: u64,
    secrets: Vec<String>,
}

impl Redacted {
    /// Replaces the secrets of the message in a text about it.
    pub fn text(&self, text: &str) -> String {
        // Short values would be found everywhere.
        let told = self.secrets.iter().filter(|secret| secret.len() >= 4);
        told.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MARK))
    }

    fn hide(&mut self, value: &mut Value) {
        match value {
            Value::String(text) if !text.is_empty() => self.hide_text(text),
            Value::Bytes(bytes) if !bytes.is_empty() => {
                self.count += 1;
                self.secrets.push(String::from_utf8_lossy(bytes).into_owned());
                *bytes = MARK.into();
            }
            _ => {}
        }
    }

    fn hide_text(&mut self, text: &mut String) {
        self.count += 1;
        self.secrets.push(std::mem::replace(text, MARK.into()));
    }
}

/// Takes the secrets out of `message`.
pub fn redact(message: &mut DynamicMessage) -> Redacted {
    let mut done = Redacted::default();
    walk(message, &mut done);
    done
}

fn walk(message: &mut DynamicMessage, done: &mut Redacted) {
    done.unknown += message.unknown_fields().count() as u64;
    for (field, value) in message.fields_mut() {
        let name = field.full_name();
        if SECRET.contains(&name) {
            done.hide(value);
        } else if URLS.contains(&name) {
            if let Value::String(url) = value {
                url_token(url, done);
            }
        } else {
            within(&field, value, done);
        }
    }
}

fn within(field: &FieldDescriptor, value: &mut Value, done: &mut Redacted) {
    match value {
        Value::Message(message) => walk(message, done),
        Value::List(items) => items.iter_mut().for_each(|item| within(field, item, done)),
        Value::Map(entries) => match field.name() {
            "annotations" => annotations(entries, done),
            "info" => entries.values_mut().for_each(|value| info(value, done)),
            _ => entries.values_mut().for_each(|value| within(field, value, done)),
        },
        _ => {}
    }
}

fn annotations(entries: &mut HashMap<MapKey, Value>, done: &mut Redacted) {
    if let Some(applied) = entries.get_mut(&MapKey::String(APPLIED.into())) {
        done.hide(applied);
    }
}

/// `http://HOST/exec/TOKEN`: what follows the first part of the path.
fn url_token(url: &mut String, done: &mut Redacted) {
    let Some((scheme, rest)) = url.split_once("://") else { return done.hide_text(url) };
    let mut parts = rest.splitn(3, '/');
    let (Some(host), Some(kind), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return done.hide_text(url);
    };
    done.count += 1;
    done.secrets.push(token.to_owned());
    *url = format!("{scheme}://{host}/{kind}/{MARK}");
}

/// A value of verbose information, which is JSON by CRI's rules.
fn info(value: &mut Value, done: &mut Redacted) {
    let Value::String(text) = value else { return };
    match serde_json::from_str::<Json>(text) {
        Ok(mut json) => {
            let before = done.count;
            environments(&mut json, done);
            if done.count > before {
                *text = json.to_string();
            }
        }
        Err(_) if text.is_empty() => {}
        Err(_) => done.hide_text(text),
    }
}

/// Environments as OCI (`env`, `Env`: `NAME=VALUE`) and CRI (`envs`: `key` and `value`) write them, and credentials.
fn environments(json: &mut Json, done: &mut Redacted) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(|item| environments(item, done)),
        Json::Object(fields) => {
            for (name, value) in fields {
                match (name.to_ascii_lowercase().as_str(), value) {
                    ("env" | "envs", Json::Array(entries)) => {
                        entries.iter_mut().for_each(|entry| variable(entry, done));
                    }
                    ("password" | "auth" | "identitytoken" | "registrytoken" | "token", Json::String(text)) => {
                        if !text.is_empty() {
                            done.hide_text(text);
                        }
                    }
                    (_, Json::String(text)) if name == APPLIED => done.hide_text(text),
                    (_, value) => environments(value, done),
                }
            }
        }
        _ => {}
    }
}

fn variable(entry: &mut Json, done: &mut Redacted) {
    match entry {
        Json::String(text) => {
            let (name, value) = text.split_once('=').unwrap_or((text.as_str(), ""));
            if !value.is_empty() {
                done.count += 1;
                done.secrets.push(value.to_owned());
                *text = format!("{name}={MARK}");
            }
        }
        Json::Object(fields) => {
            if let Some(Json::String(value)) = fields.get_mut("value")
                && !value.is_empty()
            {
                done.hide_text(value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
