//! Headers of a URL's calls, as a mapping says them.
//!
//! What must hold: what is accepted can be sent; no header that Lyra or HTTP itself needs is replaced; what lets somebody in stands in
//! no mapping, only the name of the secret that does.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use lyra_types::SecretName;
use serde_json::Value;

use super::HeaderText;
use super::parse::{Faults, kind_of};
use crate::enact::http::OWN;

/// Most headers of a resource.
pub(super) const MAX_HEADERS: usize = 32;
/// Longest text of one, in bytes.
pub(super) const MAX_TEXT: usize = 4_096;
/// What HTTP itself says.
const OF_HTTP: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What lets somebody in.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// The headers by their names in lower case.
pub(super) fn read(path: &str, value: &Value, uri: &str, faults: &mut Faults) -> BTreeMap<String, HeaderText> {
    let mut headers = BTreeMap::new();
    let Some(object) = value.as_object() else {
        faults.add(path, format!("must be an object of headers by name, not {}", kind_of(value)));
        return headers;
    };
    if object.len() > MAX_HEADERS {
        faults.add(path, format!("has {} headers; at most {MAX_HEADERS} may be there", object.len()));
        return headers;
    }
    for (name, value) in object {
        let shown: String = name.chars().take(80).collect();
        let at = format!("{path}.{shown}");
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            faults.add(at, "can't be the name of a header");
            continue;
        };
        let name = name.as_str();
        if OWN.contains(&name) || OF_HTTP.contains(&name) {
            faults.add(at, "is a header that Lyra sets itself");
            continue;
        }
        let Some(text) = text(&at, name, value, faults) else { continue };
        if headers.insert(name.to_owned(), text).is_some() {
            faults.add(at, "is there twice: upper and lower case are the same");
        }
    }
    let tells = headers.values().any(|text| matches!(text, HeaderText::Secret { .. }));
    if tells && uri.starts_with("http://") {
        faults.warn(format!("{path}: a secret goes over the network in the clear, since Uri begins with http://"));
    }
    headers
}

fn text(at: &str, name: &str, value: &Value, faults: &mut Faults) -> Option<HeaderText> {
    let fits = |text: &str| text.len() <= MAX_TEXT && HeaderValue::from_str(text).is_ok();
    let wrong = || format!("must be at most {MAX_TEXT} bytes of printable ASCII");
    match value {
        Value::String(_) if SECRET.contains(&name) => {
            let reason =
                "must not be shown with the workflow: name a secret, {\"secret\": NAME, \"prefix\"?: \"Bearer \"}";
            faults.add(at, reason);
            None
        }
        Value::String(text) if fits(text) => Some(HeaderText::Plain(text.clone())),
        Value::String(_) => {
            faults.add(at, wrong());
            None
        }
        Value::Object(members) => {
            for unknown in members.keys().filter(|key| !matches!(key.as_str(), "secret" | "prefix")) {
                let shown: String = unknown.chars().take(80).collect();
                faults.add(format!("{at}.{shown}"), "is unknown; secret, prefix may stand here");
            }
            let prefix = match members.get("prefix") {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) if fits(text) => text.clone(),
                Some(_) => {
                    faults.add(format!("{at}.prefix"), wrong());
                    return None;
                }
            };
            let Some(Value::String(secret)) = members.get("secret") else {
                faults.add(format!("{at}.secret"), "must be the name of a secret");
                return None;
            };
            match SecretName::new(secret) {
                Ok(secret) => Some(HeaderText::Secret { secret, prefix }),
                Err(error) => {
                    faults.add(format!("{at}.secret"), error.detail);
                    None
                }
            }
        }
        other => {
            faults.add(at, format!("must be a string or {{\"secret\": NAME}}, not {}", kind_of(other)));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Mapping;
    use super::*;

    fn mapping(uri: &str, headers: &Value) -> Value {
        let properties = json!({"Uri": uri, "headers": headers});
        json!([{"functionType": "f", "resources": [{"type": "Serverless", "properties": properties}]}])
    }

    #[test]
    fn headers_are_read_and_written_as_they_were() {
        let headers = json!({
            "X-Region": "eu",
            "Authorization": {"secret": "api-token", "prefix": "Bearer "},
            "X-Api-Key": {"secret": "key"},
        });
        let (read, odd) = Mapping::parse_odd(&mapping("https://x.example/", &headers)).expect("a good mapping");
        assert!(odd.is_empty(), "{odd:?}");
        let written = serde_json::to_value(&read).expect("a mapping is JSON");
        assert_eq!(Mapping::parse(&written).as_ref(), Ok(&read));
        assert_eq!(serde_json::from_value::<Mapping>(written).expect("serde reads it too"), read);
        let (_, odd) = Mapping::parse_odd(&mapping("http://x.example/", &headers)).expect("a good mapping");
        assert!(odd.iter().any(|odd| odd.contains("in the clear")), "{odd:?}");
    }

    #[test]
    fn what_can_not_be_sent_or_would_be_seen_is_refused_by_field() {
        for (headers, field, reason) in [
            (json!([]), "", "an object"),
            (json!({"a b": "x"}), ".a b", "name of a header"),
            (json!({"Host": "x"}), ".Host", "Lyra sets itself"),
            (json!({"traceparent": "x"}), ".traceparent", "Lyra sets itself"),
            (json!({"X-A": "1", "x-a": "2"}), ".x-a", "twice"),
            (json!({"X-A": 1}), ".X-A", "a number"),
            (json!({"X-A": "a\nb"}), ".X-A", "printable"),
            (json!({"authorization": "Bearer abc"}), ".authorization", "name a secret"),
            (json!({"X-A": {"secret": "No Name"}}), ".X-A.secret", ""),
            (json!({"X-A": {"prefix": "x"}}), ".X-A.secret", "name of a secret"),
            (json!({"X-A": {"secret": "s", "value": "x"}}), ".X-A.value", "unknown"),
        ] {
            let error = Mapping::parse(&mapping("https://x.example/", &headers)).expect_err(&headers.to_string());
            let fault = &error.errors[0];
            assert_eq!(fault.field, format!("mappings[0].resources[0].properties.headers{field}"), "{headers}");
            assert!(fault.reason.contains(reason), "{headers}: {}", fault.reason);
        }
    }
}
