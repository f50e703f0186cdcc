//! What the kubelet gave to authenticate a pull with.
//!
//! | field | meaning |
//! |---|---|
//! | `username`, `password` | basic, or the way to a token |
//! | `auth` | the same two, as Docker's configuration file has them: base64 of `user:password` |
//! | `identity_token` | an OAuth refresh token |
//! | `registry_token` | a bearer token, sent as it is |
//! | `server_address` | for which registry all this is; others get nothing |

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use shared_proto::containerd::transfer_types::{AuthResponse, AuthType};
use shared_proto::cri::v1;

use super::{ImageError, Reference};

/// Checked credentials. Never printed.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Credentials {
    secret: Option<Secret>,
    /// Host of the registry that they are for; empty = any.
    server: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Secret {
    Password { user: String, password: String },
    Identity(String),
    Token(String),
}

impl Credentials {
    pub fn parse(auth: Option<&v1::AuthConfig>, reference: &Reference) -> Result<Self, ImageError> {
        let Some(auth) = auth.filter(|auth| **auth != v1::AuthConfig::default()) else { return Ok(Self::default()) };
        let bad = |reason: &str| ImageError::Credentials { reference: reference.to_string(), reason: reason.into() };
        let secret = if !auth.username.is_empty() {
            Some(Secret::Password { user: auth.username.clone(), password: auth.password.clone() })
        } else if !auth.identity_token.is_empty() {
            Some(Secret::Identity(auth.identity_token.clone()))
        } else if !auth.auth.is_empty() {
            let decoded = BASE64_STANDARD_NO_PAD.decode(auth.auth.trim_end_matches('='));
            let decoded = decoded.map_err(|_| bad("auth is not base64"))?;
            let text = String::from_utf8(decoded).map_err(|_| bad("auth is not text"))?;
            let (user, password) = text.split_once(':').ok_or_else(|| bad("auth is not user:password"))?;
            Some(Secret::Password { user: user.to_owned(), password: password.trim_matches('\0').to_owned() })
        } else if !auth.registry_token.is_empty() {
            Some(Secret::Token(auth.registry_token.clone()))
        } else {
            // A server without a secret: the pull is anonymous.
            None
        };
        Ok(Self { secret, server: host_of(&auth.server_address).to_owned() })
    }

    /// The answer to the core's question for credentials for `host`.
    pub fn answer(&self, host: &str) -> AuthResponse {
        let fits = self.server.is_empty() || canonical(&self.server) == canonical(host_of(host));
        let (auth_type, username, secret) = match &self.secret {
            Some(Secret::Password { user, password }) if fits => {
                (AuthType::Credentials, user.clone(), password.clone())
            }
            Some(Secret::Identity(token)) if fits => (AuthType::Refresh, String::new(), token.clone()),
            Some(Secret::Token(token)) if fits => (AuthType::Header, String::new(), format!("Bearer {token}")),
            Some(_) | None => (AuthType::None, String::new(), String::new()),
        };
        AuthResponse { auth_type: auth_type.into(), username, secret, expire_at: None }
    }
}

/// The host (with port) of a server address, which may be a URL.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Docker Hub goes by several names.
fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(auth: v1::AuthConfig, host: &str) -> (AuthType, String, String) {
        let reference = Reference::parse("r.example.com/a").unwrap();
        let answer = Credentials::parse(Some(&auth), &reference).unwrap().answer(host);
        (answer.auth_type(), answer.username, answer.secret)
    }

    fn user(server: &str) -> v1::AuthConfig {
        v1::AuthConfig {
            username: "u".into(),
            password: "p".into(),
            server_address: server.into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_form_is_understood() {
        let password = (AuthType::Credentials, "u".to_owned(), "p:q".to_owned());
        let auth = |auth: &str| v1::AuthConfig { auth: auth.into(), ..Default::default() };
        assert_eq!(answer(auth("dTpwOnE="), "r"), password);
        assert_eq!(answer(auth("dTpwOnE"), "r"), password);
        let identity = v1::AuthConfig { identity_token: "t".into(), ..Default::default() };
        assert_eq!(answer(identity, "r"), (AuthType::Refresh, String::new(), "t".into()));
        let token = v1::AuthConfig { registry_token: "t".into(), ..Default::default() };
        assert_eq!(answer(token, "r"), (AuthType::Header, String::new(), "Bearer t".into()));
        let reference = Reference::parse("r.example.com/a").unwrap();
        let only_server = v1::AuthConfig { server_address: "r.example.com".into(), ..Default::default() };
        for none in [None, Some(&v1::AuthConfig::default()), Some(&only_server)] {
            assert_eq!(Credentials::parse(none, &reference).unwrap().answer("r").auth_type(), AuthType::None);
        }
    }

    #[test]
    fn another_server_gets_nothing() {
        for (server, host, given) in [
            ("", "any", true),
            ("r.example.com", "r.example.com", true),
            ("https://r.example.com/v2/", "r.example.com", true),
            ("r.example.com:5000", "r.example.com", false),
            ("https://r.example.com", "evil.example.com", false),
            ("https://index.docker.io/v1/", "registry-1.docker.io", true),
        ] {
            let expected = if given { AuthType::Credentials } else { AuthType::None };
            assert_eq!(answer(user(server), host).0, expected, "{server:?} for {host:?}");
        }
    }

    #[test]
    fn what_can_not_be_used_is_refused_without_showing_it() {
        let reference = Reference::parse("r.example.com/a").unwrap();
        for auth in ["!!", "bm9jb2xvbg=="] {
            let auth = v1::AuthConfig { auth: auth.into(), ..Default::default() };
            let e = Credentials::parse(Some(&auth), &reference).err().unwrap().to_string();
            assert!(e.contains("r.example.com/a") && !e.contains("nocolon"), "{e}");
        }
    }
}
