//! The JSON form of messages: one object a line, `{"sequence":1,"open":{…}}`.

use serde::{Deserialize, Serialize};

use crate::protocol::to_program::Body;
use crate::protocol::{
    Ack, Clients, CloseSession, Configuration, Hello, OpenSession, Ping, Pong, Resync, SessionState, ToProgram, Welcome,
};

/// A message to the program.
#[derive(Serialize)]
struct Down<'a> {
    sequence: u64,
    #[serde(flatten)]
    body: DownBody<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum DownBody<'a> {
    Configuration(&'a Configuration),
    Open(&'a OpenSession),
    Close(&'a CloseSession),
    Ping(&'a Ping),
    Welcome(&'a Welcome),
    Resync(&'a Resync),
    Ack(&'a Ack),
}

/// A message as a line.
pub(crate) fn line(message: &ToProgram) -> Vec<u8> {
    let body = match &message.body {
        Some(Body::Configuration(body)) => DownBody::Configuration(body),
        Some(Body::Open(body)) => DownBody::Open(body),
        Some(Body::Close(body)) => DownBody::Close(body),
        Some(Body::Ping(body)) => DownBody::Ping(body),
        Some(Body::Welcome(body)) => DownBody::Welcome(body),
        Some(Body::Resync(body)) => DownBody::Resync(body),
        Some(Body::Ack(body)) => DownBody::Ack(body),
        None => return Vec::new(),
    };
    let mut line =
        serde_json::to_vec(&Down { sequence: message.sequence, body }).expect("numbers, strings and maps of strings");
    line.push(b'\n');
    line
}

/// A message of the program.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Up {
    /// Which stream it belongs to; none: the current one.
    pub(crate) stream: Option<u64>,
    pub(crate) sequence: u64,
    pub(crate) hello: Option<Hello>,
    pub(crate) state: Option<SessionState>,
    pub(crate) clients: Option<Clients>,
    pub(crate) pong: Option<Pong>,
}

/// Phases by name.
pub(crate) mod phase {
    use serde::{Deserialize, Deserializer};

    use crate::protocol::Phase;

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        None,
        Initializing,
        Open,
        Closed,
        Closing,
        Failed,
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        let phase = match Name::deserialize(deserializer)? {
            Name::None => Phase::None,
            Name::Initializing => Phase::Initializing,
            Name::Open => Phase::Open,
            Name::Closed => Phase::Closed,
            Name::Closing => Phase::Closing,
            Name::Failed => Phase::Failed,
        };
        Ok(phase.into())
    }
}

/// A session's data: a string where it is text, else `{"base64":"…"}`.
pub(crate) mod data {
    use base64::Engine;
    use serde::{Serialize, Serializer};

    #[derive(Serialize)]
    struct Binary {
        base64: String,
    }

    pub(crate) fn serialize<S: Serializer>(data: &bytes::Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(data) {
            Ok(text) => text.serialize(serializer),
            Err(_) => Binary { base64: base64::engine::general_purpose::STANDARD.encode(data) }.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Phase;

    #[test]
    fn messages_are_lines() {
        let session = crate::protocol::Session { id: "a".into(), name: "one".into(), ..Default::default() };
        let open = |data: &'static [u8]| ToProgram {
            sequence: 2,
            body: Some(Body::Open(OpenSession {
                session: Some(session.clone()),
                data: data.into(),
                timeout_ms: 10_000,
                configuration: None,
            })),
        };
        let text = String::from_utf8(line(&open(b"map=1"))).expect("text");
        assert!(text.starts_with("{\"sequence\":2,\"open\":{\"session\":{\"id\":\"a\",\"name\":\"one\""), "{text}");
        assert!(text.contains("\"data\":\"map=1\"") && text.ends_with("}\n"), "{text}");
        let text = String::from_utf8(line(&open(b"\xff\x00"))).expect("text");
        assert!(text.contains("\"data\":{\"base64\":\"/wA=\"}"), "{text}");
    }

    #[test]
    fn messages_of_programs_are_read_strictly() {
        let up: Up = serde_json::from_str(r#"{"sequence":3,"state":{"phase":"open"}}"#).expect("well-formed");
        assert_eq!((up.sequence, up.state.expect("a state").phase()), (3, Phase::Open));
        for bad in [r#"{"stat":{}}"#, r#"{"state":{"phase":"opened"}}"#, r#"{"pong":{"number":-1}}"#, "7", ""] {
            assert!(serde_json::from_str::<Up>(bad).is_err(), "{bad}");
        }
    }
}
