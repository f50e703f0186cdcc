//! Tests of images against servers on this machine: a scripted one for faults, docker-registry for the truth.

pub mod archive;
mod auth;
mod discard;
pub mod fake;
mod faults;
pub mod local;
pub mod node;
mod pull;
mod real;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use super::auth::{Credentials, NoCredentials};
use super::hosts::{self, Host};
use super::registry::{Registry, Retry};

/// Retries that don't make tests slow.
pub const QUICK: Retry = Retry { attempts: 4, pause: Duration::from_millis(1), longest: Duration::from_secs(2) };

/// A registry whose hosts come from a `hosts.toml` with this text.
pub fn registry(reference: &str, hosts_toml: &str, credentials: Arc<dyn Credentials>) -> Registry {
    let reference: super::Reference = reference.parse().unwrap();
    let hosts = hosts(&reference.registry, hosts_toml);
    Registry::new(reference, hosts, &Arc::default(), &credentials, &Default::default())
        .with_limits(QUICK, Duration::from_secs(20))
}

/// The same without credentials.
pub fn anonymous(reference: &str, hosts_toml: &str) -> Registry {
    registry(reference, hosts_toml, Arc::new(NoCredentials))
}

fn hosts(registry: &str, hosts_toml: &str) -> Vec<Host> {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(registry)).unwrap();
    std::fs::write(root.path().join(registry).join("hosts.toml"), hosts_toml).unwrap();
    hosts::lookup(&[root.path().to_owned()], registry).unwrap()
}
