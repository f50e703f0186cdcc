//! The command line, in the form of Go's `flag` package: `-name value`, `-name=value`, one dash or two, then the action.

use std::path::PathBuf;

use crate::error::Error;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start,
    Delete,
    Info,
    Version,
    Serve,
}

/// What containerd tells a shim.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    pub action: Action,
    pub namespace: String,
    pub id: String,
    /// The core's gRPC socket: part of the name of our own.
    pub address: String,
    /// Empty: the working directory.
    pub bundle: PathBuf,
    pub debug: bool,
    /// Passed on to the server, so that `ps` shows what containerd has set.
    pub publish_binary: String,
}

impl Args {
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut args = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: PathBuf::new(),
            debug: false,
            publish_binary: String::new(),
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                args.action = match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(Error::Usage(format!("unknown action {other:?}"))),
                };
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut text =
                || value.clone().or_else(|| words.next()).ok_or_else(|| Error::Usage(format!("-{name} needs a value")));
            match name {
                "namespace" => args.namespace = text()?,
                "id" => args.id = text()?,
                "address" => args.address = text()?,
                "bundle" => args.bundle = text()?.into(),
                "publish-binary" => args.publish_binary = text()?,
                // The server's socket is its standard input; this flag is how older callers named one.
                "socket" => drop(text()?),
                "debug" => args.debug = value.as_deref() != Some("false"),
                "info" => args.action = Action::Info,
                "v" => args.action = Action::Version,
                other => return Err(Error::Usage(format!("unknown flag -{other}"))),
            }
        }
        args.check()
    }

    fn check(self) -> Result<Self, Error> {
        match self.action {
            Action::Info | Action::Version => return Ok(self),
            Action::Start | Action::Delete | Action::Serve => {}
        }
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() || value.contains('/') || value == "." || value == ".." {
                return Err(Error::Usage(format!("-{flag} {value:?} is no name")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, Error> {
        Args::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn flags_in_both_forms() {
        let args = parse("-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id one -debug start").unwrap();
        assert_eq!((args.namespace.as_str(), args.id.as_str(), args.action), ("k8s.io", "one", Action::Start));
        assert!(args.debug);
        let args = parse("--namespace=k8s.io --id=one --bundle=/b delete").unwrap();
        assert_eq!((args.bundle.to_str(), args.action, args.debug), (Some("/b"), Action::Delete, false));
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("-id", "-id needs a value"),
            ("-id x stop", "\"stop\""),
            ("-id x -colour red start", "-colour"),
            ("-id x start", "-namespace"),
            ("-namespace n -id ../x start", "../x"),
        ] {
            let e = parse(line).unwrap_err().to_string();
            assert!(e.contains(part), "{line}: {e}");
        }
    }
}
