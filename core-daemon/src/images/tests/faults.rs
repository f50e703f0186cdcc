//! Registries that fail: each fault has its own error, or is got over.

use std::time::Duration;

use shared_proto::{Code, Error};

use super::fake::{Answer, Fake, Seen};
use super::{QUICK, anonymous};
use crate::domain::Digest;
use crate::images::ImageError;
use crate::images::download::Piece;
use crate::images::manifest::OCI_MANIFEST;
use crate::images::registry::Registry;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{"digest":"x"},"layers":[]}"#;

fn blob() -> Vec<u8> {
    (0..300_000u32).map(|n| (n % 251) as u8).collect()
}

fn described(body: &[u8]) -> Answer {
    Answer::ok(body).with("Content-Type", OCI_MANIFEST).with("Docker-Content-Digest", Digest::of(body).to_string())
}

/// The registry `x.test`, served by these servers in this order.
fn served_by(servers: &[&str], object: &str) -> Registry {
    let (last, mirrors) = servers.split_last().unwrap();
    let mut text = format!("server = \"{last}\"\n");
    for mirror in mirrors {
        text += &format!("[host.\"{mirror}\"]\n");
    }
    anonymous(&format!("x.test/a/b{object}"), &text)
}

/// All of a blob, as a writer would take it.
async fn fetch(registry: &Registry, bytes: &[u8], have: u64) -> Result<Vec<u8>, ImageError> {
    let digest = Digest::of(bytes);
    let mut got = bytes[..have as usize].to_vec();
    let mut download = registry.download(&digest, bytes.len() as u64, have)?;
    loop {
        match download.next().await? {
            Piece::Bytes(more) => got.extend_from_slice(&more),
            Piece::Restart => got.clear(),
            Piece::End if Digest::of(&got) == digest => return Ok(got),
            Piece::End => {
                download.reject(Digest::of(&got))?;
                got.clear();
            }
        }
    }
}

fn code_of(e: ImageError) -> (Code, String) {
    let e = Error::from(e);
    (e.code, e.message)
}

#[tokio::test]
async fn resolves_by_head_and_reads_the_body_only_when_it_must() {
    let full = Fake::start(|_| described(MANIFEST)).await;
    let found = served_by(&[&full.url()], ":1").resolve().await.unwrap();
    assert_eq!((found.digest, found.size, found.body), (Digest::of(MANIFEST), MANIFEST.len() as u64, None));
    assert_eq!(full.lines(), ["HEAD /v2/a/b/manifests/1?ns=x.test"]);
    assert!(full.seen()[0].header("accept").contains(OCI_MANIFEST));

    let bare = Fake::start(|s| if s.method == "HEAD" { Answer::status(405) } else { Answer::ok(MANIFEST) }).await;
    let found = served_by(&[&bare.url()], ":1").resolve().await.unwrap();
    assert_eq!((found.digest, found.media_type.as_str()), (Digest::of(MANIFEST), OCI_MANIFEST));
    assert_eq!(found.body.as_deref(), Some(MANIFEST));
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let data = blob();
    let served = data.clone();
    let server = Fake::start(move |s| match s.number {
        0 => Answer::blob(&served, s).cut(100_000),
        1 => Answer::status(503),
        2 => Answer::blob(&served, s).cut(50_000),
        _ => Answer::blob(&served, s),
    })
    .await;
    let registry = served_by(&[&server.url()], "");
    assert_eq!(fetch(&registry, &data, 0).await.unwrap(), data);
    let starts: Vec<String> = server.seen().iter().map(|s| s.header("range").to_owned()).collect();
    assert_eq!(starts, ["", "bytes=100000-", "bytes=100000-", "bytes=150000-"]);

    // A writer that has the first part already never asks for it.
    assert_eq!(fetch(&registry, &data, 200_000).await.unwrap(), data);
    assert_eq!(server.seen()[4].header("range"), "bytes=200000-");
}

