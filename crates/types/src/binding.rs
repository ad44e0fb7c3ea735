//! Functions whose calls are served by sessions of an application.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest name of a header or a query parameter that holds the key, in bytes.
const MAX_KEY_NAME: usize = 100;
/// Highest place in a path that may hold the key.
const MAX_PATH_PLACE: usize = 15;

/// By what calls of a function find their session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct SessionBinding {
    /// The application whose sessions serve the function's calls.
    pub application: String,
    /// Where a call names its session: `header:X-Player`, `query:player`, or `path:0`. The same value reaches the same session.
    #[schema(value_type = String, example = "header:X-Player")]
    pub key: KeySource,
}

/// Where a call holds the key of its session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeySource {
    /// In this header, whose name is in lower case here.
    Header(String),
    /// In this parameter of the query.
    Query(String),
    /// In this part of the path, counted from 0.
    Path(usize),
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<KeySource, String> {
        let form = || format!("\"{}\" is not header:NAME, query:NAME or path:NUMBER", shown(text).escape_debug());
        let (place, name) = text.split_once(':').ok_or_else(form)?;
        let is_short = !name.is_empty() && name.len() <= MAX_KEY_NAME;
        match place {
            "header" => match http::HeaderName::try_from(name) {
                Ok(name) if is_short => Ok(KeySource::Header(name.as_str().to_owned())),
                _ => Err(format!("a header's name has 1 to {MAX_KEY_NAME} letters, digits and dashes")),
            },
            "query" if is_short => Ok(KeySource::Query(name.to_owned())),
            "query" => Err(format!("the name of a query parameter has 1 to {MAX_KEY_NAME} bytes")),
            "path" => match name.parse() {
                Ok(place) if place <= MAX_PATH_PLACE => Ok(KeySource::Path(place)),
                _ => Err(format!("the place in a path is a number from 0 to {MAX_PATH_PLACE}")),
            },
            _ => Err(form()),
        }
    }
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(at, _)| &text[..at])
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Header(name) => write!(f, "header:{name}"),
            KeySource::Query(name) => write!(f, "query:{name}"),
            KeySource::Path(place) => write!(f, "path:{place}"),
        }
    }
}

impl TryFrom<String> for KeySource {
    type Error = String;
    fn try_from(text: String) -> Result<KeySource, String> {
        text.parse()
    }
}

impl From<KeySource> for String {
    fn from(source: KeySource) -> String {
        source.to_string()
    }
}

/// As a deploy asks for it; checked like every other field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionsRequest {
    /// The application whose sessions serve the function's calls.
    pub application: String,
    /// Where a call names its session: `header:NAME`, `query:NAME`, or `path:NUMBER` (parts of the path count from 0).
    pub key: String,
}

impl SessionsRequest {
    /// What is wrong with it, by field, or what it means.
    ///
    /// # Errors
    /// Each fault as a field and a reason.
    pub fn check(&self) -> Result<SessionBinding, Vec<(&'static str, String)>> {
        let mut faults = Vec::new();
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if self.application.is_empty() || self.application.len() > 253 || !self.application.bytes().all(is_plain) {
            let reason = "the name of an application has 1 to 253 lower-case letters, digits, dashes and dots";
            faults.push(("sessions.application", reason.to_owned()));
        }
        match self.key.parse() {
            Ok(key) if faults.is_empty() => Ok(SessionBinding { application: self.application.clone(), key }),
            Ok(_) => Err(faults),
            Err(reason) => {
                faults.push(("sessions.key", reason));
                Err(faults)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_a_header_a_query_or_a_path() {
        for (text, source, again) in [
            ("header:X-Player", KeySource::Header("x-player".into()), "header:x-player"),
            ("query:Player id", KeySource::Query("Player id".into()), "query:Player id"),
            ("path:15", KeySource::Path(15), "path:15"),
        ] {
            assert_eq!(text.parse(), Ok(source.clone()));
            assert_eq!(source.to_string(), again);
            let json = serde_json::to_string(&source).unwrap();
            assert_eq!(serde_json::from_str::<KeySource>(&json).unwrap(), source);
        }
        for bad in [
            "",
            "header",
            "header:",
            "header:a b",
            "query:",
            "path:",
            "path:x",
            "path:16",
            "path:-1",
            "body:x",
            "Header:x",
        ] {
            assert!(bad.parse::<KeySource>().is_err(), "{bad}");
        }
        assert!("é".repeat(400).parse::<KeySource>().is_err());
    }

    #[test]
    fn every_fault_of_a_request_is_told() {
        let check = |application: &str, key: &str| {
            SessionsRequest { application: application.into(), key: key.into() }
                .check()
                .map_err(|faults| faults.into_iter().map(|(field, _)| field).collect::<Vec<_>>())
        };
        assert_eq!(check("Chat", "x").unwrap_err(), ["sessions.application", "sessions.key"]);
        assert_eq!(check("", "path:0").unwrap_err(), ["sessions.application"]);
        assert_eq!(check("chat.v1", "path:0").unwrap().key, KeySource::Path(0));
    }
}
