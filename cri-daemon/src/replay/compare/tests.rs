//! What is a difference, and what is none.

use serde_json::json;

use super::*;

fn paths(recorded: &Value, replayed: &Value) -> Vec<String> {
    differences(recorded, replayed).into_iter().map(|difference| difference.path).collect()
}

#[test]
fn what_must_differ_is_no_difference() {
    let a = json!({"status": {"id": "x", "created_at": "1", "network": {"ip": "10.0.0.1"}, "info": {"a": "b"}},
        "cpu": {"timestamp": "5", "usage_core_nano_seconds": {"value": "9"}, "usage_nano_cores": {}},
        "url": "http://127.0.0.1:1/exec/REDACTED", "fs_id": {"mountpoint": "/a"}});
    let b = json!({"status": {"id": "x", "created_at": "2", "network": {"ip": "10.0.0.2"}, "info": {"c": "d"}},
        "cpu": {"timestamp": "6", "usage_core_nano_seconds": {}},
        "url": "http://127.0.0.1:2/exec/REDACTED", "fs_id": {"mountpoint": "/b"}});
    assert_eq!(differences(&a, &b), []);
}

#[test]
fn what_is_there_on_one_side_and_what_has_another_value() {
    let a = json!({"status": {"id": "x", "created_at": "1", "exit_code": 1, "network": {"ip": "10.0.0.1"}}});
    let b = json!({"status": {"id": "x", "network": {"ip": "fd00::1"}}, "more": "text"});
    assert_eq!(paths(&a, &b), ["more", "status.created_at", "status.exit_code", "status.network.ip"]);
    let found = differences(&a, &b);
    assert_eq!(
        (found[2].field(), found[2].object.as_deref(), found[2].replayed.as_ref()),
        ("exit_code", Some("x"), None)
    );
    assert_eq!(paths(&json!({"url": "http://h:1/exec/R"}), &json!({"url": "http://h:1/attach/R"})), ["url"]);
}

#[test]
fn lists_are_compared_by_name_in_any_order() {
    let id = "ab".repeat(32);
    let a = json!({"items": [{"id": "1", "state": "A"}, {"id": id, "state": "A"}], "tags": ["x", "y"]});
    let b = json!({"items": [{"id": id, "state": "B"}, {"id": "1", "state": "A"}], "tags": ["y", "x"]});
    assert_eq!(paths(&a, &b), ["items[abababababab].state"]);
    let found = &differences(&a, &b)[0];
    assert_eq!((found.object.as_deref(), found.field()), (Some(id.as_str()), "state"));

    let gone = json!({"items": [{"id": "1", "state": "A"}], "tags": ["x", "y", "z"]});
    let found = differences(&a, &gone);
    assert_eq!(found[0].path, "items[abababababab]");
    assert!(found[0].object.as_deref() == Some(&id) && found[0].field() == "items");
    assert_eq!(found[1].path, "tags[z]");
    assert_eq!(paths(&json!({"items": []}), &json!({})), [] as [&str; 0]);
    assert_eq!(paths(&json!({}), &json!({"items": [{"id": "1"}]})), ["items[1]"]);
    // Things without a name go by their place; two of one name are two.
    assert_eq!(paths(&json!({"l": [{"v": 1}, {"v": 2}]}), &json!({"l": [{"v": 1}]})), ["l[1]"]);
    assert_eq!(paths(&json!({"l": ["a", "a"]}), &json!({"l": ["a"]})), ["l[a#1]"]);
    let stats = |value| json!({"stats": [{"attributes": {"id": id}, "cpu": value}]});
    assert_eq!(differences(&stats(json!({})), &stats(json!({"x": 1})))[0].object.as_deref(), Some(id.as_str()));
}
