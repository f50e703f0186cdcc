//! `-info`: prints what this runtime can do, as containerd 1.7 and later ask (`containerd.types.RuntimeInfo`).
//!
//! Features are those that the engine itself tells, with the standard input naming another engine than runc.

use std::io::{Read, Write};

use prost::Message;
use prost_types::Any;
use shared_proto::any;
use shared_proto::containerd::runc;
use shared_proto::containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::engine;
use crate::error::Error;
use crate::options::Options;

/// URL of a JSON-encoded OCI runtime `Features`.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

pub fn info() -> Result<(), Error> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(Error::io("read", "standard input"))?;
    let given = (!bytes.is_empty()).then(|| Any::decode(bytes.as_slice())).transpose();
    let given = given.map_err(|e| Error::Invalid(format!("malformed options on standard input: {e}")))?;
    let options = Options::new(given.as_ref(), "")?;
    // An engine without the command has none to tell.
    let features = engine::run_alone(&options, ["features"]).ok().filter(|json| json.starts_with(b"{"));
    let info = RuntimeInfo {
        name: "io.containerd.runc.v2".into(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), revision: String::new() }),
        options: Some(given.unwrap_or_else(|| any::pack(&runc::Options::default()))),
        features: features.map(|json| any::raw(FEATURES, json)),
        annotations: Default::default(),
    };
    std::io::stdout().write_all(&info.encode_to_vec()).map_err(Error::io("write", "standard output"))
}
