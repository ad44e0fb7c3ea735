//! Finding what is wrong with objects: a list of faults, each with the path of its field, in Kubernetes' words.

use std::collections::BTreeSet;
use std::fmt::Display;

use lyra_types::resources::ObjectMeta;

use crate::Cause;

/// Faults that were found.
#[derive(Debug, Default)]
pub struct Problems(Vec<Cause>);

impl Problems {
    /// A value that must be given is not.
    pub fn required(&mut self, field: impl Into<String>, why: &str) {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        self.0.push(Cause { reason: "FieldValueRequired", message, field: field.into() });
    }

    /// A value that is not valid.
    pub fn invalid(&mut self, field: impl Into<String>, value: impl Display, why: &str) {
        let shown: String = value.to_string().chars().take(80).collect();
        let message = format!("Invalid value: \"{}\": {why}", shown.escape_debug());
        self.0.push(Cause { reason: "FieldValueInvalid", message, field: field.into() });
    }

    /// A value that is there twice.
    pub fn duplicate(&mut self, field: impl Into<String>, value: impl Display) {
        let shown: String = value.to_string().chars().take(80).collect();
        let message = format!("Duplicate value: \"{}\"", shown.escape_debug());
        self.0.push(Cause { reason: "FieldValueDuplicate", message, field: field.into() });
    }

    /// Something that may not be.
    pub fn forbidden(&mut self, field: impl Into<String>, why: &str) {
        let message = format!("Forbidden: {why}");
        self.0.push(Cause { reason: "FieldValueForbidden", message, field: field.into() });
    }

    /// Something of which there is too much.
    pub fn too_many(&mut self, field: impl Into<String>, count: usize, most: usize) {
        let message = format!("Too many: {count}: must have at most {most} items");
        self.0.push(Cause { reason: "FieldValueTooMany", message, field: field.into() });
    }

    /// Something that has too many bytes, and what to do.
    pub fn too_long(&mut self, field: impl Into<String>, bytes: usize, most: usize, hint: &str) {
        let message = format!("Too long: {bytes} bytes: may not be more than {most} bytes{hint}");
        self.0.push(Cause { reason: "FieldValueTooLong", message, field: field.into() });
    }

    /// All of them.
    pub fn into_causes(self) -> Vec<Cause> {
        self.0
    }
}

/// Whether the text is a DNS label (RFC 1123): what namespaces and names are.
pub(crate) fn is_label(text: &str) -> bool {
    lyra_types::TenantName::new(text).is_ok()
}

/// Longest part of a name that is kept in front of what the server adds to `generateName`.
pub(crate) const GENERATED_PREFIX: usize = 58;

/// Bytes of all annotations of an object together, as Kubernetes has it (256 KiB).
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Where `kubectl apply` keeps what it was given, unless it is told to apply at the server.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Finalizers of one object.
const MAX_FINALIZERS: usize = 32;

/// Finds what is wrong with an object's metadata.
pub(crate) fn check_metadata(meta: &ObjectMeta, problems: &mut Problems) {
    if meta.name.is_empty() {
        problems.required("metadata.name", "name or generateName is required");
    } else if !is_label(&meta.name) {
        problems.invalid(
            "metadata.name",
            &meta.name,
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', must start and end \
             with an alphanumeric character, and must be no more than 63 characters",
        );
    }
    for (key, value) in &meta.labels {
        if !is_qualified_name(key) {
            problems.invalid("metadata.labels", key, NOT_QUALIFIED);
        }
        if !is_label_value(value) {
            problems.invalid(
                format!("metadata.labels.{key}"),
                value,
                "a valid label must be an empty string or consist of at most 63 alphanumeric characters, '-', '_' or \
                 '.', and must start and end with an alphanumeric character",
            );
        }
    }
    for key in meta.annotations.keys() {
        if !is_qualified_name(&key.to_ascii_lowercase()) {
            problems.invalid("metadata.annotations", key, NOT_QUALIFIED);
        }
    }
    let size: usize = meta.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_ANNOTATIONS {
        let hint = match meta.annotations.contains_key(LAST_APPLIED) {
            true => format!("; {LAST_APPLIED} is a copy of the object: use `kubectl apply --server-side`"),
            false => String::new(),
        };
        problems.too_long("metadata.annotations", size, MAX_ANNOTATIONS, &hint);
    }
    if meta.finalizers.len() > MAX_FINALIZERS {
        problems.too_many("metadata.finalizers", meta.finalizers.len(), MAX_FINALIZERS);
    }
    for (index, finalizer) in meta.finalizers.iter().enumerate() {
        if !is_qualified_name(finalizer) {
            problems.invalid(format!("metadata.finalizers[{index}]"), finalizer, NOT_QUALIFIED);
        }
    }
}

const NOT_QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                             with an alphanumeric character, with an optional DNS subdomain prefix and '/'";

/// Whether the text is a name as Kubernetes has it for labels and annotations: `[subdomain/]name`.
pub(crate) fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let prefix_is_good =
        prefix.is_none_or(|prefix| !prefix.is_empty() && prefix.len() <= 253 && prefix.split('.').all(is_label));
    prefix_is_good && !name.is_empty() && is_label_value(name)
}

/// Whether the text may be the value of a label.
pub(crate) fn is_label_value(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && ends(text.as_bytes().first())
        && ends(text.as_bytes().last())
}

/// Finds items of a list that share a key.
pub(crate) fn check_unique<T: Ord + Display>(
    field: &str,
    items: impl IntoIterator<Item = (usize, T)>,
    problems: &mut Problems,
) {
    let mut seen = BTreeSet::new();
    for (index, item) in items {
        if seen.contains(&item) {
            problems.duplicate(format!("{field}[{index}]"), item);
        } else {
            seen.insert(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_kubernetes_checks_them() {
        for good in ["a", "app", "lyra.dev/close", "a.b.c/D_e.f", "kubectl.kubernetes.io/last-applied-configuration"] {
            assert!(is_qualified_name(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "a.", "A_/b", "é", &"x".repeat(64)] {
            assert!(!is_qualified_name(bad), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("v1.2_3-X") && !is_label_value("a b") && !is_label_value("-"));
    }
}
