//! The start of a pod as arrows between those who take part, in the order in which they were sent.
//!
//! ```text
//!  request      kubelet ──▶ CRI           stage of the CRI side   at CRI, unless calls stand for it
//!  call         CRI ──▶ core              part of the core        at the core; shim and runtime: ──▶ shim ──▶ runc
//!  CNI plugin   CRI ──▶ CNI plugins
//! ```
//!
//! Each but the parts has an answer. Branches of a start that ran side by side are interleaved here as they were then.
//! Limit: nobody measures what a shim does with runc, so these arrows have no time of their own.

use serde_json::Value;
use shared_proto::seam::v1::stage::Place;
use shared_proto::seam::v1::{Exchange, ExplainResponse, Request, Shown, Stage};

use super::super::nesting::contains;
use super::super::report::{bytes, short, time};

/// Who takes part, from left to right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Kubelet,
    Cri,
    Core,
    Shim,
    Engine,
    Plugins,
}

impl Who {
    pub const ALL: [Self; 6] = [Self::Kubelet, Self::Cri, Self::Core, Self::Shim, Self::Engine, Self::Plugins];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::Cri => "CRI",
            Self::Core => "core",
            Self::Shim => "shim",
            Self::Engine => "runc",
            Self::Plugins => "CNI plugins",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Messages are encoded, and go through a connection.
    Message,
    /// A function is called, or a program.
    Plain,
    Answer,
    /// Something that one does alone.
    Own,
    /// Known, not seen.
    Unseen,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Arrow {
    pub from: Who,
    pub to: Who,
    pub kind: Kind,
    /// Since the first request came.
    pub at_us: u64,
    pub text: String,
    pub message: Option<Shown>,
    pub failed: bool,
}

#[derive(Debug)]
pub struct Sequence {
    pub title: String,
    pub id: String,
    pub wiring: String,
    pub arrows: Vec<Arrow>,
    /// What can't be told, and why.
    pub remarks: Vec<String>,
}

impl Sequence {
    pub fn of(told: &ExplainResponse) -> Self {
        let mut drawing = Drawing { wiring: &told.wiring, arrows: Vec::new() };
        let first = told.requests.first().map_or(0, |request| request.age_us);
        for request in &told.requests {
            drawing.request(request, first.saturating_sub(request.age_us));
        }
        let mut arrows = drawing.arrows;
        // Stable: what has the same time stays in the order in which it was drawn, the outer around the inner.
        arrows.sort_by_key(|arrow| arrow.at_us);
        let watched = arrows.iter().any(|arrow| arrow.message.is_some());
        let mut remarks = Vec::new();
        if told.requests.is_empty() {
            remarks.push("Nothing is known of its start: it was made before this daemon was started.".to_owned());
        } else if !watched {
            remarks.push("Without messages: nobody watched this start (see --manifest and --wait).".to_owned());
        }
        if !told.core_error.is_empty() {
            remarks.push(format!("Without the core's own part: {}.", told.core_error));
        }
        Self {
            title: format!("{}/{}, {}", told.namespace, told.name, told.state),
            id: told.id.clone(),
            wiring: told.wiring.clone(),
            arrows,
            remarks,
        }
    }

    /// Those who take part.
    pub fn lanes(&self) -> Vec<Who> {
        let takes_part = |who: &Who| self.arrows.iter().any(|arrow| arrow.from == *who || arrow.to == *who);
        Who::ALL.into_iter().filter(takes_part).collect()
    }

    /// Whether CRI and core are one process.
    pub fn one_process(&self) -> bool {
        matches!(self.wiring.as_str(), "merged" | "loopback")
    }
}

/// Arrows in the making. The end of what lies within is drawn before the end of what is around it.
struct Drawing<'a> {
    wiring: &'a str,
    arrows: Vec<Arrow>,
}

/// One call: between whom, when, and what is said of it.
struct Call<'a> {
    between: (Who, Who),
    kind: Kind,
    from_us: u64,
    us: u64,
    running: bool,
    failed: bool,
    exchange: Option<&'a Exchange>,
    text: String,
    /// How long it took, in the answer.
    took: String,
}

