//! Experiment: a node at rest, polled as a kubelet polls: CPU and memory of each process over time.

use std::time::{Duration, Instant};

use e2e::World;

use crate::load::{self, Answers};
use crate::node::{self, MB, Usage};
use crate::report::{Curve, Experiment, Lines, Part, Row, Table, rounded, show};
use crate::stats::percentile;

/// The processes of one kind, moment by moment: seconds since the first look, and what they use.
struct Followed {
    what: &'static str,
    looks: Vec<(f64, Usage)>,
}

impl Followed {
    /// Percent of a core, from the first look to the last.
    fn cpu_percent(&self) -> f64 {
        match (self.looks.first(), self.looks.last()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (after.cpu_seconds - before.cpu_seconds) / (to - from) * 100.0
            }
            _ => 0.0,
        }
    }

    fn curve(&self, side: &str, of: impl Fn(&Usage, &Usage) -> f64) -> Curve {
        let first = self.looks.first().map(|(_, usage)| *usage).unwrap_or_default();
        let round = |value: f64| (value * 1e3).round() / 1e3;
        let points = self.looks.iter().map(|(at, usage)| (round(*at), round(of(usage, &first)))).collect();
        Curve { name: format!("{side} {}", self.what), points }
    }
}

/// One side at rest.
pub struct Rest {
    side: &'static str,
    followed: Vec<Followed>,
    answers: Answers,
}

/// Polls, and looks once a second meanwhile.
pub async fn measure(side: &'static str, world: &World, seconds: u64) -> anyhow::Result<Rest> {
    let cri = world.cri();
    let kinds: Vec<(&'static str, Vec<i32>)> = match world.daemon_pids()[..] {
        [core, cri] => vec![("CRI", vec![cri]), ("core", vec![core])],
        ref pids => vec![("daemon", pids.to_vec())],
    };
    let mut followed: Vec<Followed> =
        kinds.iter().map(|(what, _)| *what).chain(["shims"]).map(|what| Followed { what, looks: Vec::new() }).collect();
    let clock = Instant::now();
    let look = |followed: &mut Vec<Followed>| -> anyhow::Result<()> {
        let at = clock.elapsed().as_secs_f64();
        for ((_, pids), one) in kinds.iter().zip(followed.iter_mut()) {
            one.looks.push((at, node::sum(pids)?));
        }
        if let Some(shims) = followed.last_mut() {
            shims.looks.push((at, node::shims(world)?));
        }
        Ok(())
    };
    look(&mut followed)?;
    let polling = load::poll(&cri, seconds);
    tokio::pin!(polling);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let answers = loop {
        tokio::select! {
            answers = &mut polling => break answers,
            _ = ticks.tick() => look(&mut followed)?,
        }
    };
    look(&mut followed)?;
    Ok(Rest { side, followed, answers })
}

pub fn describe(rests: &[Rest], pods: usize, took: Duration) -> Experiment {
    let mut experiment = Experiment {
        name: "steady".into(),
        title: format!("{pods} pods at rest"),
        question: "What do daemons and shims use while nothing happens but a kubelet's questions?".into(),
        seconds: took.as_secs_f64(),
        notes: vec![
            "Polled as a kubelet polls: lists every second, Status every five, all stats every ten. CPU comes in ticks of \
             10 ms, and is that of the processes themselves. PSS counts shared pages in parts, RSS in full. MB = 10^6 bytes."
                .into(),
            "One stretch of time a side: no interval is given. A kubelet's own use is not in here.".into(),
        ],
        ..Experiment::default()
    };
    let mut rows = Vec::new();
    let mut answers = Vec::new();
    for rest in rests {
        let side = rest.side;
        for one in &rest.followed {
            let last = one.looks.last().map(|(_, usage)| *usage).unwrap_or_default();
            let name = format!("{side} {}", one.what);
            let cells = [last.processes as f64, one.cpu_percent(), last.pss / MB, last.rss / MB, last.threads as f64];
            rows.push(Row { name: name.clone(), cells: cells.map(Some).into() });
            let raw = |of: fn(&Usage) -> f64| one.looks.iter().map(|(_, usage)| of(usage)).collect::<Vec<_>>();
            experiment.raw.insert(format!("{name}/CPU, s"), rounded(&raw(|usage| usage.cpu_seconds)));
            experiment.raw.insert(format!("{name}/PSS, bytes"), raw(|usage| usage.pss));
        }
        let cpu: f64 = rest.followed.iter().map(Followed::cpu_percent).sum();
        let pss: f64 = rest.followed.iter().filter_map(|one| Some(one.looks.last()?.1.pss / MB)).sum();
        experiment.findings.push(format!(
            "{side}: {} % of a core and {} MB (PSS), daemons and shims together.",
            show(cpu),
            show(pss)
        ));
        let lines = |title: &str, y: &str, of: fn(&Usage, &Usage) -> f64| {
            let series = rest.followed.iter().map(|one| one.curve(side, of)).collect();
            Part::Lines(Lines { title: format!("{side}: {title}"), x: "s".into(), y: y.into(), series })
        };
        experiment.parts.push(lines("CPU since the first look", "s", |now, first| now.cpu_seconds - first.cpu_seconds));
        experiment.parts.push(lines("memory", "MB (PSS)", |now, _| now.pss / MB));
        let Answers { lists, stats } = &rest.answers;
        let cells = [percentile(lists, 0.5), percentile(lists, 0.99), percentile(stats, 0.5)];
        answers.push(Row { name: side.into(), cells: cells.map(Some).into() });
        experiment.raw.insert(format!("{side}/both lists, ms"), rounded(lists));
        experiment.raw.insert(format!("{side}/all stats, ms"), rounded(stats));
    }
    let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    experiment.parts.push(Part::Table(Table {
        title: "By process".into(),
        columns: columns(&["process", "processes", "CPU, % of a core", "PSS, MB", "RSS, MB", "threads"]),
        rows,
    }));
    experiment.parts.push(Part::Table(Table {
        title: "How long answers took".into(),
        columns: columns(&["side", "both lists p50, ms", "both lists p99, ms", "all stats p50, ms"]),
        rows: answers,
    }));
    experiment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_told_by_process() {
        let usage = |cpu_seconds, pss| Usage { processes: 1, cpu_seconds, pss, rss: 2.0 * pss, ..Usage::default() };
        let looks = vec![(0.0, usage(5.0, 10e6)), (1.0, usage(5.125, 11e6)), (2.0, usage(5.25, 12e6))];
        let followed = vec![Followed { what: "core", looks }];
        let rest = Rest { side: "split", followed, answers: Answers { lists: vec![1.5], stats: vec![7.5] } };
        let told = describe(&[rest], 105, Duration::from_secs(2));
        assert_eq!(told.findings, ["split: 12.5 % of a core and 12 MB (PSS), daemons and shims together."]);
        let Part::Lines(cpu) = &told.parts[0] else { panic!("{:?}", told.parts[0]) };
        assert_eq!(cpu.series[0].points, [(0.0, 0.0), (1.0, 0.125), (2.0, 0.25)]);
        assert_eq!(told.raw["split core/PSS, bytes"], [10e6, 11e6, 12e6]);
    }
}
