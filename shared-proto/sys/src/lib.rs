//! System calls behind safe functions: the only crate with unsafe code.
//!
//! - [`allocations`]: what a bench allocates, counted.
//! - [`blocking`]: the one door from async code to blocking work.
//! - [`caps`]: what this process may do.
//! - [`cgroup`]: where cgroups are mounted, and which one a process is in.
//! - [`child`]: the end of a child process, told before it is reaped.
//! - [`clock`]: the clock that two processes have in common.
//! - [`descriptor`]: descriptors that an async task can wait for.
//! - [`fifo`]: named pipes, and moving bytes from one to a file.
//! - [`files`]: files that are whole or absent after a crash.
//! - [`fork`]: a child in namespaces of its own, from a process of one thread.
//! - [`memory`]: giving back what a start or a burst needed.
//! - [`netns`]: network namespaces.
//! - [`mount`]: mounts as containerd describes them; trees that are mounted nowhere.
//! - [`process`]: signals by number, children that are given descriptors.
//! - [`program`]: programs that are run from a sealed copy in memory.
//! - [`signals`]: the signals that end a daemon, and how long its work may go on then.
//! - [`socket`]: listening on a Unix socket that one daemon owns.
//! - [`usage`]: what a process uses.

pub mod allocations;
pub mod blocking;
pub mod caps;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod descriptor;
pub mod fifo;
pub mod files;
pub mod fork;
pub mod memory;
pub mod mount;
pub mod netns;
pub mod process;
pub mod program;
pub mod signals;
pub mod socket;
pub mod usage;

pub use blocking::blocking;