impl Drawing<'_> {
    fn request(&mut self, request: &Request, offset: u64) {
        let failed = !request.error.is_empty();
        let call = Call {
            between: (Who::Kubelet, Who::Cri),
            kind: Kind::Message,
            from_us: offset,
            us: request.us,
            running: request.running,
            failed,
            exchange: request.exchange.as_ref(),
            text: format!("gRPC {} {}", request.rpc, short(&request.subject)).trim_end().to_owned(),
            took: match failed {
                true => format!("{} failed after {}: {}", request.rpc, time(request.us), request.error),
                false => format!("{} took {}", request.rpc, time(request.us)),
            },
        };
        self.call(call, |drawing| {
            for stage in &request.stages {
                match stage.place() {
                    Place::Cri => drawing.cri(request, stage, offset),
                    Place::Seam => drawing.seam(request, stage, offset),
                    // Drawn within the call that it belongs to.
                    Place::Core | Place::CoreStep => {}
                }
            }
        });
    }

    /// A stage of the CRI side; one with calls in it is told by these.
    fn cri(&mut self, request: &Request, stage: &Stage, offset: u64) {
        if stage.name == "cni-plugin" {
            let text = format!("exec {}", stage.detail);
            let call = Call::new(stage, (Who::Cri, Who::Plugins), Kind::Plain, offset, text);
            return self.call(call, |_| {});
        }
        let has_parts = request.stages.iter().any(|inner| contains(stage, inner));
        if !has_parts {
            self.own(Who::Cri, stage, offset);
        }
    }

    /// A call on the core, with what the core did for it.
    fn seam(&mut self, request: &Request, stage: &Stage, offset: u64) {
        let (how, kind) = match self.wiring {
            "split" => ("gRPC ", Kind::Message),
            "loopback" => ("gRPC over a pipe ", Kind::Message),
            _ => ("", Kind::Plain),
        };
        let inner = |place: Place| {
            let is_it = move |inner: &&Stage| inner.place() == place && contains(stage, inner);
            request.stages.iter().filter(is_it)
        };
        let served = inner(Place::Core).find(|served| served.name == stage.name);
        let mut call = Call::new(stage, (Who::Cri, Who::Core), kind, offset, format!("{how}{}", stage.name));
        if let (Some(served), Kind::Message, false) = (served, kind, stage.failed || stage.running) {
            call.took += &format!(", of it {} on the way", time(stage.us.saturating_sub(served.us)));
        }
        self.call(call, |drawing| {
            for step in inner(Place::CoreStep) {
                drawing.step(request, step, offset, (offset + stage.start_us, offset + stage.start_us + stage.us));
            }
        });
    }

    /// A part of the core's work, which lies within the call whatever two clocks' readings say.
    fn step(&mut self, request: &Request, step: &Stage, offset: u64, within: (u64, u64)) {
        let from = (offset + step.start_us).clamp(within.0, within.1);
        let to = (offset + step.start_us + step.us).clamp(from, within.1);
        let step = Stage { start_us: from - offset, us: to - from, ..step.clone() };
        // A container's shim is the pod's: then nothing is run.
        let starts_shim = step.exchange.is_some() || request.rpc == "RunPodSandbox";
        let (text, engine) = match step.name.as_str() {
            "shim" if starts_shim => ("exec the shim's start", None),
            "runtime-create" => ("ttrpc Task.Create", Some("exec runc create")),
            "runtime-start" => ("ttrpc Task.Start", Some("exec runc start")),
            _ => return self.own(Who::Core, &step, offset),
        };
        let kind = if engine.is_some() { Kind::Message } else { Kind::Plain };
        let mut call = Call::new(&step, (Who::Core, Who::Shim), kind, offset, text.to_owned());
        call.us = step.us;
        self.call(call, |drawing| {
            if let Some(engine) = engine {
                drawing.arrows.push(Arrow {
                    from: Who::Shim,
                    to: Who::Engine,
                    kind: Kind::Unseen,
                    at_us: from,
                    text: format!("{engine}, not measured by itself"),
                    message: None,
                    failed: false,
                });
            }
        });
    }

    fn own(&mut self, who: Who, stage: &Stage, offset: u64) {
        let mut text = format!("{} {}", stage.name, short(&stage.detail)).trim_end().to_owned();
        text += &match stage.running {
            true => format!(", for {} so far", time(stage.us)),
            false => format!(", {}", time(stage.us)),
        };
        let at_us = offset + stage.start_us;
        self.arrows.push(Arrow {
            from: who,
            to: who,
            kind: Kind::Own,
            at_us,
            text,
            message: None,
            failed: stage.failed,
        });
    }

    fn call(&mut self, call: Call, within: impl FnOnce(&mut Self)) {
        let (from, to) = call.between;
        let (sent, received) = call.exchange.map(|e| (e.sent.clone(), e.received.clone())).unwrap_or_default();
        let size = |message: &Option<Shown>| match (message, call.kind) {
            // Where nothing is encoded nothing has a size.
            (Some(message), Kind::Message) => format!(" ({})", bytes(message.bytes)),
            _ => String::new(),
        };
        let text = format!("{}{}", call.text, size(&sent));
        let answer = format!("{}{}", call.took, size(&received));
        self.arrows.push(Arrow { from, to, kind: call.kind, at_us: call.from_us, text, message: sent, failed: false });
        within(self);
        if !call.running {
            let (at_us, failed) = (call.from_us + call.us, call.failed);
            let back = Arrow { from: to, to: from, kind: Kind::Answer, at_us, text: answer, message: received, failed };
            self.arrows.push(back);
        }
    }
}

