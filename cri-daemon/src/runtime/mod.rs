//! The RuntimeService: one file a call.
