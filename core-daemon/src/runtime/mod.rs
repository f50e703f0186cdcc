//! Tasks: containers that run, each under a shim, a small process that outlives this one.
//!
//! ```text
//!            create ──▶ bundle ──▶ shim `start` ──▶ connection ──▶ Task.Create     then events from the shim keep
//! services                                                                         the states of processes current
//!            recover ─▶ bundles on disk ──────────▶ connection ──▶ Task.State
//! ```
//!
//! - [`Tasks`]: the manager, one method an operation.
//! - `registry`: which tasks there are, and who may take one away.
//! - `task`, `process`: a task and the state machine of its processes.
//! - `bundle`: a task's folder, all that a restart needs.
//! - `launch`: runs a shim's binary: `start` and `delete`. `bootstrap`: what `start` answers.
//!   `engines`: copies of runc and crun that shims run faster.
//! - `shim`: the connection to a running shim, and its death.
//! - `undo`: takes back what failed. `bury`: cleans up after a shim that died. `cgroup`: what a killed runtime leaves.
//!   `recover`: finds the tasks of an earlier run again.
//! - `forward`: the ttrpc socket on which shims deliver events. [`publish`]: the same for scripts.
//!
//! Invariants: a shim is never stopped by this process ending. Every call to a shim has a deadline, and nothing but
//! tasks of the same shim ever waits for it. A process's exit is final; it is published once. Reads are answered from
//! memory; a shim is asked only where memory isn't sure.
//!
//! Limits: shims that speak ttrpc on a Unix socket; checkpoints go to a folder that the client names.

mod bootstrap;
mod bundle;
mod bury;
mod cgroup;
mod engines;
mod error;
mod exits;
mod forward;
mod launch;
mod lifecycle;
mod manager;
mod operations;
mod process;
pub mod publish;
mod recover;
mod registry;
mod shim;
mod shim_log;
mod shims;
mod spec;
mod strays;
mod task;
mod undo;

pub use bundle::FOLDER;
pub use error::RuntimeError;
pub use forward::serve_ttrpc;
pub use lifecycle::Create;
pub use manager::{RuntimeConfig, Tasks};
pub use operations::{Exec, Kill, Sample};
pub use process::{Exit, Info, State, Stdio};
pub use recover::Recovered;
