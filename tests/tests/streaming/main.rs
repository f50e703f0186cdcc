//! Exec, attach and port-forward over SPDY and WebSocket, with real containers.

mod attach;
mod exec;
mod forward;
mod kubectl;

use attach::{attached_terminals, attaching, slow_clients_of_an_attach, stdin_once};
use exec::{clients_that_vanish, exec_over_spdy, exec_over_websocket, refusals, terminals};
use forward::{forwarding_over_spdy, forwarding_over_websocket};
use kubectl::{kubectl_at_work, kubectl_over_tls};

e2e::wirings!(
    attached_terminals,
    attaching,
    clients_that_vanish,
    exec_over_spdy,
    exec_over_websocket,
    forwarding_over_spdy,
    forwarding_over_websocket,
    kubectl_at_work,
    kubectl_over_tls,
    refusals,
    slow_clients_of_an_attach,
    stdin_once,
    terminals,
);

/// What kubectl speaks over SPDY.
const V4: &str = "v4.channel.k8s.io";
