//! `cri-daemon why`: a pod's start as a table, and one sentence: what it waits for, or what took the longest.
//!
//! The longest is the stage with the most time that no stage within it accounts for: a runtime's `create`, rather than
//! the call, the stage and the request around it. What lies within what follows from the times: see [`nesting`](super::nesting).

use std::fmt::Write as _;
use std::path::Path;

use shared_proto::seam::v1::stage::Place;
use shared_proto::seam::v1::{ExplainRequest, ExplainResponse, Request, Stage};

use super::client::{Client, said};
use super::nesting::{contains, depth};
use super::report::{short, time};

/// Prints why the start of `pod` takes, or took, so long.
pub async fn why(address: &Path, pod: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(address).await?;
    let answer = said(client.starts.explain(ExplainRequest { pod: pod.to_owned() }).await)?;
    print!("{}", render(&answer));
    Ok(())
}

fn render(pod: &ExplainResponse) -> String {
    let mut out = format!("{}/{}, {}\n{}\n", pod.namespace, pod.name, pod.state, pod.id);
    let first = pod.requests.first().map_or(0, |request| request.age_us);
    for request in &pod.requests {
        let (offset, so_far) = (time(first.saturating_sub(request.age_us)), how_it_ended(request.running, false));
        let _ = writeln!(out, "\n{} came after {offset} and took {}{so_far}", title(request), time(request.us));
        if !request.error.is_empty() {
            let _ = writeln!(out, "  failed: {}", request.error);
        }
        for stage in ordered(&request.stages) {
            let indent = "  ".repeat(depth(stage).min(3));
            let name = format!("{indent}{} {}", stage.name, short(&stage.detail));
            let (from, took) = (time(stage.start_us), time(stage.us));
            let ended = how_it_ended(stage.running, stage.failed);
            let _ = writeln!(out, "  {from:>9} {took:>9}  {:<5} {}{ended}", side(stage), name.trim_end());
        }
    }
    if !pod.core_error.is_empty() {
        let _ = writeln!(out, "\nWithout the core's own stages: {}", pod.core_error);
    }
    if !pod.other_tries.is_empty() {
        let _ = writeln!(out, "\nOther tries at this pod: {}", pod.other_tries.join(" "));
    }
    let _ = writeln!(out, "\n{}", sentence(pod));
    out
}

/// Each stage behind the one that it is a part of; otherwise in the order in which they began.
fn ordered(stages: &[Stage]) -> Vec<&Stage> {
    let outermost = |inner: &Stage| !stages.iter().any(|outer| contains(outer, inner));
    let mut left: Vec<&Stage> = stages.iter().filter(|stage| !outermost(stage)).collect();
    let mut ordered = Vec::with_capacity(stages.len());
    for outer in stages.iter().filter(|stage| outermost(stage)) {
        ordered.push(outer);
        let (within, others) = left.into_iter().partition(|inner| contains(outer, inner));
        left = others;
        ordered.extend::<Vec<_>>(within);
    }
    ordered
}

fn title(request: &Request) -> String {
    format!("{} {}", request.rpc, short(&request.subject)).trim_end().to_owned()
}

fn how_it_ended(running: bool, failed: bool) -> &'static str {
    match (running, failed) {
        (true, _) => " so far: under way",
        (false, true) => " failed",
        (false, false) => "",
    }
}

/// The one sentence.
fn sentence(pod: &ExplainResponse) -> String {
    if pod.requests.is_empty() {
        return "Nothing is known of its start: it was made before this daemon was started.".into();
    }
    if let Some(request) = pod.requests.iter().rev().find(|request| request.running) {
        return match waits_for(request) {
            Some(stage) => format!("{} waits for {}, for {} now.", title(request), words(stage), time(stage.us)),
            None => format!("{} is under way for {}, in nothing that is measured.", title(request), time(request.us)),
        };
    }
    let (longest, took) = match longest(pod) {
        (request, Some(stage)) => (format!("{} in {}", words(stage), title(request)), stage.us),
        (request, None) => (format!("{}, in nothing that is measured", title(request)), request.us),
    };
    let all = pod.requests.iter().map(|request| request.us).sum();
    let longest = format!("he longest was {longest}: {} of {}.", time(took), time(all));
    match pod.requests.iter().rev().find(|request| !request.error.is_empty()) {
        Some(failed) => format!("{} failed after {}; t{longest}", title(failed), time(failed.us)),
        None => format!("T{longest}"),
    }
}

