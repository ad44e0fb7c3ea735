//! Media types: what a client takes, and what it has sent.

use http::HeaderMap;
use serde_json::Value;

use super::decode::Duplicates;
use crate::Status;

/// The form of an answer about objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    /// The objects.
    #[default]
    Objects,
    /// A table of them.
    Table,
    /// Their metadata only.
    Metadata,
}

/// What a client takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Accept {
    /// Form of objects.
    pub(super) form: Form,
    /// Version of aggregated discovery, where it is asked for.
    pub(super) discovery: Option<&'static str>,
    /// YAML, rather than JSON.
    pub(super) yaml: bool,
    /// The protobuf form of the OpenAPI document.
    pub(super) openapi_protobuf: bool,
    /// Whether there is nothing in it that can be given.
    pub(super) nothing: bool,
}

impl Accept {
    /// Reads the header: the first media type that can be given counts.
    pub(super) fn of(headers: &HeaderMap) -> Accept {
        let mut ranges =
            headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if ranges.peek().is_none() {
            return Accept::default();
        }
        let ranges = ranges.flat_map(|value| value.split(','));
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let parameter = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let mut accept = Accept { yaml: matches!(media, "application/yaml" | "text/yaml"), ..Accept::default() };
            match media {
                "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
                | "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" => accept.openapi_protobuf = true,
                "application/json" | "application/*" | "*/*" | "application/yaml" | "text/yaml" => {}
                _ => continue,
            }
            match (parameter("as"), parameter("g"), parameter("v")) {
                (None, ..) => {}
                (Some("Table"), Some("meta.k8s.io"), Some("v1")) => accept.form = Form::Table,
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
                    accept.form = Form::Metadata;
                }
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                    accept.discovery = Some("v2")
                }
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                    accept.discovery = Some("v2beta1");
                }
                // A form that is not known here: perhaps the next one is.
                _ => continue,
            }
            return accept;
        }
        Accept { nothing: true, ..Accept::default() }
    }

    /// Refuses where nothing that is asked for can be given.
    pub(super) fn check(&self) -> Result<(), Status> {
        if !self.nothing {
            return Ok(());
        }
        let message = "only the following media types are accepted: application/json, application/yaml";
        Err(Status::new(406, "NotAcceptable", message))
    }
}

/// The media type without its parameters.
pub(super) fn media_type(header: &str) -> &str {
    header.split(';').next().unwrap_or_default().trim()
}

/// Reads a body of JSON or YAML; JSON where nothing is said. Fields that are there twice are noted.
///
/// # Errors
/// 415 for other media types, 400 for what can't be read.
pub(super) fn read(content_type: &str, body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    match media_type(content_type) {
        "" | "application/json" | "application/x-www-form-urlencoded" => read_json(body),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Ok((read_yaml(body)?, Vec::new())),
        other => {
            let shown: String = other.chars().take(100).collect();
            let message = format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, \
                 application/yaml (it was \"{}\")",
                shown.escape_debug()
            );
            Err(Status::new(415, "UnsupportedMediaType", message))
        }
    }
}

/// Reads JSON, noting fields that are there twice.
pub(super) fn read_json(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde::de::DeserializeSeed::deserialize(Duplicates::new(&mut duplicates), &mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Status::bad_request(format!("the body of the request is not JSON: {error}")))?;
    Ok((value, duplicates))
}

/// Reads YAML, which JSON is too.
pub(super) fn read_yaml(body: &[u8]) -> Result<Value, Status> {
    let text = std::str::from_utf8(body).map_err(|_| Status::bad_request("the body of the request is not UTF-8"))?;
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    serde_saphyr::from_str(text)
        .map_err(|error| Status::bad_request(format!("the body of the request is not YAML: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn accept(header: &'static str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(header));
        Accept::of(&headers)
    }

    #[test]
    fn the_first_form_that_can_be_given_counts() {
        let table = accept(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        );
        assert_eq!(table.form, Form::Table);
        assert_eq!(accept("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json").form, Form::Objects);
        assert_eq!(
            accept("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json").discovery,
            Some("v2")
        );
        assert!(accept("application/vnd.kubernetes.protobuf").nothing);
        assert_eq!(accept("application/vnd.kubernetes.protobuf,application/json"), Accept::default());
        assert!(accept("application/yaml").yaml);
        assert_eq!(Accept::of(&HeaderMap::new()), Accept::default());
    }

    #[test]
    fn yaml_is_read_as_json_is() {
        let yaml =
            b"spec:\n  n: 1\n  t: true\n  s: '1'\n  l: [a, {b: c}]\n  z: null\n  f: 1.5\n  text: |\n    x\n    y\n";
        let expected = json!({"spec": {"n": 1, "t": true, "s": "1", "l": ["a", {"b": "c"}], "z": null, "f": 1.5, "text": "x\ny\n"}});
        assert_eq!(read("application/yaml", yaml).unwrap().0, expected);
        assert_eq!(read("application/json; charset=utf-8", expected.to_string().as_bytes()).unwrap().0, expected);
        for (media, body) in [("application/json", "{"), ("application/yaml", "a: [b"), ("application/json", "{} x")] {
            assert_eq!(read(media, body.as_bytes()).unwrap_err().code, 400, "{body}");
        }
        assert_eq!(read("text/html", b"").unwrap_err().code, 415);
        let bomb = format!(
            "a: &a [x,x,x,x,x,x,x,x]\nb: &b [{0}]\nc: &c [{1}]\nd: &d [{2}]\ne: &e [{3}]\nf: &f [{4}]\ng: &g [{5}]\nh: [{6}]\n",
            ["*a"; 9].join(","),
            ["*b"; 9].join(","),
            ["*c"; 9].join(","),
            ["*d"; 9].join(","),
            ["*e"; 9].join(","),
            ["*f"; 9].join(","),
            ["*g"; 9].join(",")
        );
        assert_eq!(read("application/yaml", bomb.as_bytes()).unwrap_err().code, 400);
    }
}
