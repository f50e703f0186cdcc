//! Drives any CRI endpoint with a recording, and compares its answers and its times with the recorded ones.
//!
//! - [`recording`]: reads the file. [`prepare`]: what it needs of the node; [`auth`]: credentials, which it has not.
//! - [`driver`]: when each call is made. [`session`]: one call, from its request to its differences; [`judge`]: how
//!   they are found.
//! - [`ids`]: the words of both sides. [`compare`]: where answers differ.
//! - [`known`]: the table of differences that have a reason, from the whole recording's [`facts`].
//! - [`report`]: what is printed.
//!
//! Limits: what goes over the addresses of Exec, Attach and PortForward is not on the CRI socket, so it is neither
//! recorded nor replayed. Messages are compared whole but for the fields of [`compare`]'s table; of events, which of
//! them came for which container.

pub mod auth;
pub mod compare;
pub mod driver;
pub mod facts;
pub mod ids;
pub mod judge;
pub mod known;
pub mod prepare;
pub mod recording;
pub mod report;
pub mod session;
