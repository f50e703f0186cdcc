//! Experiment: where the time of one pod's start goes, in the three wirings side by side.
//!
//! Of several starts in turn, the one with the median length is drawn, from what `cri-daemon why` would say of it. A call
//! on the core is seen by both sides; what CRI's view of it is longer by is the way there and back. Calls go on side by
//! side, so of the ways the union is taken: the time in which something was on its way.

use anyhow::Context as _;
use e2e::World;
use shared_proto::seam::v1::starts_client::StartsClient;
use shared_proto::seam::v1::{ExplainRequest, ExplainResponse, stage};
use shared_proto::transport;

use super::Settings;
use crate::engine::Engine;
use crate::load;
use crate::report::{Experiment, Lane, Part, Place, Row, Stage, Table, Timelines, rounded, show};
use crate::trio::{self, WIRINGS};

/// Two processes note the ends of one thing: they may differ by so much, microseconds.
const SLACK: f64 = 500.0;

pub async fn run(settings: &Settings) -> anyhow::Result<Experiment> {
    let engine = Engine::Runc.binary()?;
    let worlds =
        trio::start(|wiring| e2e::config::Options { engine: Some(engine.clone()), ..trio::options(wiring) }).await;
    let mut starts: [Vec<Lane>; 3] = Default::default();
    let rounds = settings.pick(15, 3);
    for round in 0..=rounds {
        (settings.tell)("starts, explained", round as f64 / rounds as f64);
        for which in settings.turns(round) {
            let explained = start(&worlds[which], &format!("told-{round}")).await?;
            // The first round is a warm-up.
            if round > 0 {
                starts[which].push(lane(WIRINGS[which].name(), &explained));
            }
        }
    }
    let mut experiment = Experiment {
        name: "timeline".into(),
        title: "One start".into(),
        question: "Where does the time of one pod's start go, and how much of it is something on its way between CRI and core?".into(),
        notes: vec![
            "Grey is a request, blue what the CRI side did, amber a call on the core as the CRI side saw it, green the core, and \
             red the time in which something was on its way."
                .into(),
            "Drawn is the start of median length; a table tells all of them. Calls that the core did not note count as no \
             way at all. Gaps between requests are the client's."
                .into(),
        ],
        ..Experiment::default()
    };
    let of = |lanes: &[Lane], value: fn(&Lane) -> f64| lanes.iter().map(value).collect::<Vec<_>>();
    let mut rows = Vec::new();
    let mut lanes = Vec::new();
    for (wiring, mut all) in WIRINGS.iter().zip(starts) {
        let (totals, hops) = (of(&all, |lane| lane.total_ms), of(&all, |lane| lane.hop_ms));
        let median = |values: &[f64]| crate::stats::percentile(values, 0.5);
        let (total, hop) = (median(&totals), median(&hops));
        rows.push(Row { name: wiring.name().into(), cells: [total, hop, hop / total * 100.0].map(Some).into() });
        experiment.findings.push(format!(
            "{}: of a start of {} ms, something is on the way for {} ms, {} %.",
            wiring.name(),
            show(total),
            show(hop),
            show(hop / total * 100.0)
        ));
        experiment.raw.insert(format!("{}/start, ms", wiring.name()), rounded(&totals));
        experiment.raw.insert(format!("{}/on the way, ms", wiring.name()), rounded(&hops));
        all.sort_by(|a, b| a.total_ms.total_cmp(&b.total_ms));
        let middle = all.len().div_ceil(2) - 1;
        lanes.push(all.swap_remove(middle));
    }
    let columns = ["medians", "start, ms", "on the way, ms", "share, %"].map(String::from).into();
    experiment.parts.push(Part::Timelines(Timelines { title: "One start of median length".into(), lanes }));
    experiment.parts.push(Part::Table(Table { title: "All starts".into(), columns, rows }));
    Ok(experiment)
}

async fn start(world: &World, name: &str) -> anyhow::Result<ExplainResponse> {
    let pod = load::start(world, name).await;
    let mut starts = StartsClient::new(transport::unix(&world.paths.cri_socket));
    let explained = starts.explain(ExplainRequest { pod: pod.id.clone() }).await.context("Explain")?.into_inner();
    anyhow::ensure!(explained.core_error.is_empty(), "without the core's stages: {}", explained.core_error);
    world.cri().end_pod(&pod.id).await;
    Ok(explained)
}

