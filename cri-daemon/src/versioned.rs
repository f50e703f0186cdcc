//! Records with a version, as JSON in a container's extension: `{"Version": "v1", "Metadata": {…}}`.

use prost_types::Any;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared_proto::{Code, Error};

const VERSION: &str = "v1";

/// Why a record can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("encode the record: {0}")]
    Encode(serde_json::Error),
    #[error("malformed record of type {type_url:?}: {source}")]
    Malformed { type_url: String, source: serde_json::Error },
    #[error("a record of version {version:?}, which this release does not know")]
    Version { version: String },
    #[error("the container has no extension {0}")]
    Missing(&'static str),
}

impl From<RecordError> for Error {
    fn from(e: RecordError) -> Self {
        let code = match &e {
            RecordError::Encode(_) => Code::Internal,
            RecordError::Malformed { .. } | RecordError::Version { .. } | RecordError::Missing(_) => {
                Code::FailedPrecondition
            }
        };
        Error::new(code, e.to_string())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Writing<'a, T> {
    version: &'a str,
    metadata: &'a T,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reading {
    version: String,
    metadata: serde_json::Value,
}

pub fn encode<T: Serialize>(type_url: &str, metadata: &T) -> Result<Any, RecordError> {
    let value = serde_json::to_vec(&Writing { version: VERSION, metadata }).map_err(RecordError::Encode)?;
    Ok(Any { type_url: type_url.to_owned(), value })
}

pub fn decode<T: DeserializeOwned>(any: &Any) -> Result<T, RecordError> {
    let malformed = |source| RecordError::Malformed { type_url: any.type_url.clone(), source };
    let reading: Reading = serde_json::from_slice(&any.value).map_err(malformed)?;
    if reading.version != VERSION {
        return Err(RecordError::Version { version: reading.version });
    }
    let mut metadata = reading.metadata;
    drop_nulls(&mut metadata);
    serde_json::from_value(metadata).map_err(malformed)
}

/// Go writes `null` for an empty list or map; for us it is the same as an absent key.
fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}
