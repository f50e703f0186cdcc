//! Kernel settings of a pod. They belong to its namespaces, so they are set once, by the pause container.

use std::collections::{BTreeMap, HashMap};

use shared_config::CriRuntime;
use shared_proto::cri::v1::NamespaceMode;

use super::SpecError;
use super::namespaces::Modes;

const PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
const PING: &str = "net.ipv4.ping_group_range";

/// The pod's settings, plus those that let processes that are not root use low ports and ping.
pub(super) fn sandbox(
    request: &BTreeMap<String, String>,
    modes: &Modes,
    settings: &CriRuntime,
) -> Result<HashMap<String, String>, SpecError> {
    let mut out = HashMap::new();
    let own_network = modes.network != NamespaceMode::Node;
    if own_network && settings.enable_unprivileged_ports {
        out.insert(PORTS.to_owned(), "0".to_owned());
    }
    if own_network && settings.enable_unprivileged_icmp {
        out.insert(PING.to_owned(), "0 2147483647".to_owned());
    }
    for (name, value) in request {
        let dotted = dots(name);
        let own = match Scope::of(&dotted) {
            Some(Scope::Network | Scope::Uts) => own_network,
            Some(Scope::Ipc) => modes.ipc != NamespaceMode::Node,
            None => {
                let problem = format!("{name:?} belongs to the whole machine, not to a pod");
                return Err(SpecError::invalid("linux.sysctls", problem));
            }
        };
        if !own {
            let problem = format!("{name:?} would change the machine: the pod shares that namespace with it");
            return Err(SpecError::invalid("linux.sysctls", problem));
        }
        out.insert(dotted, value.clone());
    }
    Ok(out)
}

/// The namespace that a setting belongs to.
enum Scope {
    Network,
    Ipc,
    /// Shared with the machine whenever the network is.
    Uts,
}

/// `net/ipv4/tcp_rmem` and `net.ipv4.tcp_rmem` are one setting. A name with both marks holds an interface with a dot,
/// which only the first form can say.
fn dots(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { name.replace('/', ".") }
}

impl Scope {
    fn of(name: &str) -> Option<Self> {
        const IPC: [&str; 10] = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
            "kernel.msg_next_id",
            "kernel.sem_next_id",
        ];
        if name.starts_with("net.") || name.starts_with("net/") {
            Some(Scope::Network)
        } else if name == "kernel.domainname" {
            Some(Scope::Uts)
        } else if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
            Some(Scope::Ipc)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(network: NamespaceMode, ipc: NamespaceMode) -> Modes {
        Modes { network, ipc, pid: NamespaceMode::Pod }
    }

    #[test]
    fn defaults_yield_to_the_request() {
        let request = BTreeMap::from([(PORTS.to_owned(), "80".to_owned()), ("kernel/shmmax".into(), "9".into())]);
        let pod = modes(NamespaceMode::Pod, NamespaceMode::Pod);
        let out = sandbox(&request, &pod, &CriRuntime::default()).unwrap();
        assert_eq!(
            (out[PORTS].as_str(), out[PING].as_str(), out["kernel.shmmax"].as_str()),
            ("80", "0 2147483647", "9")
        );
        assert_eq!(out.len(), 3);
        let node = modes(NamespaceMode::Node, NamespaceMode::Pod);
        assert!(sandbox(&BTreeMap::new(), &node, &CriRuntime::default()).unwrap().is_empty());
    }

    #[test]
    fn the_machine_is_not_changed() {
        let set = |name: &str, modes: Modes| {
            let request = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            sandbox(&request, &modes, &CriRuntime::default()).unwrap_err().to_string()
        };
        assert!(set("vm.swappiness", modes(NamespaceMode::Pod, NamespaceMode::Pod)).contains("whole machine"));
        assert!(set("net.core.somaxconn", modes(NamespaceMode::Node, NamespaceMode::Pod)).contains("shares"));
        assert!(set("kernel.sem", modes(NamespaceMode::Pod, NamespaceMode::Node)).contains("shares"));
    }
}
