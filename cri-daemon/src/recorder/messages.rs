//! What is known of a method: its messages, by name. Bytes become JSON and JSON becomes bytes, without generated types.
//!
//! The descriptors are those that our own code is generated from. v1alpha2 has v1's messages on the wire, so its
//! methods are looked up under v1's name. JSON is protobuf's own mapping with the names of the `.proto` file: 64 bit
//! numbers are strings, bytes are base64, enum values are names, and what has its default value is left out.

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

const OLD: &str = "/runtime.v1alpha2.";
const NEW: &str = "/runtime.v1.";

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(shared_proto::DESCRIPTORS).expect("our own descriptors are valid"));

/// A method that this version knows.
#[derive(Debug, Clone)]
pub struct Method {
    pub request: MessageDescriptor,
    pub response: MessageDescriptor,
    /// The answer is a stream of messages.
    pub streams: bool,
}

/// The method behind a path such as `/runtime.v1.RuntimeService/Version`.
pub fn method(path: &str) -> Option<Method> {
    let path = match path.strip_prefix(OLD) {
        Some(rest) => format!("{NEW}{rest}"),
        None => path.to_owned(),
    };
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    let service = POOL.get_service_by_name(service)?;
    let method = service.methods().find(|method| method.name() == name)?;
    Some(Method { request: method.input(), response: method.output(), streams: method.is_server_streaming() })
}

/// The last part of a method's path.
pub fn short(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A message as JSON.
pub fn to_json(message: &DynamicMessage) -> serde_json::Result<Value> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options)
}

/// The bytes of a message that [`to_json`] has written, or that somebody has changed since.
pub fn to_bytes(descriptor: MessageDescriptor, json: &Value) -> serde_json::Result<Vec<u8>> {
    Ok(DynamicMessage::deserialize(descriptor, json)?.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use prost_reflect::ReflectMessage as _;
    use shared_proto::cri::v1;

    use super::*;

    #[test]
    fn methods_are_found_in_both_versions() {
        let run = method("/runtime.v1alpha2.RuntimeService/RunPodSandbox").expect("an old method");
        assert_eq!(run.request.full_name(), "runtime.v1.RunPodSandboxRequest");
        assert!(!run.streams && method("/runtime.v1.RuntimeService/GetContainerEvents").expect("a stream").streams);
        for unknown in ["/runtime.v1.RuntimeService/Fly", "/grpc.health.v1.Health/Check", "Version", ""] {
            assert!(method(unknown).is_none(), "{unknown}");
        }
        assert_eq!(short("/runtime.v1.RuntimeService/Version"), "Version");
    }

    #[test]
    fn json_is_the_message_again() {
        let request = v1::ExecSyncResponse { stdout: vec![0, 159, 146], exit_code: -1, ..Default::default() };
        let method = method("/runtime.v1.RuntimeService/ExecSync").unwrap();
        let message = DynamicMessage::decode(method.response.clone(), &*request.encode_to_vec()).unwrap();
        let json = to_json(&message).unwrap();
        assert_eq!(json, serde_json::json!({"stdout": "AJ+S", "exit_code": -1}));
        assert_eq!(to_bytes(method.response, &json).unwrap(), request.encode_to_vec());

        let config = v1::ContainerStatus { created_at: i64::MAX, state: 2, ..Default::default() };
        let descriptor = POOL.get_message_by_name("runtime.v1.ContainerStatus").unwrap();
        let message = DynamicMessage::decode(descriptor, &*config.encode_to_vec()).unwrap();
        let json = to_json(&message).unwrap();
        assert_eq!(json, serde_json::json!({"created_at": "9223372036854775807", "state": "CONTAINER_EXITED"}));
        assert_eq!(to_bytes(message.descriptor(), &json).unwrap(), config.encode_to_vec());
        let wrong = serde_json::json!({"creatd_at": "1"});
        assert!(to_bytes(message.descriptor(), &wrong).unwrap_err().to_string().contains("creatd_at"));
    }
}
