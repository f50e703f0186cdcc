//! `core-daemon oci-hook PROGRAM [ARGUMENT…]`: an OCI hook that runs a program which knows nothing of hooks.
//!
//! The engine gives a hook the state of its container as JSON on standard input; most programs want such facts in their
//! arguments. So this takes them out of the state and puts them in place of templates, in arguments and environment
//! variables, and becomes the program:
//!
//! | template | is |
//! |---|---|
//! | `{{id}}`, `{{pid}}`, `{{status}}`, `{{bundle}}` | what the state says |
//! | `{{rootfs}}` | the root path of the bundle's `config.json`, made absolute |
//! | `{{annotation "KEY"}}` | an annotation of the state; empty if there is none |
//!
//! Clients of containerd write specs with such hooks, for example for devices. Source: `containerd oci-hook --help`, and
//! the runtime specification, `runtime.md`, "State". Limit: of Go's template language only these calls.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// Nothing sensible is longer, bytes.
const MAX_STATE: u64 = 4 << 20;

/// The state of a container, as engines give it to hooks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    id: String,
    status: String,
    pid: i64,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    root: Root,
}

#[derive(Debug, Deserialize)]
struct Root {
    path: PathBuf,
}

/// What templates can ask for.
struct Facts {
    state: State,
    rootfs: PathBuf,
}

/// Becomes the program in `arguments`; comes back only with an error.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_STATE).read_to_end(&mut text).context("read the container's state")?;
    let facts = Facts::read(&text)?;
    let arguments = arguments.iter().map(|argument| facts.fill(argument)).collect::<anyhow::Result<Vec<_>>>()?;
    let Some((program, arguments)) = arguments.split_first() else { bail!("no program is named") };
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in std::env::vars_os() {
        // What is no text has no template in it.
        if let Some(value) = value.to_str() {
            let filled = facts.fill(value).with_context(|| format!("variable {}", name.display()))?;
            command.env(&name, filled);
        }
    }
    Err(command.exec()).with_context(|| format!("run {program}"))
}

impl Facts {
    fn read(state: &[u8]) -> anyhow::Result<Self> {
        let state: State = serde_json::from_slice(state).context("the container's state on standard input")?;
        let path = state.bundle.join("config.json");
        let spec = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let spec: Spec = serde_json::from_slice(&spec).with_context(|| path.display().to_string())?;
        // An absolute path stays.
        let rootfs = state.bundle.join(spec.root.path);
        Ok(Self { state, rootfs })
    }

    /// The text with its templates filled in.
    fn fill(&self, text: &str) -> anyhow::Result<String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once("{{") {
            let Some((call, after)) = inside.split_once("}}") else { bail!("{text:?}: a template has no end") };
            filled += before;
            filled += &self.value(call.trim()).with_context(|| format!("{text:?}"))?;
            rest = after;
        }
        Ok(filled + rest)
    }

    fn value(&self, call: &str) -> anyhow::Result<String> {
        let path = |path: &Path| path.display().to_string();
        Ok(match call {
            "id" => self.state.id.clone(),
            "pid" => self.state.pid.to_string(),
            "status" => self.state.status.clone(),
            "bundle" => path(&self.state.bundle),
            "rootfs" => path(&self.rootfs),
            other => {
                let key = other.strip_prefix("annotation").map(str::trim).and_then(unquoted);
                let key = key.with_context(|| format!("no template is called {other:?}"))?;
                self.state.annotations.get(key).cloned().unwrap_or_default()
            }
        })
    }
}

/// The inside of a string in Go's double quotes, without escapes, or back quotes.
fn unquoted(text: &str) -> Option<&str> {
    ['"', '`'].iter().find_map(|quote| {
        let inside = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
        let escaped = *quote == '"' && inside.contains('\\');
        (!escaped && !inside.contains(*quote)).then_some(inside)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(root: &str) -> Facts {
        let bundle = tempfile::tempdir().unwrap();
        let spec = serde_json::json!({"ociVersion": "1.0.2", "root": {"path": root, "readonly": true}});
        std::fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        let state = serde_json::json!({
            "ociVersion": "1.0.2", "id": "c1", "status": "created", "pid": 42, "bundle": bundle.path(),
            "annotations": {"a/b": "value", "empty": ""},
        });
        let facts = Facts::read(state.to_string().as_bytes()).unwrap();
        assert_eq!(facts.state.bundle, bundle.path());
        facts
    }

    #[test]
    fn templates_are_filled() {
        let facts = facts("/root/fs");
        let bundle = facts.state.bundle.display().to_string();
        for (text, filled) in [
            ("plain } {", "plain } {"),
            ("--pid={{pid}}", "--pid=42"),
            ("{{id}}-{{ status }}", "c1-created"),
            ("{{bundle}}/x", &format!("{bundle}/x")),
            ("{{rootfs}}", "/root/fs"),
            ("{{annotation \"a/b\"}}|{{ annotation `a/b` }}|{{annotation \"none\"}}", "value|value|"),
        ] {
            assert_eq!(facts.fill(text).unwrap(), filled, "{text}");
        }
        for bad in ["{{pid", "{{}}", "{{user}}", "{{annotation}}", "{{annotation a}}", "{{annotation \"a\\\"b\"}}"] {
            let e = format!("{:#}", facts.fill(bad).unwrap_err());
            assert!(e.contains(&format!("{bad:?}")), "{e}");
        }
    }

    #[test]
    fn a_relative_root_lies_in_the_bundle() {
        let facts = facts("rootfs");
        assert_eq!(facts.fill("{{rootfs}}").unwrap(), facts.state.bundle.join("rootfs").display().to_string());
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        assert!(Facts::read(b"{").is_err());
        assert!(Facts::read(br#"{"bundle": "/no/such/bundle"}"#).is_err());
    }
}