#[tokio::test]
async fn a_host_without_ranges_sends_all_and_the_known_part_is_dropped() {
    let data = blob();
    let served = data.clone();
    let server = Fake::start(move |_| Answer::ok(served.clone())).await;
    assert_eq!(fetch(&served_by(&[&server.url()], ""), &data, 123_456).await.unwrap(), data);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn wrong_bytes_are_fetched_again_from_the_next_host() {
    let data = blob();
    let mut bad = data.clone();
    bad[1000] ^= 1;
    let good = data.clone();
    let (evil, honest) =
        (Fake::start(move |s| Answer::blob(&bad, s)).await, Fake::start(move |s| Answer::blob(&good, s)).await);
    assert_eq!(fetch(&served_by(&[&evil.url(), &honest.url()], ""), &data, 0).await.unwrap(), data);

    let (code, message) = code_of(fetch(&served_by(&[&evil.url()], ""), &data, 0).await.unwrap_err());
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains(&Digest::of(&data).to_string()) && message.contains(&evil.url()), "{message}");
}

#[tokio::test]
async fn too_many_and_too_few_bytes() {
    let data = blob();
    let long = [data.clone(), b"more".to_vec()].concat();
    let served = data.clone();
    let (longer, honest) =
        (Fake::start(move |_| Answer::ok(long.clone())).await, Fake::start(move |s| Answer::blob(&served, s)).await);
    assert_eq!(fetch(&served_by(&[&longer.url(), &honest.url()], ""), &data, 0).await.unwrap(), data);
    let (code, message) = code_of(fetch(&served_by(&[&longer.url()], ""), &data, 0).await.unwrap_err());
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("wanted 300000"), "{message}");

    let short = Fake::start(|_| Answer::ok(&b"short"[..])).await;
    let (code, message) = code_of(fetch(&served_by(&[&short.url()], ""), &data, 0).await.unwrap_err());
    assert_eq!(code, Code::Unavailable);
    assert!(message.contains("of 300000 bytes"), "{message}");
}

#[tokio::test]
async fn statuses_have_their_codes_and_name_host_and_thing() {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    for (status, code, requests) in [
        (401, Code::Unauthenticated, 1),
        (403, Code::PermissionDenied, 1),
        (404, Code::NotFound, 1),
        (418, Code::Unknown, 1),
        (429, Code::ResourceExhausted, QUICK.attempts as usize),
        (500, Code::Unavailable, QUICK.attempts as usize),
    ] {
        let server = Fake::start(move |s| {
            let challenge = Answer { body: body.into(), ..Answer::status(status) };
            if s.method == "HEAD" { challenge } else { Answer::status(200) }
        })
        .await;
        let (found, message) = code_of(served_by(&[&server.url()], ":1").resolve().await.unwrap_err());
        assert_eq!(found, code, "{status}: {message}");
        assert!(message.contains(&server.url()[7..]), "{message}");
        assert_eq!(server.seen().len(), requests, "{status}");
    }
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let server = Fake::start(|s| match s.number {
        0 => Answer::status(429).with("Retry-After", "1"),
        1 => Answer::status(500),
        _ => described(MANIFEST),
    })
    .await;
    let start = std::time::Instant::now();
    served_by(&[&server.url()], ":1").resolve().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After was not obeyed");

    let strict = Fake::start(|_| Answer::status(429).with("Retry-After", "3600")).await;
    let (code, message) = code_of(served_by(&[&strict.url()], ":1").resolve().await.unwrap_err());
    assert_eq!((code, strict.seen().len()), (Code::ResourceExhausted, 1));
    assert!(message.contains("for 3600 s"), "{message}");
}

