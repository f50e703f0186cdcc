//! What CNI plugins leave on the machine for a slot's networks when a test was killed or panicked: packet filter rules,
//! the links that delay what pods send, and libcni's results.
//!
//! All are found by what only this slot has: its networks' names and its subnets.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::slot::Slot;

const RESULTS: &str = "/var/lib/cni/results";

/// A rule as `iptables-save` prints it, and the table it is in.
#[derive(Debug)]
pub struct Rule {
    pub table: String,
    pub line: String,
}

impl Rule {
    /// A word behind an option of the rule, such as `-A` or `-j`.
    fn word(&self, option: &str) -> Option<&str> {
        self.line.split(' ').skip_while(|word| *word != option).nth(1)
    }
}

/// The rules of `iptables` or `ip6tables` that name this slot's network or an address of it.
pub fn rules(program: &str, slot: &Slot) -> Vec<Rule> {
    let saved = Command::new(format!("{program}-save")).output().unwrap_or_else(|e| panic!("run {program}-save: {e}"));
    let start = |subnet: String, end: &str| format!(" {}", subnet.trim_end_matches(end));
    let name = slot.name();
    let (four, six) = (start(slot.subnet(), "0/24"), start(slot.subnet6(), ":/64"));
    let ours = [format!("\"{name}\""), format!("\\\"{name}\\\""), four, six];
    let (mut rules, mut table) = (Vec::new(), String::new());
    for line in String::from_utf8_lossy(&saved.stdout).lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if line.starts_with("-A") && ours.iter().any(|ours| line.contains(ours.as_str())) {
            rules.push(Rule { table: table.clone(), line: line.to_owned() });
        }
    }
    rules
}

/// Removes all of it.
pub fn remove(slot: &Slot) {
    for program in ["iptables", "ip6tables"] {
        remove_rules(program, slot);
    }
    for entry in std::fs::read_dir(RESULTS).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some((network, pod)) = parts(&file) else { continue };
        if network == slot.name() || network.starts_with(&format!("{}-", slot.name())) {
            let link = delaying_link(network, pod);
            if Path::new("/sys/class/net").join(&link).exists() {
                run(Command::new("ip").args(["link", "del", "dev", &link]));
            }
            // Fails only when somebody else is cleaning up as well.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// `NETWORK-POD-INTERFACE`.
fn parts(file: &str) -> Option<(&str, &str)> {
    let (network, pod) = file.rsplit_once('-')?.0.rsplit_once('-')?;
    (pod.len() == 64).then_some((network, pod))
}

/// The interface that the plugin `bandwidth` makes to delay what a pod sends.
pub fn delaying_link(network: &str, pod: &str) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha512::digest(format!("{network}{pod}"));
    format!("bwp{}", &hex::encode(hash)[..12])
}

/// Deletes the rules, and the chains that the plugin `portmap` has made for single pods, which are in no other rules.
fn remove_rules(program: &str, slot: &Slot) {
    let rules = rules(program, slot);
    let tables: BTreeSet<&str> = rules.iter().map(|rule| rule.table.as_str()).collect();
    let mut commands = String::new();
    for table in tables {
        let of_table = || rules.iter().filter(|rule| rule.table == table);
        let of_pod = |chain: &&str| ["CNI-DN-", "CNI-SN-"].iter().any(|prefix| chain.starts_with(prefix));
        let named = of_table().flat_map(|rule| [rule.word("-A"), rule.word("-j")]).flatten();
        let chains: BTreeSet<&str> = named.filter(of_pod).collect();
        commands += &format!("*{table}\n");
        for rule in of_table().filter(|rule| rule.word("-A").is_some_and(|chain| !chains.contains(chain))) {
            commands += &rule.line.replacen("-A", "-D", 1);
            commands.push('\n');
        }
        for command in ["-F", "-X"] {
            commands.extend(chains.iter().map(|chain| format!("{command} {chain}\n")));
        }
        commands += "COMMIT\n";
    }
    if commands.is_empty() {
        return;
    }
    let mut restore = Command::new(format!("{program}-restore"));
    let child = restore.args(["-w", "--noflush"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("run {program}-restore: {e}"));
    // One that does not read says why.
    let _ = child.stdin.take().expect("a pipe").write_all(commands.as_bytes());
    let ended = child.wait_with_output().unwrap_or_else(|e| panic!("run {program}-restore: {e}"));
    if !ended.status.success() {
        // The test goes on: it finds the same rules before and after.
        eprintln!("{program}-restore: {}\n{commands}", String::from_utf8_lossy(&ended.stderr));
    }
}

fn run(command: &mut Command) {
    // Fails only when the thing vanished meanwhile.
    let _ = command.output();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_test_leaves_goes_with_the_next_one() {
        let slot = Slot::take();
        let (name, pod) = (slot.name(), "ab".repeat(32));
        let address = slot.subnet().replace("0/24", "7");
        let chain = format!("CNI-DN-{name}");
        let sh = |script: String| {
            let output = Command::new("sh").args(["-ec", &script]).output().expect("run sh");
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let comment = format!("-m comment --comment 'dnat name: \"{name}\" id: \"{pod}\"'");
        sh(format!(
            "iptables -w -t nat -N {chain}; iptables -w -t nat -A {chain} -p tcp -d {address} -j ACCEPT
             iptables -w -t nat -A PREROUTING -p tcp --dport 9 {comment} -j {chain}
             iptables -w -A FORWARD -d {address}/32 -j ACCEPT
             ip6tables -w -A FORWARD -d {}7/128 -j ACCEPT
             ip link add {} type ifb; mkdir -p {RESULTS}; echo {{}} >{RESULTS}/{name}-{pod}-eth0",
            slot.subnet6().trim_end_matches("/64"),
            delaying_link(&name, &pod),
        ));
        let count = || (rules("iptables", &slot).len(), rules("ip6tables", &slot).len());
        assert_eq!(count(), (3, 1));
        remove(&slot);
        assert_eq!(count(), (0, 0));
        let saved = Command::new("iptables-save").output().expect("run iptables-save").stdout;
        assert!(!String::from_utf8_lossy(&saved).contains(&chain), "the chain goes, too");
        assert!(!Path::new("/sys/class/net").join(delaying_link(&name, &pod)).exists());
        assert!(!Path::new(RESULTS).join(format!("{name}-{pod}-eth0")).exists());
    }

    #[test]
    fn results_are_told_apart() {
        let pod = "0f".repeat(32);
        assert_eq!(parts(&format!("seam1-six-{pod}-eth1")), Some(("seam1-six", pod.as_str())));
        assert_eq!(parts(&format!("seam1-{pod}-eth0")), Some(("seam1", pod.as_str())));
        assert_eq!(parts("seam1-eth0"), None);
    }
}
