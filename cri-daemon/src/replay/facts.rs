//! What the whole recording says about a thing: enough to tell a difference of timing from one of behaviour.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::compare::{Difference, counts};
use super::recording::{Recorded, Recording};
use crate::recorder::messages::short;

/// By a thing and a name, what was seen in calls that began when.
type History<T> = HashMap<(String, String), Vec<(u64, T)>>;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Facts {
    /// Pods and containers that the recording makes.
    made: HashSet<String>,
    /// The images that it pulls.
    pulled: HashSet<String>,
    /// A container's pod.
    pod_of: HashMap<String, String>,
    /// What was seen of a field of a thing, and in a call that began when.
    seen: History<Option<Value>>,
    /// The fields that a thing had in the answer of a method, and in a call that began when.
    shown: History<Vec<String>>,
    /// Calls that change a thing: when they began and ended.
    changes: HashMap<String, Vec<(u64, u64)>>,
}

impl Facts {
    pub fn of(recording: &Recording) -> Self {
        let mut facts = Self::default();
        for recorded in &recording.calls {
            facts.add(recorded);
        }
        facts
    }

    fn add(&mut self, recorded: &Recorded) {
        let call = &recorded.call;
        let (request, response) = (call.request.json.as_ref(), call.response.json.as_ref());
        let text = |value: Option<&Value>, field: &str| {
            value.and_then(|value| value.get(field)).and_then(Value::as_str).map(str::to_owned)
        };
        let mut about: Vec<String> = ["pod_sandbox_id", "container_id"]
            .iter()
            .flat_map(|field| [text(request, field), text(response, field)])
            .flatten()
            .collect();
        match short(&call.method) {
            "RunPodSandbox" => self.made.extend(text(response, "pod_sandbox_id")),
            "CreateContainer" => {
                let container = text(response, "container_id");
                self.made.extend(container.clone());
                if let (Some(container), Some(pod)) = (container, text(request, "pod_sandbox_id")) {
                    self.pod_of.insert(container, pod);
                }
            }
            "PullImage" => self.pulled.extend(text(response, "image_ref")),
            _ => {}
        }
        if !is_read(&call.method) {
            // An image is as good as a name of it: pulls and removals of any concern all of them.
            if call.method.contains("ImageService") {
                about.push("images".into());
            }
            for thing in about {
                self.changes.entry(thing).or_default().push((call.start_ns, recorded.end_ns()));
            }
        } else if let Some(response) = response {
            self.look((call.start_ns, short(&call.method)), None, "", response);
        }
    }

    /// Notes the fields of the things in an answer.
    fn look(&mut self, when: (u64, &str), object: Option<&str>, field: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                let id = fields.get("id").and_then(Value::as_str);
                if let Some(id) = id {
                    let names = fields.keys().cloned().collect();
                    self.shown.entry((id.to_owned(), when.1.to_owned())).or_default().push((when.0, names));
                }
                fields.iter().for_each(|(name, value)| self.look(when, id.or(object), name, value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.look(when, object, field, item)),
            leaf => {
                if let Some(object) = object {
                    let seen = self.seen.entry((object.to_owned(), field.to_owned())).or_default();
                    seen.push((when.0, counts(field, Some(leaf))));
                }
            }
        }
    }

    /// Whether the recording made this pod or container.
    pub fn made(&self, id: &str) -> bool {
        self.made.contains(id)
    }

    pub fn pulled(&self, image: &str) -> bool {
        self.pulled.contains(image)
    }

    /// Whether the recording shows the replayed value of the same field of the same thing, in a later call.
    pub fn comes_later(&self, recorded: &Recorded, difference: &Difference) -> bool {
        let Some(object) = &difference.object else { return false };
        let (field, end) = (difference.field(), recorded.end_ns());
        if let Some(state) = asked_state(recorded).filter(|_| difference.path.ends_with(']')) {
            // Only things in one state were asked for: has it left that state later, or come into it?
            let seen = self.seen.get(&(object.clone(), "state".to_owned()));
            let left = difference.replayed.is_none();
            return seen.is_some_and(|seen| seen.iter().any(|(at, value)| *at > end && (*value != state) == left));
        }
        let replayed = counts(field, difference.replayed.as_ref());
        if replayed.is_some() {
            let seen = self.seen.get(&(object.clone(), field.to_owned()));
            return seen.is_some_and(|seen| seen.iter().any(|(at, value)| *at > end && *value == replayed));
        }
        // It had the field in this answer, and a later one of the same method shows it without.
        let shown = self.shown.get(&(object.clone(), short(&recorded.call.method).to_owned()));
        let has = |names: &Vec<String>| names.iter().any(|name| name == field);
        shown.is_some_and(|shown| {
            shown.iter().any(|(at, names)| *at == recorded.call.start_ns && has(names))
                && shown.iter().any(|(at, names)| *at > end && !has(names))
        })
    }

