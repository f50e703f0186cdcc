//! Debian's `ctr`, unchanged, against a world's core socket.

use std::process::{Child, Command, Output, Stdio};

use crate::World;

impl World {
    fn ctr_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.paths.core_socket).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `ctr`; answers all that it did.
    pub fn try_ctr(&self, args: &[&str]) -> Output {
        self.ctr_command(args).output().expect("run ctr: install containerd")
    }

    /// Runs `ctr`, which must succeed; answers what it printed.
    pub fn ctr(&self, args: &[&str]) -> String {
        let output = self.try_ctr(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "ctr {args:?}: {}\nstdout: {out}\nstderr: {err}", output.status);
        out.into_owned()
    }

    /// Starts `ctr` and lets it run; its output goes to a pipe.
    pub fn ctr_spawn(&self, args: &[&str]) -> Child {
        self.ctr_command(args).stdout(Stdio::piped()).spawn().expect("run ctr: install containerd")
    }
}