impl<'a> Call<'a> {
    fn new(stage: &'a Stage, between: (Who, Who), kind: Kind, offset: u64, text: String) -> Self {
        Self {
            between,
            kind,
            from_us: offset + stage.start_us,
            us: stage.us,
            running: stage.running,
            failed: stage.failed,
            exchange: stage.exchange.as_ref(),
            text,
            took: match stage.failed {
                true => format!("failed after {}", time(stage.us)),
                false => time(stage.us),
            },
        }
    }
}

/// A message in `lines` lines of `width` characters: without quotes around names, ids shortened.
pub fn brief(message: &Shown, width: usize, lines: usize) -> Vec<String> {
    let text = match serde_json::from_str::<Value>(&message.text) {
        Ok(value) => inline(&value),
        Err(_) => message.text.split(' ').map(shortened).collect::<Vec<_>>().join(" "),
    };
    let chars: Vec<char> = text.chars().collect();
    let mut brief: Vec<String> = chars.chunks(width).take(lines).map(|line| line.iter().collect()).collect();
    if chars.len() > width * lines
        && let Some(last) = brief.last_mut()
    {
        last.pop();
        last.push('…');
    }
    brief
}

fn inline(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", inline(value)));
            format!("{{{}}}", list(fields.collect()))
        }
        Value::Array(items) => format!("[{}]", list(items.iter().map(inline).collect())),
        Value::String(text) => shortened(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A long text's beginning; of ids within it less than half.
fn shortened(text: &str) -> String {
    const ID: usize = 64;
    const TEXT: usize = 96;
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let (id, after) = rest.split_at(word);
        out += if id.len() == ID { &id[..12] } else { id };
        let other = after.find(|c: char| c.is_ascii_hexdigit()).unwrap_or(after.len());
        out += &after[..other];
        rest = &after[other..];
    }
    match out.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", &out[..end]),
        None => out,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn shown(text: &str, bytes: u64) -> Shown {
        Shown { r#type: "json".into(), text: text.into(), bytes }
    }

    fn stage(place: Place, name: &str, start: u64, ms: u64) -> Stage {
        let (start_us, us) = (start * 1000, ms * 1000);
        Stage { place: place.into(), name: name.into(), start_us, us, ..Default::default() }
    }

    /// A network of 20 ms beside a task; one container whose start fails.
    pub fn told(wiring: &str) -> ExplainResponse {
        let mut create = stage(Place::Seam, "Tasks.create", 6, 60);
        create.exchange = Some(Exchange {
            sent: Some(shown(r#"{"container_id":"ab","note":"<a & b>"}"#, 1500)),
            received: Some(shown(r#"{"pid":7}"#, 2)),
        });
        let mut plugin = stage(Place::Cri, "cni-plugin", 7, 20);
        plugin.detail = "pods/bridge".into();
        let stages = vec![
            stage(Place::Cri, "netns", 1, 2),
            stage(Place::Cri, "cni", 5, 23),
            stage(Place::Cri, "task-create", 5, 62),
            create,
            plugin,
            stage(Place::Core, "Tasks.create", 7, 58),
            stage(Place::CoreStep, "shim", 8, 30),
            stage(Place::CoreStep, "runtime-create", 39, 25),
        ];
        let run = Request { rpc: "RunPodSandbox".into(), age_us: 900_000, us: 70_000, stages, ..Default::default() };
        let start = Request {
            rpc: "StartContainer".into(),
            subject: "main".into(),
            age_us: 800_000,
            us: 5_000,
            error: "no such file".into(),
            stages: vec![stage(Place::Seam, "Tasks.create", 1, 3), stage(Place::CoreStep, "shim", 2, 0)],
            ..Default::default()
        };
        ExplainResponse {
            namespace: "shop".into(),
            name: "web".into(),
            id: "ab".into(),
            state: "ready".into(),
            wiring: wiring.into(),
            requests: vec![run, start],
            ..Default::default()
        }
    }

    #[test]
    fn the_arrows_are_in_the_order_in_which_they_were_sent() {
        let sequence = Sequence::of(&told("split"));
        let seen = |arrow: &Arrow| format!("{}>{} {}", arrow.from.name(), arrow.to.name(), arrow.text);
        let arrows: Vec<String> = sequence.arrows.iter().map(seen).collect();
        assert_eq!(
            arrows,
            [
                "kubelet>CRI gRPC RunPodSandbox",
                "CRI>CRI netns, 2.0 ms",
                "CRI>core gRPC Tasks.create (1.5 KiB)",
                "CRI>CNI plugins exec pods/bridge",
                "core>shim exec the shim's start",
                "CNI plugins>CRI 20.0 ms",
                "shim>core 30.0 ms",
                "core>shim ttrpc Task.Create",
                "shim>runc exec runc create, not measured by itself",
                "shim>core 25.0 ms",
                "core>CRI 60.0 ms, of it 2.0 ms on the way (2 B)",
                "CRI>kubelet RunPodSandbox took 70.0 ms",
                "kubelet>CRI gRPC StartContainer main",
                "CRI>core gRPC Tasks.create",
                "core>core shim, 0.0 ms",
                "core>CRI 3.0 ms",
                "CRI>kubelet StartContainer failed after 5.0 ms: no such file",
            ]
        );
        assert_eq!(sequence.lanes(), Who::ALL);
        assert!(!sequence.one_process() && sequence.arrows[12].at_us == 100_000);
    }

    #[test]
    fn a_merged_call_is_a_plain_one() {
        let sequence = Sequence::of(&told("merged"));
        let calls: Vec<&Arrow> = sequence.arrows.iter().filter(|a| (a.from, a.to) == (Who::Cri, Who::Core)).collect();
        assert!(calls.iter().all(|call| call.text == "Tasks.create" && call.kind == Kind::Plain), "{calls:?}");
        assert!(sequence.arrows.iter().all(|arrow| !arrow.text.contains("on the way")) && sequence.one_process());
    }

    #[test]
    fn a_message_is_short() {
        let id = "0123456789abcdef".repeat(4);
        let message = shown(&format!(r#"{{"id":"{id}","list":[1,true],"path":"/x/{id}/y"}}"#), 9);
        let all = "{id: 0123456789ab, list: [1, true], path: /x/0123456789ab/y}";
        assert_eq!(brief(&message, 100, 2), [all]);
        assert_eq!(brief(&message, 20, 2), [&all[..20], &format!("{}…", &all[20..39])]);
        assert_eq!(brief(&shown("shim -id ab start", 9), 100, 1), ["shim -id ab start"]);
    }
}
