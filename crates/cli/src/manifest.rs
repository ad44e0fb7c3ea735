//! Manifests: what a user wrote of applications and sessions, as YAML with one document or more, or as JSON.
//!
//! What must hold: whatever is wrong with any document is found before the first one is sent. What the fields mean is the
//! server's business; here only kind, name and tenant are looked at.

use std::io::Read;
use std::path::Path;

use lyra_client::Object;
use lyra_types::error::FieldError;
use lyra_types::resources::{API_VERSION, Application, ApplicationSession};
use lyra_types::{Code, Error, TenantName};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Most bytes of one file: what one request may have.
const MOST: u64 = 3 << 20;

/// Which kind of object a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An application.
    Application,
    /// A session.
    Session,
}

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What it is about.
    pub kind: Kind,
    /// The object's name.
    pub name: String,
    /// All of it.
    pub content: Value,
}

/// Reads a file, or stdin for `-`.
///
/// # Errors
/// When it can't be read, is no YAML, or holds something else than applications and sessions of the tenant.
pub fn read(path: &Path, tenant: &TenantName) -> Result<Vec<Manifest>> {
    let (bytes, shown) = if path == Path::new("-") {
        (read_some(std::io::stdin().lock()), "<stdin>".to_owned())
    } else {
        (std::fs::File::open(path).and_then(read_some), path.display().to_string())
    };
    let bytes = bytes.map_err(|error| Failure::usage(format!("{shown} can't be read: {error}")))?;
    if bytes.len() as u64 > MOST {
        let detail = format!("{shown} is larger than {} MiB, the most for a manifest", MOST >> 20);
        return Err(Failure::new(Code::TooLarge, detail));
    }
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{shown} is not UTF-8")))?;
    parse(&text, &shown, tenant)
}

fn read_some(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads documents; `shown` is what they are called in errors.
fn parse(text: &str, shown: &str, tenant: &TenantName) -> Result<Vec<Manifest>> {
    // As the server reads it, which follows YAML 1.2: `y` and `on` are words.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Failure::usage(format!("{shown} is not YAML: {error}")))?;
    let mut objects = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            // What `kubectl get -o yaml` prints of several objects.
            Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
                match list.remove("items") {
                    Some(Value::Array(items)) => objects.extend(items),
                    _ => return Err(fault(shown, None, "items", "must be a list")),
                }
            }
            other => objects.push(other),
        }
    }
    if objects.is_empty() {
        return Err(Failure::usage(format!("{shown} holds no object")));
    }
    let many = objects.len() > 1;
    let of = |(at, content): (usize, Value)| manifest(content, shown, many.then_some(at + 1), tenant);
    objects.into_iter().enumerate().map(of).collect()
}

fn manifest(content: Value, shown: &str, number: Option<usize>, tenant: &TenantName) -> Result<Manifest> {
    let text = |path: &str| content.pointer(path).and_then(Value::as_str);
    let wrong = |field: &str, reason: &str| fault(shown, number, field, reason);
    if !content.is_object() {
        return Err(wrong("", "must be an object with apiVersion, kind, metadata and spec"));
    }
    if text("/apiVersion") != Some(API_VERSION) {
        return Err(wrong("apiVersion", &format!("must be {API_VERSION}")));
    }
    let kind = match text("/kind") {
        Some(Application::KIND) => Kind::Application,
        Some(ApplicationSession::KIND) => Kind::Session,
        _ => return Err(wrong("kind", "must be Application or ApplicationSession")),
    };
    let Some(name) = text("/metadata/name").filter(|name| !name.is_empty()).map(str::to_owned) else {
        return Err(wrong("metadata.name", "must be given"));
    };
    match text("/metadata/namespace") {
        Some(namespace) if namespace != tenant.as_str() => {
            let reason = format!("is \"{namespace}\", and the tenant is \"{tenant}\"");
            return Err(wrong("metadata.namespace", &reason).hint(format!("--tenant {namespace} names another tenant")));
        }
        _ => {}
    }
    Ok(Manifest { kind, name, content })
}

/// `number`: which of several documents is at fault.
fn fault(shown: &str, number: Option<usize>, field: &str, reason: &str) -> Failure {
    let place = number.map_or_else(|| shown.to_owned(), |number| format!("{shown}, object {number}"));
    if field.is_empty() {
        return Failure::new(Code::InvalidField, format!("{place}: {reason}"));
    }
    let error = Error::new(Code::InvalidField, format!("{place}: {field}: {reason}"));
    Failure::from(error.with_field(FieldError::new(field, reason)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "apiVersion: lyra.dev/v1\nkind: Application\nmetadata: {name: chat}\nspec: {}\n";
    const SESSION: &str = "apiVersion: lyra.dev/v1\nkind: ApplicationSession\nmetadata: {name: room, namespace: t}\n";

    fn read(text: &str) -> Result<Vec<Manifest>, String> {
        let tenant = TenantName::new("t").expect("a tenant");
        parse(text, "f.yaml", &tenant).map_err(|failure| failure.error().detail.clone())
    }

    #[test]
    fn documents_lists_and_json_are_read() {
        let kinds = |text: &str| -> Vec<(Kind, String)> {
            read(text).expect(text).into_iter().map(|manifest| (manifest.kind, manifest.name)).collect()
        };
        let both = [(Kind::Application, "chat".to_owned()), (Kind::Session, "room".to_owned())];
        assert_eq!(kinds(&format!("# a\n---\n{APP}---\n{SESSION}---\n")), both);
        let json = r#"{"apiVersion":"v1","kind":"List","items":[
            {"apiVersion":"lyra.dev/v1","kind":"Application","metadata":{"name":"chat"}},
            {"apiVersion":"lyra.dev/v1","kind":"ApplicationSession","metadata":{"name":"room"}}]}"#;
        assert_eq!(kinds(json), both);
        assert_eq!(read(APP).expect("reads")[0].content["spec"], serde_json::json!({}));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("", "f.yaml holds no object"),
            ("a: [", "f.yaml is not YAML"),
            ("3", "f.yaml: must be an object"),
            ("apiVersion: v1\nkind: Pod\n", "f.yaml: apiVersion: must be lyra.dev/v1"),
            ("apiVersion: lyra.dev/v1\nkind: Pod\n", "f.yaml: kind: must be Application or ApplicationSession"),
            (&format!("{APP}---\n{}", APP.replace("name: chat", "")), "f.yaml, object 2: metadata.name: must be given"),
            (&SESSION.replace("namespace: t", "namespace: u"), "metadata.namespace: is \"u\", and the tenant is \"t\""),
            ("kind: List\n", "f.yaml: items: must be a list"),
        ] {
            let said = read(text).expect_err(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