/// The innermost of what is under way; of several, what goes on for the longest.
fn waits_for(request: &Request) -> Option<&Stage> {
    let running: Vec<&Stage> = request.stages.iter().filter(|stage| stage.running).collect();
    let innermost = running.iter().filter(|outer| !running.iter().any(|inner| contains(outer, inner)));
    innermost.max_by_key(|stage| stage.us).copied()
}

/// The stage with the most time of its own, of all requests; no stage: the request has more that no stage tells.
fn longest(pod: &ExplainResponse) -> (&Request, Option<&Stage>) {
    let all = pod.requests.iter().flat_map(|request| {
        let own = rest((0, request.us), request.stages.iter());
        let stages = request.stages.iter().map(move |stage| {
            let within = request.stages.iter().filter(|inner| contains(stage, inner));
            (rest((stage.start_us, stage.start_us + stage.us), within), request, Some(stage))
        });
        std::iter::once((own, request, None)).chain(stages)
    });
    let (_, request, stage) = all.max_by_key(|(own, ..)| *own).expect("a start has a request");
    (request, stage)
}

/// How much of an interval no stage covers.
fn rest<'a>((start, end): (u64, u64), stages: impl Iterator<Item = &'a Stage>) -> u64 {
    let mut covered: Vec<(u64, u64)> = stages.map(|stage| (stage.start_us, stage.start_us + stage.us)).collect();
    covered.sort_unstable();
    let (mut rest, mut at) = (0, start);
    for (from, to) in covered {
        rest += from.min(end).saturating_sub(at);
        at = at.max(to.min(end));
    }
    rest + end.saturating_sub(at)
}

fn side(stage: &Stage) -> &'static str {
    match stage.place() {
        Place::Cri => "cri",
        Place::Seam => "seam",
        Place::Core | Place::CoreStep => "core",
    }
}

