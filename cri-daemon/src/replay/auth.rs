//! Credentials for pulls, which no recording holds: from a file as `docker login` writes it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

/// Docker Hub, whose name is left out of references and has another form in the file.
const HUB: &str = "docker.io";

/// What is known of registries, by host.
#[derive(Debug, Default)]
pub struct Auth(HashMap<String, String>);

impl Auth {
    /// Reads `{"auths": {HOST: {"auth": BASE64}}}`.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let file: Value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        let auths = file.get("auths").and_then(Value::as_object).into_iter().flatten();
        Ok(Self(
            auths.filter_map(|(host, entry)| Some((of_key(host), entry.get("auth")?.as_str()?.to_owned()))).collect(),
        ))
    }

    /// Puts credentials into a pull that had some, or takes out what stands for them; whether it is a whole request.
    pub fn give(&self, pull: &mut Value) -> bool {
        let Some(request) = pull.as_object_mut() else { return true };
        if request.remove("auth").is_none() {
            return true;
        }
        let image =
            request.get("image").and_then(|image| image.get("image")).and_then(Value::as_str).unwrap_or_default();
        match self.0.get(of_image(image)) {
            Some(auth) => {
                request.insert("auth".into(), json!({ "auth": auth }));
                true
            }
            None => false,
        }
    }
}

/// The host in a key such as `https://index.docker.io/v1/`.
fn of_key(key: &str) -> String {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest).split('/').next().unwrap_or(key);
    if host == "index.docker.io" { HUB.into() } else { host.into() }
}

/// The host of a reference.
fn of_image(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_the_host_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text =
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHVi"}, "r.test:5000": {"auth": "b3du"}, "x": {}}}"#;
        std::fs::write(&path, text).unwrap();
        let auth = Auth::load(&path).unwrap();
        let give = |image: &str| {
            let mut pull = json!({"image": {"image": image}, "auth": {"password": "REDACTED"}});
            (auth.give(&mut pull), pull.get("auth").map(|auth| auth["auth"].as_str().unwrap().to_owned()))
        };
        assert_eq!(give("busybox"), (true, Some("aHVi".into())));
        assert_eq!(give("docker.io/library/busybox:1"), (true, Some("aHVi".into())));
        assert_eq!(give("r.test:5000/a/b:1"), (true, Some("b3du".into())));
        assert_eq!(give("other.test/a"), (false, None));
        let mut anonymous = json!({"image": {"image": "other.test/a"}});
        assert!(auth.give(&mut anonymous) && anonymous.get("auth").is_none());
        std::fs::write(&path, "no").unwrap();
        assert!(format!("{:#}", Auth::load(&path).unwrap_err()).contains("config.json"));
    }
}
