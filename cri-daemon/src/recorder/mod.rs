//! The flight recorder: stands between a kubelet and any CRI socket, and writes down every call.
//!
//! ```text
//!  kubelet ──▶ proxy ──▶ CRI socket
//!               │ tap: copies of the bytes, times
//!               ▼
//!            journal (bounded queue) ──▶ lines: decode, redact ──▶ FILE
//! ```
//!
//! - [`proxy`]: passes on whatever comes; knows no message. [`tap`], [`frames`]: look at it on the way.
//! - [`event`]: what they tell. [`journal`]: the queue and the file. [`lines`]: an event as a line. [`format`]: the lines.
//! - [`messages`]: bytes as JSON, by the descriptors of CRI. [`redact`]: what is not told.
//! - [`raw`]: a client for bytes, which `replay` calls with.
//!
//! Two rules: a call is never slower, and never fails, because it is recorded; and what is not known to be free of
//! secrets is not written. So a full queue or disk costs lines, which are counted, and a message that this version
//! can't read is told by its size alone. The record of a message is the JSON that a reader sees, without the bytes
//! beside it: one truth, which an editor can change, and from which `replay` makes the same bytes again.
//!
//! The code is in the program alone, not in the library that the core links in.

pub mod event;
pub mod format;
pub mod frames;
pub mod journal;
pub mod lines;
pub mod messages;
pub mod proxy;
pub mod raw;
pub mod redact;
pub mod tap;
