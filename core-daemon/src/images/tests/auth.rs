//! Registries that want to know who asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use shared_proto::{Code, Error};

use super::fake::{Answer, Fake, Seen};
use super::{anonymous, registry};
use crate::domain::Digest;
use crate::images::ImageError;
use crate::images::auth::{Credential, Credentials};
use crate::images::manifest::OCI_MANIFEST;

/// Gives one credential, and counts how often it was asked.
pub struct Given(Credential, AtomicUsize);

impl Given {
    pub fn new(credential: Credential) -> Arc<Self> {
        Arc::new(Self(credential, AtomicUsize::new(0)))
    }

    pub fn password(secret: &str) -> Arc<Self> {
        Self::new(Credential::Password { user: "ann".into(), secret: secret.into() })
    }
}

#[async_trait::async_trait]
impl Credentials for Given {
    async fn get(&self, _: &str, _: &[String]) -> Result<Credential, ImageError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.clone())
    }
}

fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}")))
}

fn manifest() -> Answer {
    Answer::ok(&b"{}"[..])
        .with("Content-Type", OCI_MANIFEST)
        .with("Docker-Content-Digest", Digest::of(b"{}").to_string())
}

fn guarded(seen: &Seen, wanted: &str, challenge: &str) -> Answer {
    if seen.header("authorization") == wanted {
        manifest()
    } else {
        Answer::status(401).with("WWW-Authenticate", challenge)
    }
}

fn code_of(e: ImageError) -> (Code, String) {
    let e = Error::from(e);
    (e.code, e.message)
}

#[tokio::test]
async fn basic_credentials_are_asked_for_once_and_kept() {
    let server = Fake::start(|s| guarded(s, &basic("ann", "pw"), "Basic realm=\"r\"")).await;
    let text = format!("server = \"{}\"", server.url());
    let given = Given::password("pw");
    let asked = registry("x.test/a/b:1", &text, given.clone());
    asked.resolve().await.unwrap();
    asked.resolve().await.unwrap();
    assert_eq!(given.1.load(Ordering::Relaxed), 1);
    assert_eq!(server.seen().len(), 3, "the second request is sent with credentials at once");

    let (code, message) = code_of(registry("x.test/a/b:1", &text, Given::password("no")).resolve().await.unwrap_err());
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("refused the credentials of user \"ann\"") && !message.contains("no\""), "{message}");
    let (code, message) = code_of(anonymous("x.test/a/b:1", &text).resolve().await.unwrap_err());
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("none were given") && message.contains(&server.url()[7..]), "{message}");
}

/// A registry and its token server, which gives `token` to whom `admits` admits.
async fn with_tokens(admits: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> (Fake, Fake) {
    let issued = Arc::new(AtomicUsize::new(0));
    let valid = issued.clone();
    let tokens = Fake::start(move |s| {
        if !admits(s) {
            return Answer::status(401);
        }
        let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
        Answer::ok(format!(r#"{{"access_token":"t{number}","expires_in":60}}"#))
    })
    .await;
    let realm = format!("{}/token?fixed=1", tokens.url());
    // Only the newest token is good.
    let server = Fake::start(move |s| {
        let wanted = format!("Bearer t{}", valid.load(Ordering::Relaxed));
        guarded(s, &wanted, &format!("Bearer realm=\"{realm}\",service=\"svc\",scope=\"repository:a/b:pull\""))
    })
    .await;
    (server, tokens)
}

#[tokio::test]
async fn anonymous_tokens() {
    let (server, tokens) = with_tokens(|s| s.header("authorization").is_empty()).await;
    let text = format!("server = \"{}\"", server.url());
    let asked = anonymous("x.test/a/b:1", &text);
    asked.resolve().await.unwrap();
    asked.resolve().await.unwrap();
    assert_eq!(tokens.lines(), ["GET /token?fixed=1&service=svc&scope=repository%3Aa%2Fb%3Apull"]);
}

#[tokio::test]
async fn tokens_for_a_password_and_for_an_identity_token() {
    let (server, tokens) = with_tokens(|s| s.header("authorization") == basic("ann", "pw")).await;
    let text = format!("server = \"{}\"", server.url());
    registry("x.test/a/b:1", &text, Given::password("pw")).resolve().await.unwrap();
    assert_eq!(tokens.seen()[0].method, "GET");
    let (code, message) = code_of(registry("x.test/a/b:1", &text, Given::password("no")).resolve().await.unwrap_err());
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("user \"ann\""), "{message}");
    let (code, _) = code_of(anonymous("x.test/a/b:1", &text).resolve().await.unwrap_err());
    assert_eq!(code, Code::Unauthenticated);

    let (server, tokens) = with_tokens(|s| s.method == "POST" && s.body.contains("refresh_token=idt%2F1")).await;
    let identity = Given::new(Credential::Identity { token: "idt/1".into() });
    registry("x.test/a/b:1", &format!("server = \"{}\"", server.url()), identity).resolve().await.unwrap();
    let form = &tokens.seen()[0].body;
    assert!(form.contains("grant_type=refresh_token") && form.contains("scope=repository%3Aa%2Fb%3Apull"), "{form}");
}

#[tokio::test]
async fn a_token_that_ran_out_is_fetched_again() {
    let (server, tokens) = with_tokens(|_| true).await;
    let text = format!("server = \"{}\"", server.url());
    let (one, two) = (anonymous("x.test/a/b:1", &text), anonymous("x.test/a/b:1", &text));
    one.resolve().await.unwrap();
    // Makes the first token worthless.
    two.resolve().await.unwrap();
    one.resolve().await.unwrap();
    assert_eq!(tokens.seen().len(), 3);
}

#[tokio::test]
async fn a_whole_header_is_sent_as_given() {
    let server = Fake::start(|s| guarded(s, "Custom abc", "Bearer realm=\"http://127.0.0.1:1/\"")).await;
    let text = format!("server = \"{}\"", server.url());
    let header = Given::new(Credential::Header { value: "Custom abc".into() });
    registry("x.test/a/b:1", &text, header).resolve().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_never_has_enough_is_given_up() {
    let tokens = Fake::start(|_| Answer::ok(&br#"{"token":"t"}"#[..])).await;
    let realm = tokens.url();
    let server =
        Fake::start(move |_| Answer::status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))).await;
    let text = format!("server = \"{}\"", server.url());
    let (code, _) = code_of(registry("x.test/a/b:1", &text, Given::password("pw")).resolve().await.unwrap_err());
    assert_eq!(code, Code::Unauthenticated);
    assert!(server.seen().len() <= 4, "{:?}", server.lines());
}
