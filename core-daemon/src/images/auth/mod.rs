//! Credentials for a registry host: basic, and bearer tokens from a token server.
//!
//! Nothing is sent until the host asks for it (401 with a [`challenge`]). Then the credentials are asked for, once a
//! host and pull, and answered:
//!
//! | challenge | credential | what is sent |
//! |---|---|---|
//! | basic | user and password | `Authorization: Basic` |
//! | bearer | none | `GET realm`: an anonymous token |
//! | bearer | user and password | `GET realm` with `Authorization: Basic` |
//! | bearer | identity token | `POST realm` with `grant_type=refresh_token` |
//! | any | header | that header |
//!
//! A token that the host refuses is fetched once more; credentials that it refuses are an error. Credentials of a
//! host reached over https are never sent to a token server over http.

pub mod challenge;
mod token;

use base64::Engine as _;
use reqwest::Client;
use reqwest::header::HeaderValue;

use super::ImageError;
use challenge::Challenge;

/// What proves to a registry who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Anonymous,
    Password {
        user: String,
        secret: String,
    },
    /// An OAuth refresh token, which Docker calls identity token.
    Identity {
        token: String,
    },
    /// A whole `Authorization` header.
    Header {
        value: String,
    },
}

impl Credential {
    /// Who this is, for messages. Never a secret.
    fn who(&self) -> String {
        match self {
            Self::Anonymous => "nobody".to_owned(),
            Self::Password { user, .. } => format!("user {user:?}"),
            Self::Identity { .. } => "an identity token".to_owned(),
            Self::Header { .. } => "an authorization header".to_owned(),
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.who())
    }
}

/// Where credentials come from: the client of a transfer, or a test.
#[async_trait::async_trait]
pub trait Credentials: Send + Sync {
    /// The credential for `host` (`HOST` or `HOST:PORT`), which sent these `WWW-Authenticate` headers.
    async fn get(&self, host: &str, challenges: &[String]) -> Result<Credential, ImageError>;
}

/// No credentials at all.
pub struct NoCredentials;

#[async_trait::async_trait]
impl Credentials for NoCredentials {
    async fn get(&self, _: &str, _: &[String]) -> Result<Credential, ImageError> {
        Ok(Credential::Anonymous)
    }
}

/// What is known about one host in one pull.
///
/// The lock is held while credentials and tokens are fetched, on purpose: other requests to the same host wait for
/// the answer instead of asking as well. Nobody outside the pull waits for it.
#[derive(Default)]
pub struct Authorizer(tokio::sync::Mutex<State>);

#[derive(Default)]
struct State {
    credential: Option<Credential>,
    header: Option<HeaderValue>,
}

/// A request that a host answered with 401.
pub struct Refused<'a> {
    /// `HOST` or `HOST:PORT`.
    pub host: &'a str,
    pub secure: bool,
    /// What the request carried.
    pub sent: Option<HeaderValue>,
    /// The `WWW-Authenticate` headers.
    pub challenges: Vec<String>,
    /// Used when the challenge names none: `repository:NAME:pull`.
    pub scope: &'a str,
    pub detail: String,
    /// How often this request was refused before.
    pub before: u32,
}

impl Authorizer {
    /// What to send with the next request.
    pub async fn header(&self) -> Option<HeaderValue> {
        self.0.lock().await.header.clone()
    }

    /// What to send instead, or why there is nothing more to try.
    pub async fn answer(
        &self,
        client: &Client,
        credentials: &dyn Credentials,
        refused: Refused<'_>,
    ) -> Result<HeaderValue, ImageError> {
        let mut state = self.0.lock().await;
        if let Some(header) = state.header.clone().filter(|header| Some(header) != refused.sent.as_ref()) {
            return Ok(header);
        }
        let challenges: Vec<Challenge> = refused.challenges.iter().flat_map(|c| challenge::parse(c)).collect();
        let bearer = challenges.iter().find(|c| c.scheme == "bearer");
        let basic = challenges.iter().any(|c| c.scheme == "basic");
        let credential = match &state.credential {
            Some(known) => known.clone(),
            None => {
                let given = credentials.get(refused.host, &refused.challenges).await?;
                state.credential = Some(given.clone());
                given
            }
        };
        let final_answer = refused.sent.is_some() && (bearer.is_none() || refused.before > 1);
        if final_answer {
            return Err(no_way(&credential, &refused));
        }
        let header = match (&credential, bearer) {
            (Credential::Header { value }, _) if refused.sent.is_none() => secret_header(value.clone(), refused.host)?,
            (Credential::Header { .. }, _) => return Err(no_way(&credential, &refused)),
            (_, Some(challenge)) => {
                let token = token::fetch(client, challenge, &credential, &refused).await?;
                secret_header(format!("Bearer {token}"), refused.host)?
            }
            (Credential::Password { user, secret }, None) if basic => {
                secret_header(basic_value(user, secret), refused.host)?
            }
            (Credential::Anonymous | Credential::Password { .. } | Credential::Identity { .. }, None) => {
                return Err(no_way(&credential, &refused));
            }
        };
        state.header = Some(header.clone());
        Ok(header)
    }
}

fn basic_value(user: &str, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}")))
}

fn secret_header(value: String, host: &str) -> Result<HeaderValue, ImageError> {
    let mut value = HeaderValue::from_str(&value).map_err(|_| ImageError::Credentials {
        host: host.to_owned(),
        reason: "they have characters that no header may have".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn no_way(credential: &Credential, refused: &Refused<'_>) -> ImageError {
    let (host, detail) = (refused.host.to_owned(), refused.detail.clone());
    match credential {
        Credential::Anonymous => ImageError::CredentialsMissing { host, detail },
        Credential::Password { .. } | Credential::Identity { .. } | Credential::Header { .. } => {
            ImageError::CredentialsRefused { host, user: credential.who(), detail }
        }
    }
}
