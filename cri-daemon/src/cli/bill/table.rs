//! The bill for people: who works for the pods, then who pays.

use std::fmt::Write as _;

use super::super::report::{bytes, time};
use super::charge::{Amount, Bill};

/// Two tables and what they mean.
pub fn render(bill: &Bill) -> String {
    let wiring = bill.wiring.as_deref().unwrap_or("unknown: this runtime does not tell it");
    let mut out = format!("bill, wiring {wiring}\n\n  {:<16} {:>8}{}  paid by\n", "process", "pid", titles());
    let all = match bill.pods.len() {
        0 => "nobody: there are no pods".to_owned(),
        1 => "the one pod".to_owned(),
        pods => format!("{pods} pods, in equal parts"),
    };
    for daemon in &bill.daemons {
        let _ = writeln!(out, "  {:<16} {:>8}{}  {all}", daemon.role, daemon.pid, columns(&daemon.uses));
    }
    let shims: Amount = bill.pods.iter().map(|line| line.own).sum();
    let count = bill.pods.iter().map(|line| line.shims.len()).sum();
    let _ = writeln!(out, "  {:<16} {:>8}{}  each by its pod", plural(count, "shim"), "", columns(&shims));
    for shim in &bill.others {
        let whose = format!("no pod of CRI's: {}/{:.24}", shim.namespace, shim.id);
        let _ = writeln!(out, "  {:<16} {:>8}{}  {whose}", "another shim", shim.pid, columns(&shim.uses));
    }
    let _ = writeln!(out, "  {:<16} {:>8}{}", "all, by /proc", "", columns(&bill.total));
    if bill.pods.is_empty() {
        return out;
    }

    let names: Vec<String> = bill.pods.iter().map(|line| format!("{}/{}", line.namespace, line.name)).collect();
    let width = names.iter().map(String::len).max().unwrap_or_default().max("all pods".len());
    let _ =
        writeln!(out, "\n  {:<width$} {:>10} {:>11} {:>11}{}", "pod", "containers", "shim PSS", "share PSS", titles());
    for (name, line) in names.iter().zip(&bill.pods) {
        pod(&mut out, &format!("{name:<width$}"), line.containers, [&line.own, &line.share, &line.all]);
    }
    let containers = bill.pods.iter().map(|line| line.containers).sum();
    let paid = bill.pods.iter().map(|line| line.all).sum();
    pod(&mut out, &format!("{:<width$}", "all pods"), containers, [&shims, &bill.shared, &paid]);
    out
}

fn pod(out: &mut String, name: &str, containers: usize, [own, share, all]: [&Amount; 3]) {
    let [own, share] = [own, share].map(|amount| bytes(amount.pss_bytes as u64));
    let _ = writeln!(out, "  {name} {containers:>10} {own:>11} {share:>11}{}", columns(all));
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}

fn titles() -> String {
    row(["PSS", "RSS", "CPU", "threads", "fds"].map(str::to_owned))
}

fn columns(amount: &Amount) -> String {
    let [pss, rss] = [amount.pss_bytes, amount.rss_bytes].map(|n| bytes(n as u64));
    row([pss, rss, time((amount.cpu_seconds * 1e6) as u64), count(amount.threads), count(amount.descriptors)])
}

fn row([pss, rss, cpu, threads, descriptors]: [String; 5]) -> String {
    format!(" {pss:>11} {rss:>11} {cpu:>10} {threads:>8} {descriptors:>7}")
}

/// A whole number without a fraction.
fn count(n: f64) -> String {
    if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.1}") }
}

#[cfg(test)]
mod tests {
    use super::super::charge::tests::bill;
    use super::*;

    #[test]
    fn both_tables_say_who_pays() {
        let out = render(&bill());
        let line = |part: &str| {
            let found = out.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {out}"));
            found.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("CRI side"), "CRI side 11 10.0 KiB 20.0 KiB 78.1 ms 10 10 3 pods, in equal parts");
        assert!(line("4 shims").ends_with("each by its pod") && line("moby").starts_with("another shim 24"), "{out}");
        assert_eq!(line("all, by /proc"), "all, by /proc 44.0 KiB 88.0 KiB 343.8 ms 44 44");
        assert_eq!(line("shop/db"), "shop/db 1 3.0 KiB 10.0 KiB 13.0 KiB 26.0 KiB 101.6 ms 13 13");
        assert_eq!(line("all pods"), "all pods 3 5.0 KiB 30.0 KiB 35.0 KiB 70.0 KiB 273.4 ms 35 35");
        assert_eq!((count(2.0), count(2.25)), ("2".into(), "2.2".into()));
    }
}
