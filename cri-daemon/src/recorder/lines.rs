//! An event as a line of the recording: decoded, without secrets.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::event::{Ended, Event};
use super::format::{Call, Content, Line, Message, Open, code_name};
use super::frames::Frame;
use super::messages::{self, Method};
use super::redact::{Redacted, redact};

/// How messages are told.
pub struct Lines {
    /// Whether the bytes of messages are kept that can't be read, and so can't be redacted.
    unknown: bool,
    /// The methods of the streams that are open.
    streams: HashMap<u64, Method>,
}

impl Lines {
    pub fn new(unknown: bool) -> Self {
        Self { unknown, streams: HashMap::new() }
    }

    /// The line of an event.
    pub fn of(&mut self, event: Event) -> Line {
        match event {
            Event::Opened(call, request) => {
                let method = messages::method(&call.method);
                let (request, _) = self.content(Some(&request), method.as_ref().map(|method| &method.request));
                if let Some(method) = method {
                    self.streams.insert(call.seq, method);
                }
                let Ended { seq, method, start_ns, deadline_ms, request_bytes, .. } = call;
                Line::Open(Open { seq, method, start_ns, deadline_ms, request, request_bytes })
            }
            Event::Answered { seq, at_ns, frame } => {
                let descriptor = self.streams.get(&seq).map(|method| method.response.clone());
                let (response, _) = self.content(Some(&frame), descriptor.as_ref());
                Line::Message(Message { seq, at_ns, response, response_bytes: frame.length as u64 })
            }
            Event::Ended(call) => Line::Call(self.ended(call)),
        }
    }

    fn ended(&mut self, call: Ended) -> Call {
        self.streams.remove(&call.seq);
        let method = messages::method(&call.method);
        let (request, secrets) = self.content(call.request.as_ref(), method.as_ref().map(|method| &method.request));
        let (response, _) = self.content(call.response.as_ref(), method.as_ref().map(|method| &method.response));
        let (code, message) = call.status.unzip();
        Call {
            seq: call.seq,
            method: call.method,
            start_ns: call.start_ns,
            took_ns: call.took_ns,
            deadline_ms: call.deadline_ms,
            code: code.map(|code| code_name(code).to_owned()),
            message: secrets.text(&message.unwrap_or_default()),
            cut: call.cut,
            request,
            response,
            responses: call.responses,
            request_bytes: call.request_bytes,
            response_bytes: call.response_bytes,
        }
    }

    /// A message, and what was taken out of it.
    fn content(&self, frame: Option<&Frame>, descriptor: Option<&MessageDescriptor>) -> (Content, Redacted) {
        let Some(frame) = frame else { return Default::default() };
        let withheld =
            |why: &str| (Content { withheld: Some(why.to_owned()), ..Default::default() }, Redacted::default());
        let Some(bytes) = frame.bytes() else { return withheld("there was no room for it") };
        let unreadable = |why: &str| match self.unknown {
            true => (Content { base64: Some(STANDARD.encode(bytes)), ..Default::default() }, Redacted::default()),
            false => withheld(why),
        };
        if frame.compressed {
            return unreadable("it is compressed");
        }
        let Some(descriptor) = descriptor else { return unreadable("its form is not known") };
        let Ok(mut message) = DynamicMessage::decode(descriptor.clone(), bytes) else {
            return unreadable("it is not of the form that is known");
        };
        let done = redact(&mut message);
        match messages::to_json(&message) {
            Ok(json) => {
                let content = Content {
                    json: Some(json),
                    redacted: done.count,
                    unknown_fields: done.unknown,
                    ..Default::default()
                };
                (content, done)
            }
            Err(_) => unreadable("it is not of the form that is known"),
        }
    }
}