/// A stage in the words of a sentence.
fn words(stage: &Stage) -> String {
    let (name, detail) = (stage.name.as_str(), short(&stage.detail));
    match stage.place() {
        Place::Seam => return format!("the way to the core and back of {name}"),
        Place::Core => return format!("the core's work on {name}"),
        Place::Cri | Place::CoreStep => {}
    }
    match name {
        "queue" => "its turn".into(),
        "image" => format!("the image {detail}"),
        "pull" => "the pull".into(),
        "spec" => "the OCI specification".into(),
        "user" => "the users in the image".into(),
        "netns" => "the network namespace".into(),
        "cni" => "the network, beside its plugins".into(),
        "cni-plugin" => format!("the CNI plugin {detail}"),
        "files" => "the pod's files".into(),
        "log" => "the container's log".into(),
        "snapshot" => format!("the snapshot ({detail})"),
        "rollback" => "the clean-up".into(),
        "bundle" => "the bundle".into(),
        "shim" => "the start of the shim".into(),
        "runtime-create" => "the runtime's create".into(),
        "runtime-start" => "the runtime's start".into(),
        "database" => "the database".into(),
        _ => format!("the stage {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(place: Place, name: &str, start: u64, ms: u64) -> Stage {
        let (start_us, us) = (start * 1000, ms * 1000);
        Stage { place: place.into(), name: name.into(), start_us, us, ..Default::default() }
    }

    /// 30 ms of network beside a task whose call takes 60 ms, and 5 ms for nothing.
    fn pod() -> ExplainResponse {
        let mut plugin = stage(Place::Cri, "cni-plugin", 6, 28);
        plugin.detail = "pods/bridge".into();
        let stages = vec![
            stage(Place::Cri, "queue", 0, 1),
            stage(Place::Cri, "cni", 5, 30),
            stage(Place::Cri, "task-create", 5, 60),
            stage(Place::Seam, "Tasks.create", 5, 60),
            plugin,
            stage(Place::Core, "Tasks.create", 6, 58),
            stage(Place::CoreStep, "shim", 7, 36),
            stage(Place::CoreStep, "runtime-create", 43, 20),
        ];
        let request =
            Request { rpc: "RunPodSandbox".into(), age_us: 900_000, us: 70_000, stages, ..Default::default() };
        ExplainResponse {
            namespace: "shop".into(),
            name: "web".into(),
            id: "ab12".into(),
            state: "ready".into(),
            requests: vec![request],
            ..Default::default()
        }
    }

    #[test]
    fn the_longest_is_what_no_part_accounts_for() {
        let mut pod = pod();
        assert_eq!(sentence(&pod), "The longest was the start of the shim in RunPodSandbox: 36.0 ms of 70.0 ms.");
        let mut pull =
            Request { rpc: "PullImage".into(), subject: "app:1".into(), us: 2_000_000, ..Default::default() };
        pod.requests.push(pull.clone());
        let said = sentence(&pod);
        assert_eq!(said, "The longest was PullImage app:1, in nothing that is measured: 2.00 s of 2.07 s.");
        pull.stages.push(stage(Place::Cri, "pull", 0, 1999));
        pod.requests[1] = pull;
        assert_eq!(sentence(&pod), "The longest was the pull in PullImage app:1: 2.00 s of 2.07 s.");
        pod.requests.clear();
        assert!(sentence(&pod).starts_with("Nothing is known"), "{}", sentence(&pod));
    }

    #[test]
    fn what_is_under_way_is_named_and_what_failed() {
        let mut pod = pod();
        let request = &mut pod.requests[0];
        request.running = true;
        for (at, us) in [(1, 9_001_000), (4, 9_000_000)] {
            (request.stages[at].running, request.stages[at].us) = (true, us);
        }
        assert_eq!(sentence(&pod), "RunPodSandbox waits for the CNI plugin pods/bridge, for 9.00 s now.");
        let request = &mut pod.requests[0];
        request.running = false;
        request.error = "pods/bridge: no address left".into();
        let said = sentence(&pod);
        assert!(said.starts_with("RunPodSandbox failed after 70.0 ms; the longest was the CNI plugin"), "{said}");
    }

    #[test]
    fn the_table_shows_both_sides_and_what_lies_within() {
        let mut pod = pod();
        pod.core_error = "the core is away".into();
        pod.other_tries.push("cd34".into());
        let out = render(&pod);
        let line = |part: &str| out.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {out}"));
        assert!(line("shop/web").ends_with("ready"), "{out}");
        let at = |part: &str| out.find(part).unwrap_or_else(|| panic!("{part}: {out}"));
        assert!(at("pods/bridge") < at("task-create") && at("task-create") < at("runtime-create"), "{out}");
        assert!(line(" queue").contains("cri   queue") && line("shim").contains("core        shim"), "{out}");
        assert!(line("pods/bridge").contains("   6.0 ms   28.0 ms  cri     cni-plugin pods/bridge"), "{out}");
        assert!(out.contains("the core is away") && out.contains("Other tries at this pod: cd34"), "{out}");
    }

    #[test]
    fn uncovered_time() {
        let stages = [stage(Place::Cri, "a", 1, 2), stage(Place::Cri, "b", 2, 3), stage(Place::Cri, "c", 9, 5)];
        assert_eq!(rest((0, 10_000), stages.iter()), 5_000);
        assert_eq!(rest((0, 10_000), [].iter()), 10_000);
    }
}
