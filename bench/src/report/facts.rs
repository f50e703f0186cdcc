//! What a report was measured on: said in full, since absolute figures mean nothing without it.

use std::path::Path;
use std::process::Command;

use super::Fact;

/// Versions of whatever takes part.
const PROGRAMS: [&[&str]; 5] = [
    &["runc", "--version"],
    &["crun", "--version"],
    &["containerd", "--version"],
    &["/usr/sbin/dockerd", "--version"],
    &["perf", "--version"],
];

/// All that is known; `seed` and `quick` are the run's own.
pub fn gather(seed: u64, quick: bool, log_level: &str) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut say = |name: &str, value: Option<String>| {
        let value = value.filter(|value| !value.is_empty()).unwrap_or_else(|| "unknown".to_owned());
        facts.push(Fact { name: name.to_owned(), value });
    };
    say("date", first_line(&["date", "--utc", "--iso-8601=seconds"]));
    say("commit", commit());
    say("build", Some(if cfg!(debug_assertions) { "debug: its figures say nothing" } else { "release" }.to_owned()));
    say("run", Some(if quick { "quick: too few samples to cite" } else { "full" }.to_owned()));
    say("seed", Some(seed.to_string()));
    say("log level of the daemons", Some(log_level.to_owned()));
    say("kernel", read("/proc/sys/kernel/osrelease"));
    say("CPU", cpu(&read("/proc/cpuinfo").unwrap_or_default()));
    say("memory", memory(&read("/proc/meminfo").unwrap_or_default()));
    say("load average at the start", read("/proc/loadavg"));
    say("clock source", read("/sys/devices/system/clocksource/clocksource0/current_clocksource"));
    say("pinning", Some("none: processes run on whatever CPU is free".to_owned()));
    say("frequency governor", read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    say("where data lies", disk(&mounts, &std::env::temp_dir()));
    say("cgroups", Some(cgroups(&mounts).to_owned()));
    for program in PROGRAMS {
        let name = program[0].rsplit('/').next().unwrap_or_default();
        say(name, first_line(program).or_else(|| Some("not installed".to_owned())));
    }
    let kubelet = std::env::var("SEAM_KUBELET").unwrap_or_else(|_| "kubelet".to_owned());
    say("kubelet", first_line(&[&kubelet, "--version"]).or_else(|| Some("not installed".to_owned())));
    facts
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn first_line(command: &[&str]) -> Option<String> {
    let output = Command::new(command[0]).args(&command[1..]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned())
}

fn commit() -> Option<String> {
    let hash = first_line(&["git", "rev-parse", "HEAD"])?;
    let changed = first_line(&["git", "status", "--porcelain", "--untracked-files=no"]);
    let changed = changed.is_some_and(|line| !line.is_empty());
    Some(hash + if changed { ", with changes" } else { "" })
}

fn cpu(cpuinfo: &str) -> Option<String> {
    let models: Vec<&str> = cpuinfo.lines().filter(|line| line.starts_with("model name")).collect();
    let name = models.first()?.split_once(':')?.1.trim();
    Some(format!("{} x {name}", models.len()))
}

fn memory(meminfo: &str) -> Option<String> {
    let kib: f64 = meminfo.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{:.1} GiB", kib / f64::from(1 << 20)))
}

/// The filesystem of a folder, and how much of it is free.
fn disk(mounts: &str, dir: &Path) -> Option<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.len() > 3);
    let of = fields.filter(|words| dir.starts_with(words[1])).max_by_key(|words| words[1].len())?;
    let free = first_line(&["sh", "-c", "df -h --output=avail,pcent \"$0\" | tail -n 1", &dir.display().to_string()]);
    let free = free.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" free, used ")).unwrap_or_default();
    Some(format!("{}: {} on {} ({}), {free}", dir.display(), of[2], of[0], of[3]))
}

fn cgroups(mounts: &str) -> &'static str {
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "version 1 and 2 (hybrid)",
        (true, false) => "version 1",
        (false, _) => "version 2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read() {
        assert_eq!(cpu("model name\t: A B\nflags: x\nmodel name\t: A B\n").unwrap(), "2 x A B");
        assert_eq!(memory("MemTotal:       24684084 kB\n").unwrap(), "23.5 GiB");
        let mounts = "/dev/vda / ext4 rw,noatime 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert!(disk(mounts, Path::new("/")).unwrap().starts_with("/: ext4 on /dev/vda (rw,noatime), "));
        assert_eq!(cgroups(mounts), "version 2");
    }

    #[test]
    fn nothing_is_left_out_in_silence() {
        let facts = gather(7, true, "info");
        let value = |name: &str| facts.iter().find(|fact| fact.name == name).unwrap().value.clone();
        assert_eq!(value("seed"), "7");
        assert!(value("run").starts_with("quick") && !value("kernel").is_empty());
        assert!(facts.iter().all(|fact| !fact.value.is_empty()), "{facts:?}");
    }
}
