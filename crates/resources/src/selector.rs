//! Label selectors and field selectors, as `kubectl -l` and `--field-selector` send them.

use std::collections::BTreeMap;

use crate::kind::Kind;
use crate::validation::{is_label_value, is_qualified_name};

/// Requirements of one selector; requests that have more are refused.
const MAX_REQUIREMENTS: usize = 256;

/// What an object must be like to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    /// Holds also where there is no such label.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldRequirement {
    pub(crate) path: String,
    pub(crate) value: String,
    pub(crate) equal: bool,
}

impl Selector {
    /// Reads both selectors for a kind.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse<K: Kind>(labels: &str, fields: &str) -> Result<Selector, String> {
        let selector = Selector { labels: parse_labels(labels)?, fields: parse_fields(fields)? };
        for requirement in &selector.fields {
            let path = requirement.path.as_str();
            if !matches!(path, "metadata.name" | "metadata.namespace") && !K::SELECTABLE.contains(&path) {
                return Err(format!("field label not supported: {path}"));
            }
        }
        Ok(selector)
    }

    /// Whether an object is meant.
    pub(crate) fn matches<K: Kind>(&self, object: &K) -> bool {
        let meta = object.meta();
        self.fields.iter().all(|field| {
            let equal = match field.path.as_str() {
                "metadata.name" => meta.name == field.value,
                "metadata.namespace" => meta.namespace == field.value,
                path => object.selectable(path).is_some_and(|value| *value == *field.value),
            };
            equal == field.equal
        }) && matches_labels(&self.labels, &meta.labels)
    }
}

fn matches_labels(requirements: &[Requirement], labels: &BTreeMap<String, String>) -> bool {
    requirements.iter().all(|requirement| {
        let value = labels.get(&requirement.key);
        match &requirement.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
        }
    })
}

/// Splits at commas that are not inside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0u32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parts = split(text);
    if parts.len() > MAX_REQUIREMENTS {
        return Err("the label selector has too many requirements".to_owned());
    }
    parts.into_iter().map(|part| parse_label(part.trim())).collect()
}

fn parse_label(part: &str) -> Result<Requirement, String> {
    let wrong = || format!("unable to parse requirement: \"{}\" is not a label requirement", part.escape_debug());
    let (key, test) = if let Some(key) = part.strip_prefix('!') {
        (key.trim(), Test::Absent)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key.trim(), Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key.trim(), Test::In(vec![value.trim().to_owned()]))
    } else if let Some((head, rest)) = part.split_once('(') {
        let list = rest.trim_end().strip_suffix(')').ok_or_else(wrong)?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => (key, Test::In(values)),
            [key, "notin"] => (key, Test::NotIn(values)),
            _ => return Err(wrong()),
        }
    } else {
        (part, Test::Exists)
    };
    let values_are_good = match &test {
        Test::In(values) | Test::NotIn(values) => values.iter().all(|value| is_label_value(value)),
        Test::Exists | Test::Absent => true,
    };
    if !is_qualified_name(key) || !values_are_good {
        return Err(wrong());
    }
    Ok(Requirement { key: key.to_owned(), test })
}

/// Reads a field selector.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // Commas, equals signs and backslashes in values are escaped by backslashes.
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        match character {
            _ if escaped => {
                escaped = false;
                parts.last_mut().expect("there is one").extend(['\\', character]);
            }
            '\\' => escaped = true,
            ',' => parts.push(String::new()),
            character => parts.last_mut().expect("there is one").push(character),
        }
    }
    if escaped || parts.len() > MAX_REQUIREMENTS {
        return Err(format!("invalid field selector \"{}\"", text.escape_debug()));
    }
    parts
        .iter()
        .map(|part| {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(format!("invalid selector: \"{}\"; can't understand it", part.escape_debug()));
            };
            let value = value.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\");
            Ok(FieldRequirement { path: path.trim().to_owned(), value, equal })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lyra_types::resources::{ApplicationSession, SessionStatus};

    use super::*;

    fn session() -> ApplicationSession {
        let mut session = ApplicationSession::default();
        session.metadata.name = "s1".into();
        session.metadata.labels = [("app", "echo"), ("tier", "gold")].map(|(k, v)| (k.into(), v.into())).into();
        session.spec.application_name = "echo".into();
        session.status.session_status = SessionStatus::Available;
        session
    }

    fn matches(labels: &str, fields: &str) -> bool {
        Selector::parse::<ApplicationSession>(labels, fields).expect(labels).matches(&session())
    }

    #[test]
    fn label_selectors_are_read_as_kubectl_sends_them() {
        for good in [
            "",
            "app=echo",
            "app==echo,tier=gold",
            "app in (x, echo)",
            "tier notin (tin),app",
            "!none",
            "none!=x",
            " app = echo ",
        ] {
            assert!(matches(good, ""), "{good}");
        }
        for other in ["app=x", "app!=echo", "app notin (echo)", "!app", "none", "app in (a,b)", "app,none"] {
            assert!(!matches(other, ""), "{other}");
        }
        for bad in ["=x", "a=b c", "app in echo", "app in (echo", "a b", "(x)", ",", "é"] {
            assert!(Selector::parse::<ApplicationSession>(bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_know_name_and_status() {
        for good in
            ["metadata.name=s1", "status.sessionStatus==Available,spec.applicationName=echo", "metadata.name!=x"]
        {
            assert!(matches("", good), "{good}");
        }
        assert!(!matches("", "status.sessionStatus=Closed"));
        for bad in ["spec.sessionData=x", "metadata.name", "x\\"] {
            assert!(Selector::parse::<ApplicationSession>("", bad).is_err(), "{bad}");
        }
    }
}
