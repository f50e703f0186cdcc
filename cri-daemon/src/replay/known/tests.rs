//! That a reason is found where there is one, and none where there is none.

use serde_json::json;

use super::*;
use crate::recorder::format::{Call, Content};
use crate::replay::compare::differences;
use crate::replay::recording::Recording;

/// A recorded call that answered `answer` with OK.
fn recorded(method: &str, answer: &Value) -> Recorded {
    let method =
        format!("/runtime.v1.{}/{method}", if method.contains("Image") { "ImageService" } else { "RuntimeService" });
    let content = |json| Content { json: Some(json), ..Default::default() };
    let (request, response) = (content(json!({"container_id": "c"})), content(answer.clone()));
    let call =
        Call { method, start_ns: 10, took_ns: 5, code: Some("OK".into()), request, response, ..Default::default() };
    Recorded { call, messages: Vec::new() }
}

/// The reasons of the differences between two answers of a method, on the same runtime or on another.
fn reasons(method: &str, theirs: &Value, ours: &Value, same_runtime: bool) -> Vec<Option<&'static str>> {
    let recorded = recorded(method, theirs);
    let mut create = Recorded::default();
    create.call.method = "/runtime.v1.RuntimeService/CreateContainer".into();
    create.call.response.json = Some(json!({"container_id": "c"}));
    let facts = Facts::of(&Recording { calls: vec![create, recorded.clone()], ..Default::default() });
    let of = |difference: &Difference| {
        let (recorded, facts, images) = (&recorded, &facts, &["sha256:there".to_owned()][..]);
        let case = Case { recorded, difference, facts, same_runtime, images, without_credentials: false, failed: &[] };
        explain(&case).map(|known| known.name)
    };
    differences(theirs, ours).iter().map(of).collect()
}

#[test]
fn what_a_container_did_is_never_explained() {
    let status = |code: u8, mount: &str| json!({"status": {"id": "c", "exit_code": code, "mounts": [{"container_path": mount}]}});
    for same in [true, false] {
        let found = reasons("ContainerStatus", &status(7, "/a"), &status(8, "/b"), same);
        assert_eq!(found, [None, None, None], "the code, and two mounts of one side each");
    }
    let pod = |network| json!({"status": {"id": "p", "state": "SANDBOX_READY", "network": network}});
    assert_eq!(reasons("PodSandboxStatus", &pod(json!({"ip": "10.0.0.1"})), &pod(json!({})), false), [None]);
}

#[test]
fn other_runtimes_may_tell_less_and_the_same_may_not() {
    let all = json!({"stats": {"attributes": {"id": "c"}, "memory": {"rss_bytes": {}, "usage_bytes": {}}, "swap": {}}});
    let less = json!({"stats": {"attributes": {"id": "c"}, "memory": {"usage_bytes": {}}}});
    let of = |same| reasons("ContainerStats", &all, &less, same);
    assert_eq!(of(false), [Some("other figures"), Some("another CRI")]);
    assert_eq!(of(true), [None, None]);
    let conditions = |name: &str| json!({"status": {"conditions": [{"type": name, "status": true}]}});
    let of = |name| reasons("Status", &conditions(name), &json!({}), false);
    assert_eq!((of("Other")[0], of("NetworkReady")[0]), (None, None), "the whole status is missing");
    let of = |name| reasons("Status", &conditions(name), &json!({"status": {}}), false);
    assert_eq!((of("Other")[0], of("NetworkReady")[0]), (Some("other conditions"), None));
}

#[test]
fn things_and_images_of_others() {
    let list = |id: &str| json!({"containers": [{"id": id, "state": "CONTAINER_RUNNING"}]});
    assert_eq!(reasons("ListContainers", &json!({}), &list("x"), true), [Some("not of this recording")]);
    assert_eq!(reasons("ListContainers", &list("c"), &json!({}), true), [None], "the recording made it");
    let image = |id: &str| json!({"image": {"id": id, "size": "5"}});
    assert_eq!(reasons("ImageStatus", &json!({}), &image("sha256:there"), true), [Some("other images")]);
    assert_eq!(reasons("ImageStatus", &json!({}), &image("sha256:new"), true), [None]);
    let bigger = json!({"image": {"id": "sha256:there", "size": "6"}});
    assert_eq!(reasons("ImageStatus", &image("sha256:there"), &bigger, true), [None], "the same image is the same");
    let pulled = json!({"image_ref": "sha256:a"});
    assert_eq!(reasons("PullImage", &pulled, &json!({"image_ref": "sha256:b"}), false), [None]);
}
