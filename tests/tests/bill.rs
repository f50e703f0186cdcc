//! `cri-daemon bill`: every pod pays for its shim and for its part of the daemons, and nothing is left over.

use std::process::Command;
use std::time::Duration;

use e2e::daemon::binary;
use e2e::pod::{ready, sleeper};
use e2e::{Wiring, World, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

e2e::wirings!(pods_pay_for_what_runs);

/// What is charged.
const THINGS: [&str; 5] = ["pss_bytes", "rss_bytes", "cpu_seconds", "threads", "descriptors"];

fn try_bill(world: &World, args: &[&str]) -> Result<String, String> {
    let config = world.paths.config.display().to_string();
    let output = Command::new(binary("cri-daemon")).args(["-c", &config, "bill"]).args(args).output();
    let output = output.expect("run bill");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[track_caller]
fn bill(world: &World) -> Value {
    let text = try_bill(world, &["--json"]).unwrap_or_else(|e| panic!("bill: {e}"));
    // Seen only when the test fails.
    println!("{text}");
    serde_json::from_str(&text).expect("bill --json is JSON")
}

/// The line of a pod.
fn line<'a>(bill: &'a Value, pod: &str) -> Option<&'a Value> {
    bill["pods"].as_array().expect("pods").iter().find(|line| line["id"] == pod)
}

/// The sum of one thing over all lines, at this place of each.
fn sum(lines: &Value, place: &str, thing: &str) -> f64 {
    let lines = lines.as_array().expect("a list").iter();
    lines.map(|line| line[place][thing].as_f64().expect("a number")).sum()
}

fn is_about(got: f64, wanted: f64, slack: f64) -> bool {
    (got - wanted).abs() <= slack
}

/// PSS in bytes, threads and descriptors of these processes, read here.
fn by_proc(pids: &[i64]) -> [f64; 3] {
    let lines = |pid: &i64, file: &str, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("read /proc");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
        line.split_whitespace().next().expect("a value").parse::<f64>().expect("a number")
    };
    let sum = |of: &dyn Fn(&i64) -> f64| pids.iter().map(of).sum::<f64>();
    [
        sum(&|pid| lines(pid, "smaps_rollup", "Pss:") * 1024.0),
        sum(&|pid| lines(pid, "status", "Threads:")),
        sum(&|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).expect("read fd").count() as f64),
    ]
}

/// The lines, with whatever belongs to no pod, are the total.
#[track_caller]
fn adds_up(bill: &Value) {
    for thing in THINGS {
        let total = bill["total"][thing].as_f64().expect("a total");
        let processes = sum(&bill["daemons"], "uses", thing) + sum(&bill["pods"], "own", thing);
        assert!(is_about(processes, total, 1e-3), "{thing} by process: {bill:#}");
        let paid = sum(&bill["pods"], "all", thing);
        assert!(is_about(paid, total, 1e-3), "{thing} by pod: {bill:#}");
    }
    assert!(bill["others"].as_array().is_some_and(Vec::is_empty), "{bill:#}");
}

async fn pods_pay_for_what_runs(wiring: Wiring) {
    let (world, cri, config, one) = ready(wiring, "one").await;
    let second = world.pod("two");
    let two = cri.run_pod(&second).await;
    cri.run(&one, &config, &sleeper("a")).await;
    cri.run(&one, &config, &sleeper("b")).await;
    cri.run(&two, &second, &sleeper("a")).await;

    let seen = bill(&world);
    assert_eq!(seen["wiring"], wiring.name());
    let daemons = seen["daemons"].as_array().expect("daemons");
    let pids: Vec<i64> = daemons.iter().map(|daemon| daemon["pid"].as_i64().expect("a pid")).collect();
    let roles: Vec<&str> = daemons.iter().map(|daemon| daemon["role"].as_str().expect("a role")).collect();
    let (expected, ours): (&[&str], _) = match wiring {
        Wiring::Split => (&["core", "CRI side", "log keeper"], 2),
        Wiring::Loopback | Wiring::Merged => (&["core with CRI", "log keeper"], 1),
    };
    assert_eq!(roles, expected);
    assert_eq!(pids[..ours], world.daemon_pids().iter().map(|pid| i64::from(*pid)).collect::<Vec<_>>()[..]);

    // Every pod is there, with the shim that names it, and pays for it alone.
    let mut shims = Vec::new();
    for (pod, containers) in [(&one, 2), (&two, 1)] {
        let line = line(&seen, pod).unwrap_or_else(|| panic!("no line of {pod}"));
        assert_eq!(line["containers"], containers);
        let shim = line["shims"][0].as_i64().expect("a shim");
        let processes = world.processes();
        let (_, command) = processes.iter().find(|(pid, _)| i64::from(*pid) == shim).expect("the shim is a process");
        assert!(command.contains(pod.as_str()) && line["shims"][1].is_null(), "{command}");
        assert!(line["own"]["pss_bytes"].as_f64().is_some_and(|pss| pss > 0.0), "{line}");
        shims.push(shim);
    }
    let share = |bill: &Value, pod: &str| line(bill, pod).expect("a line")["share"]["rss_bytes"].as_f64().expect("RSS");
    assert_eq!(share(&seen, &one), share(&seen, &two));
    adds_up(&seen);
    let [pss, threads, descriptors] = by_proc(&[pids, shims.clone()].concat());
    let total = |thing: &str| seen["total"][thing].as_f64().expect("a total");
    assert!(is_about(total("pss_bytes"), pss, pss * 0.2), "{pss}: {seen:#}");
    assert!(is_about(total("threads"), threads, 8.0), "{threads}: {seen:#}");
    assert!(is_about(total("descriptors"), descriptors, 12.0), "{descriptors}: {seen:#}");
    assert!(total("cpu_seconds") > 0.0, "{seen:#}");

    let text = try_bill(&world, &[]).expect("bill");
    println!("{text}");
    for part in ["e2e/one", "e2e/two", "2 pods, in equal parts", "2 shims", "all, by /proc", "all pods", wiring.name()]
    {
        assert!(text.contains(part), "no {part} in\n{text}");
    }

    // A pod that is killed pays no more, and the other one pays all.
    for pid in &shims[1..] {
        kill(Pid::from_raw(*pid as i32), Signal::SIGKILL).expect("kill the shim");
    }
    let left = eventually("the killed pod's line vanishes", Duration::from_secs(15), || async {
        let left = bill(&world);
        if line(&left, &two).is_none() { Ok(left) } else { Err("it is still there".to_owned()) }
    })
    .await;
    assert_eq!(left["pods"].as_array().map(Vec::len), Some(1));
    assert_eq!(share(&left, &one), left["shared"]["rss_bytes"].as_f64().expect("RSS"));
    adds_up(&left);
    cri.end_pod(&one).await;
    cri.end_pod(&two).await;
    let text = try_bill(&world, &[]).expect("bill");
    assert!(text.contains("nobody: there are no pods") && !text.contains("e2e/"), "{text}");
}
