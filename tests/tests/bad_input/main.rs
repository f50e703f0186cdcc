//! Wrong requests and a world that fails: the right code, a message that names the thing, and nothing left behind.
//!
//! `docs/bad-input.md` lists every kind, its answer, and the test that shows it; most of the tests are here, one file a
//! part of the system. What a suite of its own looks at (pulls, networks, streams, resources, crashes) is not repeated.

mod containers;
mod content;
mod images;
mod layers;
mod limits;
mod messages;
mod names;
mod pods;
mod records;
mod restart;
mod setup;
mod tasks;
mod wire;

use e2e::cri::refused;

use containers::containers;
use content::content;
use images::{images_that_can_not_be_pulled, references};
use layers::{device_nodes_are_no_way_out, layers_that_are_refused, layers_that_grow, layers_that_lead_out};
use limits::{features, not_offered};
use messages::{oversized_messages, streams_and_events};
use names::unknown_ids;
use pods::pods;
use records::records;
use restart::{damaged_files, the_core_is_away};
use setup::{networks_that_fail, shims_that_fail};
use tasks::tasks;
use wire::{bytes_that_are_no_message, calls_that_never_end, many_who_write_the_same};

e2e::wirings!(
    bytes_that_are_no_message,
    calls_that_never_end,
    containers,
    content,
    damaged_files,
    device_nodes_are_no_way_out,
    features,
    images_that_can_not_be_pulled,
    layers_that_are_refused,
    layers_that_grow,
    layers_that_lead_out,
    many_who_write_the_same,
    networks_that_fail,
    not_offered,
    oversized_messages,
    pods,
    records,
    references,
    shims_that_fail,
    streams_and_events,
    tasks,
    the_core_is_away,
    unknown_ids,
);

/// An id that nobody has.
const UNKNOWN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A refusal of the core.
#[track_caller]
fn fails<T>(what: &str, answer: shared_proto::Result<T>, code: shared_proto::Code, names: &str) {
    let error = match answer {
        Ok(_) => panic!("{what}: should have failed"),
        Err(error) => error,
    };
    assert_eq!(error.code, code, "{what}: {error:?}");
    assert!(error.message.contains(names), "{what}: the message does not name {names:?}: {error:?}");
}
