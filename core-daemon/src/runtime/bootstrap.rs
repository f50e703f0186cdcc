//! Where a shim listens, as its `start` command says it and as a bundle keeps it.
//!
//! | since | `start` prints |
//! |---|---|
//! | 1.2 | the address |
//! | 1.7 | JSON `{"version":3,"address":"unix://…","protocol":"ttrpc"}` |
//! | 2.3 | the message `BootstrapResult` |

use std::path::{Path, PathBuf};

use prost::Message;
use serde::{Deserialize, Serialize};
use shared_proto::ttrpc::bootstrap::BootstrapResult;

/// Where a shim listens and what it speaks. The JSON form is that of the 1.7 answer, plus `shared`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bootstrap {
    /// Version of the Task service, 2 or 3.
    pub version: u32,
    /// `unix://` and a path.
    pub address: String,
    pub protocol: String,
    /// The shim was started for another task.
    #[serde(default)]
    pub shared: bool,
}

impl Bootstrap {
    /// Reads the output of `start`.
    pub fn parse(output: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(output).map(str::trim).ok();
        let parsed = match text {
            Some("") => return Err("it printed no address".into()),
            Some(text) if text.starts_with('{') => {
                serde_json::from_str(text).map_err(|e| format!("it printed malformed JSON ({e}): {text}"))?
            }
            Some(text) if text.contains("://") && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Self { version: 2, address: text.to_owned(), protocol: "ttrpc".into(), shared: false }
            }
            Some(_) | None => {
                let result = BootstrapResult::decode(output)
                    .map_err(|_| format!("it printed no address: {}", String::from_utf8_lossy(output)))?;
                let version = u32::try_from(result.version).unwrap_or(0);
                Self { version, address: result.address, protocol: result.protocol, shared: false }
            }
        };
        parsed.check()
    }

    fn check(self) -> Result<Self, String> {
        if !matches!(self.version, 2 | 3) {
            return Err(format!("version {} of the task API is not supported", self.version));
        }
        if self.protocol != "ttrpc" {
            return Err(format!("protocol {:?} is not supported", self.protocol));
        }
        if self.socket().is_none() {
            return Err(format!("address {:?} is not supported: not a Unix socket", self.address));
        }
        Ok(self)
    }

    /// The path of the socket.
    pub fn socket(&self) -> Option<PathBuf> {
        let path = self.address.strip_prefix("unix://")?;
        path.starts_with('/').then(|| Path::new(path).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_the_answer() {
        let expected =
            |version| Bootstrap { version, address: "unix:///run/s".into(), protocol: "ttrpc".into(), shared: false };
        assert_eq!(Bootstrap::parse(b"unix:///run/s\n").unwrap(), expected(2));
        let json = br#"{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}"#;
        assert_eq!(Bootstrap::parse(json).unwrap(), expected(3));
        let mut message = BootstrapResult { version: 3, address: "unix:///run/s".into(), ..Default::default() };
        message.protocol = "ttrpc".into();
        assert_eq!(Bootstrap::parse(&message.encode_to_vec()).unwrap(), expected(3));
        assert_eq!(Bootstrap::parse(&serde_json::to_vec(&expected(3)).unwrap()).unwrap(), expected(3));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (output, part) in [
            (&b""[..], "no address"),
            (b"panic: oh no", "panic: oh no"),
            (b"{", "malformed JSON"),
            (br#"{"version":9,"address":"unix:///s","protocol":"ttrpc"}"#, "version 9"),
            (br#"{"version":3,"address":"unix:///s","protocol":"grpc"}"#, "\"grpc\""),
            (b"vsock://3:1", "vsock://3:1"),
        ] {
            let e = Bootstrap::parse(output).unwrap_err();
            assert!(e.contains(part), "{e}");
        }
    }
}