/// All requests of a start on one line of time, which begins with the first of them.
fn lane(name: &str, pod: &ExplainResponse) -> Lane {
    let first = pod.requests.first().map_or(0, |request| request.age_us);
    let (mut stages, mut hops, mut total) = (Vec::new(), Vec::new(), 0.0f64);
    for request in &pod.requests {
        let came = first.saturating_sub(request.age_us) as f64;
        total = total.max(came + request.us as f64);
        let drawn = |name: &str, place, start: f64, us: u64| Stage {
            name: name.to_owned(),
            place,
            start_ms: ms(start),
            ms: ms(us as f64),
        };
        stages.push(drawn(&request.rpc, Place::Request, came, request.us));
        for stage in &request.stages {
            let place = match stage.place() {
                stage::Place::Cri => Place::Cri,
                stage::Place::Seam => Place::Seam,
                stage::Place::Core | stage::Place::CoreStep => Place::Core,
            };
            stages.push(drawn(&stage.name, place, came + stage.start_us as f64, stage.us));
        }
        hops.extend(ways(&request.stages).into_iter().map(|(from, to)| (came + from, came + to)));
    }
    let hops = union(hops);
    Lane {
        name: name.to_owned(),
        total_ms: ms(total),
        hop_ms: ms(hops.iter().map(|(from, to)| to - from).sum()),
        hops: hops.iter().map(|(from, to)| (ms(*from), ms(to - from))).collect(),
        stages,
    }
}

fn ms(us: f64) -> f64 {
    us.round() / 1e3
}

/// The times, since the request came, between the ends of a call as CRI and as the core saw it.
fn ways(stages: &[shared_proto::seam::v1::Stage]) -> Vec<(f64, f64)> {
    let ends = |stage: &shared_proto::seam::v1::Stage| (stage.start_us as f64, (stage.start_us + stage.us) as f64);
    let mut served: Vec<_> = stages.iter().filter(|stage| stage.place() == stage::Place::Core).collect();
    let mut ways = Vec::new();
    for call in stages.iter().filter(|stage| stage.place() == stage::Place::Seam) {
        let (from, to) = ends(call);
        let within = |inner: &&shared_proto::seam::v1::Stage| {
            let (start, end) = ends(inner);
            inner.name == call.name && start >= from - SLACK && end <= to + SLACK
        };
        let Some(index) = served.iter().position(within) else { continue };
        let (start, end) = ends(served.remove(index));
        ways.extend([(from, start.max(from)), (end.min(to), to)].into_iter().filter(|(from, to)| to > from));
    }
    ways
}

/// Without what is in there twice.
fn union(mut times: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut all: Vec<(f64, f64)> = Vec::new();
    for (from, to) in times {
        match all.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => all.push((from, to)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use shared_proto::seam::v1;

    use super::*;

    fn stage(place: stage::Place, name: &str, start_us: u64, us: u64) -> v1::Stage {
        v1::Stage { place: place.into(), name: name.into(), start_us, us, ..Default::default() }
    }

    #[test]
    fn ways_are_what_the_callers_view_is_longer_by() {
        use stage::Place::{Core, Cri, Seam};
        let stages = vec![
            stage(Cri, "record", 900, 3200),
            stage(Seam, "Containers.create", 1000, 3000),
            stage(Core, "Containers.create", 1400, 2000),
            stage(Seam, "Leases.create", 1200, 1000),
            stage(Core, "Leases.create", 1300, 800),
            stage(Seam, "Images.get", 5000, 100),
        ];
        let request = v1::Request { rpc: "RunPodSandbox".into(), age_us: 9000, us: 6000, stages, ..Default::default() };
        let later = v1::Request { rpc: "StartContainer".into(), age_us: 2000, us: 500, ..Default::default() };
        let lane = lane("split", &ExplainResponse { requests: vec![request, later], ..Default::default() });
        assert_eq!((lane.total_ms, lane.stages.len()), (7.5, 8));
        // 1000 to 1400 with 1200 to 1300 in it, 2100 to 2200, 3400 to 4000.
        assert_eq!(lane.hops, [(1.0, 0.4), (2.1, 0.1), (3.4, 0.6)]);
        assert!((lane.hop_ms - 1.1).abs() < 1e-9);
    }
}
