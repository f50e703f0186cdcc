//! Fetching a bearer token from the server that a challenge names.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::{Credential, Refused, basic_value, no_way, secret_header};
use crate::images::ImageError;
use crate::images::answer::{detail, read_all, status_error, transport};

/// How long a token server may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest answer, bytes.
const MAX_ANSWER: usize = 1 << 20;
const CLIENT_ID: &str = "core-daemon";

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The token that answers `challenge`.
pub(super) async fn fetch(
    client: &Client,
    challenge: &Challenge,
    credential: &Credential,
    refused: &Refused<'_>,
) -> Result<String, ImageError> {
    let wrong = |reason: String| ImageError::Protocol { host: refused.host.to_owned(), reason };
    let realm = challenge.get("realm").ok_or_else(|| wrong("the bearer challenge names no realm".into()))?;
    let realm: Url = realm.parse().map_err(|e| wrong(format!("the realm {realm:?} is no URL: {e}")))?;
    match realm.scheme() {
        "https" => {}
        "http" if !refused.secure || matches!(credential, Credential::Anonymous) => {}
        other => return Err(wrong(format!("credentials are not sent to the token server over {other}"))),
    }
    let scope = challenge.get("scope").unwrap_or(refused.scope);
    let service = challenge.get("service").unwrap_or_default();

    let request = match credential {
        Credential::Identity { token } => {
            let fields = [
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("service", service),
                ("scope", scope),
                ("client_id", CLIENT_ID),
            ];
            // A form is encoded like a query.
            let mut form = realm.clone();
            form.query_pairs_mut().clear().extend_pairs(fields);
            let body = form.query().unwrap_or_default().to_owned();
            client.post(realm.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        }
        Credential::Anonymous | Credential::Header { .. } => client.get(query(&realm, service, scope)),
        Credential::Password { user, secret } => client
            .get(query(&realm, service, scope))
            .header(AUTHORIZATION, secret_header(basic_value(user, secret), refused.host)?),
    };

    let server = format!("token server {}", crate::images::hosts::authority(&realm));
    let answer = async {
        let response = request.send().await.map_err(|e| transport(&server, "ask for a token", e))?;
        if matches!(response.status().as_u16(), 400 | 401 | 403) {
            let detail = detail(response).await;
            return Err(no_way(credential, &Refused { detail, challenges: Vec::new(), sent: None, ..*refused }));
        }
        if !response.status().is_success() {
            return Err(status_error(response, &server, "the request for a token").await);
        }
        read_all(response, MAX_ANSWER, "the token", &server).await
    };
    let body = tokio::time::timeout(DEADLINE, answer).await.map_err(|_| ImageError::Transport {
        host: server.clone(),
        what: "ask for a token".into(),
        reason: format!("no answer within {} s", DEADLINE.as_secs()),
    })??;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|e| ImageError::Protocol { host: server.clone(), reason: format!("malformed answer: {e}") })?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    token.ok_or(ImageError::Protocol { host: server, reason: "the answer holds no token".into() })
}

fn query(realm: &Url, service: &str, scope: &str) -> Url {
    let mut url = realm.clone();
    let mut pairs = url.query_pairs_mut();
    if !service.is_empty() {
        pairs.append_pair("service", service);
    }
    for scope in scope.split(' ').filter(|s| !s.is_empty()) {
        pairs.append_pair("scope", scope);
    }
    drop(pairs);
    url
}
