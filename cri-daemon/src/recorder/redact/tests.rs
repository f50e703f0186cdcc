//! Every place where secrets are, and those where none are.

use prost::Message;
use prost_reflect::DescriptorPool;
use serde_json::json;
use shared_proto::cri::v1;

use super::*;
use crate::recorder::messages;

fn redacted(path: &str, answer: bool, message: &impl Message) -> (Json, Redacted) {
    let method = messages::method(path).unwrap();
    let descriptor = if answer { method.response } else { method.request };
    let mut message = DynamicMessage::decode(descriptor, &*message.encode_to_vec()).unwrap();
    let done = redact(&mut message);
    (messages::to_json(&message).unwrap(), done)
}

#[test]
fn the_listed_fields_exist() {
    let pool = DescriptorPool::decode(shared_proto::DESCRIPTORS).unwrap();
    for name in SECRET.iter().chain(URLS) {
        let (message, field) = name.rsplit_once('.').unwrap();
        let message = pool.get_message_by_name(message).unwrap_or_else(|| panic!("no message of {name}"));
        assert!(message.get_field_by_name(field).is_some(), "no field {name}");
    }
    // Nothing of AuthConfig is told.
    let auth = pool.get_message_by_name("runtime.v1.AuthConfig").unwrap();
    assert!(auth.fields().all(|field| SECRET.contains(&field.full_name())));
}

#[test]
fn credentials_and_environments() {
    let auth = v1::AuthConfig { username: "me".into(), password: "hunter22".into(), ..Default::default() };
    let pull = v1::PullImageRequest { auth: Some(auth), ..Default::default() };
    let (json, done) = redacted("/runtime.v1.ImageService/PullImage", false, &pull);
    assert_eq!(json, json!({"auth": {"username": MARK, "password": MARK}}));
    assert_eq!((done.count, done.unknown), (2, 0));
    assert_eq!(done.text("401 for me:hunter22"), "401 for me:REDACTED");

    let config = v1::ContainerConfig {
        envs: vec![
            v1::KeyValue { key: "TOKEN".into(), value: b"s3cret".to_vec() },
            v1::KeyValue { key: "EMPTY".into(), value: Vec::new() },
        ],
        annotations: [(APPLIED.to_owned(), "{s3cret}".to_owned()), ("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    let create = v1::CreateContainerRequest { config: Some(config), ..Default::default() };
    let (json, done) = redacted("/runtime.v1.RuntimeService/CreateContainer", false, &create);
    // Base64 of the mark.
    assert_eq!(json["config"]["envs"], json!([{"key": "TOKEN", "value": "UkVEQUNURUQ="}, {"key": "EMPTY"}]));
    assert_eq!(json["config"]["annotations"], json!({APPLIED: MARK, "a": "b"}));
    assert_eq!(done.count, 2);
}

#[test]
fn tokens_of_streams() {
    let of = |url: &str| {
        let answer = v1::ExecResponse { url: url.into() };
        redacted("/runtime.v1.RuntimeService/Exec", true, &answer).0["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(of("https://[::1]:10010/exec/AbC-9?x=1"), "https://[::1]:10010/exec/REDACTED");
    assert_eq!(of("http://127.0.0.1:4/cri/attach/AbC"), "http://127.0.0.1:4/cri/REDACTED");
    for odd in ["/exec/AbC", "http://h/AbC", "AbC"] {
        assert_eq!(of(odd), MARK);
    }
}

#[test]
fn verbose_information_and_unknown_fields() {
    let info = [
        (
            "info",
            r#"{"pid":1,"runtimeSpec":{"process":{"env":["A=b","C="]}},"config":{"envs":[{"key":"K","value":"djE="}]}}"#,
        ),
        ("text", "no JSON"),
        ("plain", r#"{"pid":2}"#),
    ];
    let info = info.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let answer = v1::ContainerStatusResponse { info, ..Default::default() };
    let (json, done) = redacted("/runtime.v1.RuntimeService/ContainerStatus", true, &answer);
    assert_eq!((json["info"]["text"].as_str(), json["info"]["plain"].as_str()), (Some(MARK), Some(r#"{"pid":2}"#)));
    let inner: Json = serde_json::from_str(json["info"]["info"].as_str().unwrap()).unwrap();
    assert_eq!(inner["runtimeSpec"]["process"]["env"], json!(["A=REDACTED", "C="]));
    assert_eq!(inner["config"]["envs"][0]["value"], MARK);
    assert_eq!(done.count, 3);

    // Field 15 of a version to come.
    let method = messages::method("/runtime.v1.RuntimeService/Version").unwrap();
    let mut message = DynamicMessage::decode(method.request, &b"\x0a\x01x\x7a\x06s3cret"[..]).unwrap();
    assert_eq!(redact(&mut message).unknown, 1);
    assert_eq!(messages::to_json(&message).unwrap(), json!({"version": "x"}));
}
