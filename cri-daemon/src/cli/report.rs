//! Tables for people: how long each stage of a start took, and what the seam between CRI and core has cost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use shared_proto::cri::v1;

use super::client::{Client, said};

/// One stage, as verbose status has it in `info["timeline"]`.
#[derive(Debug, Deserialize)]
struct Stage {
    stage: String,
    #[serde(default)]
    detail: String,
    start_us: u64,
    us: u64,
}

/// `info["seam"]` of verbose Status.
#[derive(Debug, Deserialize)]
struct Seam {
    wiring: String,
    samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    service: String,
    calls: u64,
    errors: u64,
    bytes_out: u64,
    bytes_in: u64,
    us: u64,
}

/// `cri-daemon seam`
pub async fn seam(address: &Path) -> anyhow::Result<()> {
    let table = seam_table(&mut Client::connect(address).await?).await?;
    print!("{table}");
    Ok(())
}

/// What crossed the seam since the daemon was started, by service.
pub async fn seam_table(client: &mut Client) -> anyhow::Result<String> {
    Ok(render_seam(&account(client).await?.context("this daemon does not measure its seam")?))
}

/// The wiring of the daemon that answers; none of another runtime.
pub async fn wiring(client: &mut Client) -> anyhow::Result<Option<String>> {
    Ok(account(client).await?.map(|seam| seam.wiring))
}

async fn account(client: &mut Client) -> anyhow::Result<Option<Seam>> {
    let status = said(client.runtime.status(v1::StatusRequest { verbose: true }).await)?;
    let seam = status.info.get("seam").map(|json| serde_json::from_str(json));
    seam.transpose().context("the daemon's account of its seam")
}

fn render_seam(seam: &Seam) -> String {
    let mut services = BTreeMap::<&str, [u64; 5]>::new();
    for s in &seam.samples {
        let sums = services.entry(&s.service).or_default();
        for (sum, value) in sums.iter_mut().zip([s.calls, s.errors, s.bytes_out, s.bytes_in, s.us]) {
            *sum += value;
        }
    }
    let total = services.values().fold([0; 5], |total, sums| std::array::from_fn(|at| total[at] + sums[at]));
    let mut out = format!("seam, wiring {}, since the daemon was started\n", seam.wiring);
    let mut line = |name: &str, columns: [String; 5]| {
        let [calls, errors, sent, received, time] = columns;
        let _ = writeln!(out, "  {name:<14} {calls:>8} {errors:>7} {sent:>11} {received:>11} {time:>11}");
    };
    line("service", ["calls", "errors", "to core", "from core", "time"].map(str::to_owned));
    for (name, [calls, errors, sent, received, us]) in services.into_iter().chain([("all", total)]) {
        line(name, [calls.to_string(), errors.to_string(), bytes(sent), bytes(received), time(us)]);
    }
    out
}

/// The stages in `info` of a pod or container, request by request. Stages that overlap ran side by side.
///
/// A request, which is a stage itself (with the name of its RPC), comes before its stages.
pub fn timeline(title: &str, info: &BTreeMap<String, String>) -> String {
    let stages: Vec<Stage> = info.get("timeline").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let mut out = format!("{title}\n");
    let is_request = |stage: &Stage| stage.stage.starts_with(|c: char| c.is_ascii_uppercase());
    for request in stages.chunk_by(|_, next| !is_request(next)) {
        let mut request: Vec<&Stage> = request.iter().collect();
        request.sort_by_key(|stage| (stage.start_us, std::cmp::Reverse(stage.us)));
        for stage in request {
            let _ = writeln!(out, "  {:<40} from {:>9}  took {:>9}", name(stage), time(stage.start_us), time(stage.us));
        }
    }
    out
}

/// What was done, and to what.
fn name(stage: &Stage) -> String {
    let indent = if stage.stage.starts_with(|c: char| c.is_ascii_uppercase()) { "" } else { "  " };
    format!("{indent}{} {}", stage.stage, short(&stage.detail))
}

/// Of long digests only the beginning.
pub fn short(detail: &str) -> &str {
    match detail.strip_prefix("sha256:") {
        Some(digest) => &detail[..7 + digest.len().min(12)],
        None => detail,
    }
}

pub fn time(us: u64) -> String {
    match us {
        0..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_summed_up_by_service() {
        let sample = |service: &str| Sample {
            service: service.into(),
            calls: 2,
            errors: 1,
            bytes_out: 1024,
            bytes_in: 3 << 20,
            us: 1500,
        };
        let seam = Seam { wiring: "split".into(), samples: vec![sample("Tasks"), sample("Images"), sample("Tasks")] };
        let lines: Vec<String> = render_seam(&seam).lines().map(str::to_owned).collect();
        let words: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(words, ["Tasks", "4", "2", "2.0", "KiB", "6.0", "MiB", "3.0", "ms"]);
        assert!(lines[4].trim_start().starts_with("all") && lines[4].contains(" 6 "), "{lines:?}");
    }

    #[test]
    fn stages_stand_below_their_request_in_the_order_of_their_begin() {
        let json = r#"[{"stage":"CreateContainer","detail":"","start_us":0,"us":2000000},
            {"stage":"task","detail":"","start_us":7000,"us":1},
            {"stage":"cni","detail":"bridge","start_us":5000,"us":30000},
            {"stage":"StartContainer","detail":"","start_us":0,"us":5000},
            {"stage":"image","detail":"sha256:0123456789abcdef","start_us":1000,"us":1}]"#;
        let out = timeline("pod p", &BTreeMap::from([("timeline".to_owned(), json.to_owned())]));
        let lines: Vec<&str> = out.lines().collect();
        let words = |at: usize| lines[at].split_whitespace().next().unwrap();
        assert_eq!([1, 2, 3, 4, 5].map(words), ["CreateContainer", "cni", "task", "StartContainer", "image"]);
        assert!(
            lines[1].contains("2.00 s") && lines[2].contains("    cni bridge ") && lines[2].contains("30.0 ms"),
            "{out}"
        );
        assert!(lines[5].contains(" sha256:0123456789ab "), "{out}");
    }
}
