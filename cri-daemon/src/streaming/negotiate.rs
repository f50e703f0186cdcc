//! What a client may want to speak, and what is chosen: the first of its proposals that is known here.

use http::HeaderMap;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};

use super::status::Form;

/// Where SPDY clients propose, and are told, the protocol above it.
pub const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// Where they are told what there is, when nothing of theirs is known.
pub const ACCEPTED: &str = "x-accepted-stream-protocol-versions";

/// The protocol of exec and attach, as SPDY clients call it.
const REMOTE: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const FORWARD: &str = "portforward.k8s.io";
const CHANNEL: &str = "channel.k8s.io";
/// SPDY inside WebSocket messages, as kubectl forwards ports through proxies.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The transport that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    Spdy,
    WebSocket,
}

/// Whether a protocol is for exec and attach or for port-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Remote,
    Forward,
}

/// What is spoken, and the name under which the client proposed it; empty: it proposed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub name: String,
    pub version: u8,
    /// WebSocket: messages are text, with base64 in them.
    pub base64: bool,
    /// WebSocket: SPDY goes on inside.
    pub tunnel: bool,
}

impl Chosen {
    /// How a status is told.
    pub fn form(&self) -> Form {
        if self.version >= 4 { Form::Json } else { Form::Text }
    }

    /// Whether terminals can be resized: SPDY clients open a channel for it only then.
    pub fn resizes(&self) -> bool {
        self.version >= 3
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("this address is for connections that are upgraded to SPDY/3.1 or WebSocket")]
    NoUpgrade,
    #[error("unable to upgrade: the client offers {offered:?}, and {known:?} is known here")]
    NothingKnown { offered: Vec<String>, known: Vec<String> },
    #[error("unable to upgrade: a WebSocket of version 13, with its key, is needed")]
    BadWebSocket,
}

/// The transport that is asked for.
pub fn upgrade(headers: &HeaderMap) -> Result<Upgrade, Refused> {
    let connection = list(headers, CONNECTION.as_str());
    if !connection.iter().any(|word| word.eq_ignore_ascii_case("upgrade")) {
        return Err(Refused::NoUpgrade);
    }
    for word in list(headers, UPGRADE.as_str()) {
        if word.eq_ignore_ascii_case("SPDY/3.1") {
            return Ok(Upgrade::Spdy);
        }
        if word.eq_ignore_ascii_case("websocket") {
            let version = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
            return match version && headers.contains_key(SEC_WEBSOCKET_KEY) {
                true => Ok(Upgrade::WebSocket),
                false => Err(Refused::BadWebSocket),
            };
        }
    }
    Err(Refused::NoUpgrade)
}

/// Chooses the protocol above the transport.
pub fn choose(headers: &HeaderMap, upgrade: Upgrade, purpose: Purpose) -> Result<Chosen, Refused> {
    let (offered, known) = match upgrade {
        Upgrade::Spdy => (list(headers, STREAM_PROTOCOL), spdy as fn(&str, Purpose) -> Option<Chosen>),
        Upgrade::WebSocket => (list(headers, SEC_WEBSOCKET_PROTOCOL.as_str()), websocket as _),
    };
    if offered.is_empty() {
        // As clients were before there was anything to choose.
        return Ok(Chosen { name: String::new(), version: 1, base64: false, tunnel: false });
    }
    offered.iter().find_map(|name| known(name, purpose)).ok_or_else(|| Refused::NothingKnown {
        offered,
        known: accepted(purpose).into_iter().map(String::from).collect(),
    })
}

/// What SPDY clients may propose.
pub fn accepted(purpose: Purpose) -> Vec<&'static str> {
    match purpose {
        Purpose::Remote => REMOTE.to_vec(),
        Purpose::Forward => vec![FORWARD],
    }
}

fn spdy(name: &str, purpose: Purpose) -> Option<Chosen> {
    let known = accepted(purpose).into_iter().find(|known| *known == name)?;
    let version = match purpose {
        Purpose::Remote => version(known)?.0,
        Purpose::Forward => 1,
    };
    Some(Chosen { name: name.into(), version, base64: false, tunnel: false })
}