    /// Whether something changed the thing while the call went on, so that both answers are right.
    pub fn changed_meanwhile(&self, recorded: &Recorded, thing: &str) -> bool {
        let (start, end) = (recorded.call.start_ns, recorded.end_ns());
        let overlaps = |thing: &str| {
            self.changes.get(thing).is_some_and(|changes| changes.iter().any(|(from, to)| *from < end && *to > start))
        };
        overlaps(thing) || self.pod_of.get(thing).is_some_and(|pod| overlaps(pod))
    }
}

/// The state that a list was asked for, if it was; none within is the first one of the enum.
fn asked_state(recorded: &Recorded) -> Option<Option<Value>> {
    let state = recorded.call.request.json.as_ref()?.pointer("/filter/state")?;
    Some(state.get("state").cloned())
}

/// Whether a method only asks.
pub fn is_read(method: &str) -> bool {
    let name = short(method);
    let begins = ["List", "Stream", "Get"].iter().any(|word| name.starts_with(word));
    begins
        || name.ends_with("Status")
        || name.ends_with("Stats")
        || matches!(name, "Version" | "ImageFsInfo" | "RuntimeConfig" | "Explain")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::compare::differences;
    use super::*;
    use crate::recorder::format::{Call, Content};

    pub fn recorded(method: &str, (start_ns, took_ns): (u64, u64), request: Value, response: Value) -> Recorded {
        let content = |json| Content { json: Some(json), ..Default::default() };
        let method = format!("/runtime.v1.RuntimeService/{method}");
        let (request, response, code) = (content(request), content(response), Some("OK".into()));
        let call = Call { method, start_ns, took_ns, request, response, code, ..Default::default() };
        Recorded { call, messages: Vec::new() }
    }

    #[test]
    fn times_and_states() {
        let status = |at, state: &str| {
            let answer = json!({"status": {"id": "c", "state": state, "finished_at": "7"}});
            recorded("ContainerStatus", (at, 1), json!({"container_id": "c"}), answer)
        };
        let running = || {
            recorded(
                "ContainerStatus",
                (50, 1),
                json!({"container_id": "c"}),
                json!({"status": {"id": "c", "state": "R"}}),
            )
        };
        let create = recorded("CreateContainer", (10, 5), json!({"pod_sandbox_id": "p"}), json!({"container_id": "c"}));
        let stop = recorded("StopPodSandbox", (60, 10), json!({"pod_sandbox_id": "p"}), json!({}));
        let list = recorded("ListContainers", (65, 10), json!({}), json!({}));
        let calls = vec![create, status(40, "W"), running(), stop, list.clone(), status(90, "E")];
        let facts = Facts::of(&Recording { calls, ..Default::default() });
        assert!(facts.made("c") && !facts.made("p"));

        let seen = |state: &str| {
            let replayed = json!({"status": {"id": "c", "state": state, "finished_at": "9"}});
            let found = differences(running().call.response.json.as_ref().unwrap(), &replayed);
            let state = found.iter().find(|difference| difference.field() == "state").unwrap().clone();
            let time = found.into_iter().find(|difference| difference.field() == "finished_at").unwrap();
            (facts.comes_later(&running(), &state), facts.comes_later(&running(), &time))
        };
        assert_eq!(seen("E"), (true, true), "it ended sooner");
        assert_eq!(seen("W"), (false, true), "it is not what it was before");
        // A list of what runs, in which it is not any more.
        let running_ones = json!({"filter": {"state": {"state": "R"}}});
        let one = json!({"containers": [{"id": "c", "state": "R"}]});
        let listed = recorded("ListContainers", (55, 1), running_ones, one.clone());
        let gone = &differences(&one, &json!({}))[0];
        assert!(facts.comes_later(&listed, gone), "it ends later in the recording");
        let always = recorded("ListContainers", (55, 1), json!({}), one.clone());
        assert!(!facts.comes_later(&always, gone), "a list of everything has it as long as it is there");
        assert!(facts.changed_meanwhile(&list, "c"), "its pod was being stopped");
        assert!(!facts.changed_meanwhile(&running(), "c"));
        assert!(is_read("/a/ImageStatus") && is_read("/a/GetContainerEvents") && !is_read("/a/StopContainer"));
    }
}
