//! `cri-daemon bill`: what the runtime itself costs, charged to pods.
//!
//! The processes that answer at the sockets of core and CRI serve all pods, so each pod pays an equal part of them. A
//! shim names on its command line whom it is for, and is paid by that pod alone ([`charge`]). Nothing is estimated:
//! the lines add up to what `/proc` says of these processes at this moment ([`table`] prints both).
//!
//! Limits: the pods' own processes are not the runtime's cost and not in here; neither are programs that live shortly
//! (runc, CNI plugins). Whatever else the core works for (dockerd, ctr) is paid by the pods as well, but for its shims.

mod charge;
mod table;

use std::path::Path;

use anyhow::Context as _;
use cri_daemon::logs::keeper;
use cri_daemon::{NAMESPACE, paths};
use shared_config::Config;
use shared_proto::cri::v1;
use shared_sys::{socket, usage};

use super::client::{Client, said};
use super::report;
use charge::{Amount, Bill, Daemon, Pod, Shim};

/// Prints the bill, as a table or as JSON.
pub async fn bill(config: &Config, json: bool) -> anyhow::Result<()> {
    let mut client = Client::connect(&config.cri.address).await?;
    let wiring = report::wiring(&mut client).await?;
    let pods = pods(&mut client).await?;
    let bill = Bill::new(wiring, daemons(config)?, pods, shims(config)?);
    match json {
        true => println!("{}", serde_json::to_string_pretty(&bill)?),
        false => print!("{}", table::render(&bill)),
    }
    Ok(())
}

/// Every pod, with its containers.
async fn pods(client: &mut Client) -> anyhow::Result<Vec<Pod>> {
    let pods = said(client.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await)?.items;
    let containers = said(client.runtime.list_containers(v1::ListContainersRequest::default()).await)?.containers;
    let pod = |pod: v1::PodSandbox| {
        let metadata = pod.metadata.clone().unwrap_or_default();
        let own = containers.iter().filter(|container| container.pod_sandbox_id == pod.id);
        Pod {
            ready: pod.state() == v1::PodSandboxState::SandboxReady,
            namespace: metadata.namespace,
            name: metadata.name,
            containers: own.map(|container| container.id.clone()).collect(),
            id: pod.id,
        }
    };
    Ok(pods.into_iter().map(pod).collect())
}

/// Who answers at the sockets, and the process that keeps logs' FIFOs.
fn daemons(config: &Config) -> anyhow::Result<Vec<Daemon>> {
    let owner =
        |path: &Path| socket::owner(path).with_context(|| format!("find out who answers at {}", path.display()));
    let (core, cri) = (owner(&config.grpc.address)?, owner(&config.cri.address)?);
    let mut all = match core == cri {
        true => vec![("core with CRI", core)],
        false => vec![("core", core), ("CRI side", cri)],
    };
    let socket = paths::keeper(config);
    let is_keeper = |(pid, line): &(u32, Vec<String>)| line[0] == keeper::NAME && usage::listens(*pid, &socket);
    all.extend(usage::processes()?.iter().filter(|process| is_keeper(process)).map(|(pid, _)| ("log keeper", *pid)));
    all.into_iter().map(|(role, pid)| Ok(Daemon { role, pid, uses: uses(pid)? })).collect()
}

/// The shims of this core, whoever has their containers.
fn shims(config: &Config) -> anyhow::Result<Vec<Shim>> {
    let address = config.grpc.address.to_string_lossy();
    let mut shims = Vec::new();
    for (pid, line) in usage::processes()? {
        let (Some(id), Some(namespace)) = (flag(&line, "id"), flag(&line, "namespace")) else { continue };
        if flag(&line, "address") != Some(&address) {
            continue;
        }
        match uses(pid) {
            Ok(uses) => {
                shims.push(Shim { pid, id: id.into(), ours: namespace == NAMESPACE, namespace: namespace.into(), uses })
            }
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(shims)
}

/// The value of a flag, in the form of Go's `flag` package, which the protocol of shims prescribes.
pub fn flag<'a>(line: &'a [String], name: &str) -> Option<&'a str> {
    let bare = |word: &'a String| word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
    line.iter().enumerate().find_map(|(at, word)| {
        let rest = bare(word)?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() => line.get(at + 1).map(String::as_str),
            None => None,
        }
    })
}

fn uses(pid: u32) -> anyhow::Result<Amount> {
    let usage = usage::of(pid).with_context(|| format!("read what process {pid} uses (as root)"))?;
    Ok(usage.into())
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shims_flags_are_read_in_every_form() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let ours = line("containerd-shim-runc-v2 -namespace k8s.io -id ab12 -address /run/c.sock");
        assert_eq!((flag(&ours, "id"), flag(&ours, "address")), (Some("ab12"), Some("/run/c.sock")));
        let other = line("shim --namespace=moby --id=x -debug");
        assert_eq!((flag(&other, "namespace"), flag(&other, "id")), (Some("moby"), Some("x")));
        assert_eq!((flag(&other, "address"), flag(&line("sleep -idle 5 -id"), "id")), (None, None));
    }
}