#[tokio::test]
async fn every_host_is_tried_and_named_and_a_dead_one_only_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let data = blob();
    let served = data.clone();
    let server =
        Fake::start(move |s| if s.target.contains("/blobs/") { Answer::blob(&served, s) } else { Answer::status(404) })
            .await;
    let registry = served_by(&[&dead, &server.url()], ":1");
    let (code, message) = code_of(registry.resolve().await.unwrap_err());
    assert_eq!(code, Code::NotFound);
    assert!(message.contains(&dead) && message.contains(&server.url()), "{message}");
    assert_eq!(registry.candidates("pull", |c| c.pull).unwrap()[1].host.to_string(), dead);
    assert_eq!(fetch(&registry, &data, 0).await.unwrap(), data);
}

#[tokio::test]
async fn redirects_are_followed_without_what_is_secret() {
    let data = blob();
    let served = data.clone();
    let elsewhere = Fake::start(move |s| Answer::blob(&served, s)).await;
    let to = format!("{}/store?sig=1", elsewhere.url());
    let home = Fake::start(move |_| Answer::status(307).with("Location", to.clone())).await;
    let text = format!("server = \"{0}\"\n[header]\nx-secret = \"s\"\n", home.url());
    let registry = anonymous("x.test/a/b", &text);
    assert_eq!(fetch(&registry, &data, 7).await.unwrap(), data);
    assert_eq!(home.seen()[0].header("x-secret"), "s");
    assert_eq!(elsewhere.seen()[0].header("x-secret"), "");
    assert_eq!(elsewhere.seen()[0].header("range"), "bytes=7-");

    let circle = Fake::start(|s: &Seen| Answer::status(302).with("Location", s.target.clone())).await;
    let (_, message) = code_of(served_by(&[&circle.url()], ":1").resolve().await.unwrap_err());
    assert!(message.contains("in circles"), "{message}");
}

#[tokio::test]
async fn a_silent_host_is_given_up() {
    let data = blob();
    let served = data.clone();
    let server = Fake::start(move |s| Answer { hang: true, ..Answer::blob(&served, s) }).await;
    let registry = served_by(&[&server.url()], "").with_limits(QUICK, Duration::from_millis(300));
    let (code, message) = code_of(fetch(&registry, &data, 0).await.unwrap_err());
    assert_eq!(code, Code::DeadlineExceeded);
    assert!(message.contains("no byte arrived for 0.3 s"), "{message}");
}

#[tokio::test]
async fn manifests_are_verified_capped_and_not_of_schema_1() {
    let wrong = Fake::start(|_| Answer::ok(&b"{}"[..])).await;
    let right = Fake::start(|_| Answer::ok(MANIFEST)).await;
    let digest = Digest::of(MANIFEST);
    let size = MANIFEST.len() as u64;
    let both = served_by(&[&wrong.url(), &right.url()], "");
    assert_eq!(both.manifest(OCI_MANIFEST, &digest, size).await.unwrap(), MANIFEST);
    let e = served_by(&[&wrong.url()], "").manifest(OCI_MANIFEST, &digest, size).await.unwrap_err();
    assert_eq!(code_of(e).0, Code::FailedPrecondition);
    let e = both.manifest(OCI_MANIFEST, &digest, 5 << 20).await.unwrap_err();
    assert!(matches!(e, ImageError::TooLarge { .. }), "{e}");

    let endless = Fake::start(|_| Answer::ok(vec![b' '; 5 << 20])).await;
    let (code, message) = code_of(served_by(&[&endless.url()], ":1").resolve().await.unwrap_err());
    assert_eq!(code, Code::FailedPrecondition, "{message}");

    let old = Fake::start(|_| Answer::ok(&br#"{"schemaVersion":1,"name":"a/b"}"#[..])).await;
    let (code, message) = code_of(served_by(&[&old.url()], ":1").resolve().await.unwrap_err());
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("schema 1") && message.contains("x.test/a/b:1"), "{message}");

    let other = Fake::start(|_| described(MANIFEST)).await;
    let by_digest = format!("@{}", Digest::of(b"other"));
    let e = served_by(&[&other.url()], &by_digest).resolve().await.unwrap_err();
    assert_eq!(code_of(e).0, Code::FailedPrecondition);
}