fn websocket(name: &str, purpose: Purpose) -> Option<Chosen> {
    let chosen = |version, base64, tunnel| Some(Chosen { name: name.into(), version, base64, tunnel });
    match (purpose, name) {
        (Purpose::Forward, FORWARD) => chosen(4, false, false),
        (Purpose::Forward, TUNNEL) => chosen(4, false, true),
        (Purpose::Forward, _) => match version(name)? {
            (version @ 1..=4, base64) => chosen(version, base64, false),
            (_, _) => None,
        },
        (Purpose::Remote, _) => version(name).and_then(|(version, base64)| chosen(version, base64, false)),
    }
}

/// `[vN.][base64.]channel.k8s.io`: N, and whether it is base64.
fn version(name: &str) -> Option<(u8, bool)> {
    let front = name.strip_suffix(CHANNEL)?;
    let (front, base64) = match front.strip_suffix("base64.") {
        Some(front) => (front, true),
        None => (front, false),
    };
    match front {
        "" | "v1." => Some((1, base64)),
        "v2." => Some((2, base64)),
        "v3." => Some((3, base64)),
        "v4." => Some((4, base64)),
        "v5." => Some((5, base64)),
        _ => None,
    }
}

/// The words of a header, which may come more than once and hold several each.
fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty());
    words.map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_upgrades_are_served() {
        let spdy = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert_eq!(upgrade(&spdy), Ok(Upgrade::Spdy));
        assert_eq!(upgrade(&headers(&[("upgrade", "SPDY/3.1")])), Err(Refused::NoUpgrade));
        assert_eq!(upgrade(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])), Err(Refused::NoUpgrade));
        let mut socket = vec![("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
        assert_eq!(upgrade(&headers(&socket)), Err(Refused::BadWebSocket));
        socket.push(("sec-websocket-key", "x"));
        assert_eq!(upgrade(&headers(&socket)), Ok(Upgrade::WebSocket));
    }

    #[test]
    fn the_first_known_proposal_is_taken() {
        let proposal = |words: &'static [&'static str]| {
            let pairs: Vec<_> = words.iter().map(|word| (STREAM_PROTOCOL, *word)).collect();
            choose(&headers(&pairs), Upgrade::Spdy, Purpose::Remote)
        };
        let four = proposal(&["v9.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io"]).unwrap();
        assert_eq!((four.name.as_str(), four.version, four.form()), ("v4.channel.k8s.io", 4, Form::Json));
        let two = proposal(&["v2.channel.k8s.io, channel.k8s.io"]).unwrap();
        assert_eq!((two.version, two.form(), two.resizes()), (2, Form::Text, false));
        assert_eq!(proposal(&[]).unwrap().version, 1);
        let refused = proposal(&["portforward.k8s.io"]).unwrap_err().to_string();
        assert!(refused.contains("portforward.k8s.io") && refused.contains("v4.channel.k8s.io"), "{refused}");
        assert!(proposal(&["v5.channel.k8s.io"]).is_err(), "there is no v5 over SPDY");
    }

    #[test]
    fn websockets_have_more_names() {
        let choose = |word: &'static str, purpose| {
            choose(&headers(&[("sec-websocket-protocol", word)]), Upgrade::WebSocket, purpose)
        };
        let five = choose("v5.channel.k8s.io, v4.channel.k8s.io", Purpose::Remote).unwrap();
        assert_eq!((five.version, five.base64), (5, false));
        let old = choose("base64.channel.k8s.io", Purpose::Remote).unwrap();
        assert_eq!((old.version, old.base64, old.form()), (1, true, Form::Text));
        let four = choose("v4.base64.channel.k8s.io", Purpose::Forward).unwrap();
        assert_eq!((four.version, four.base64), (4, true));
        assert!(choose("v5.channel.k8s.io", Purpose::Forward).is_err());
        assert!(choose(TUNNEL, Purpose::Forward).unwrap().tunnel);
        assert!(choose(TUNNEL, Purpose::Remote).is_err());
        assert!(choose("portforward.k8s.io", Purpose::Forward).is_ok());
        assert!(choose("graphql-ws", Purpose::Remote).is_err());
    }
}
