//! The fields of one object of a document: each is taken by name, all others are refused.

use std::borrow::Cow;

use serde_json::Value;

use super::tree::{Content, Node};
use super::vocabulary::Shape;
use crate::diagnostic::{DiagnosticCode as Code, Findings, Located, Position};

/// The fields of one object.
pub(crate) struct Fields<'n, 'a> {
    pub(crate) at: Position,
    shape: &'static Shape,
    found: Vec<Option<&'n Node<'a>>>,
}

impl<'n, 'a> Fields<'n, 'a> {
    /// Opens an object; fields that are not of its shape, and those that stand twice, are errors.
    pub(crate) fn open(node: &'n Node<'a>, shape: &'static Shape, findings: &mut Findings) -> Option<Fields<'n, 'a>> {
        let Shape { what, fields: known, .. } = shape;
        let Content::Map(entries) = &node.content else {
            let message = format!("{what} must be an object with the fields {}, not {}", list(known), node.shape());
            findings.fatal(node.at, Code::WrongShape, message);
            return None;
        };
        let mut found = vec![None; known.len()];
        for (name, value) in entries {
            match known.iter().position(|known| *known == name.value) {
                None => {
                    let hint = if findings.is_full() { String::new() } else { unknown(&name.value, known) };
                    findings.error(
                        name.at,
                        Code::UnknownField,
                        format!("{what} has no field {}{hint}", quote(&name.value)),
                    );
                }
                Some(index) if found[index].is_some() => {
                    findings.error(
                        name.at,
                        Code::DuplicateField,
                        format!("the field {} stands twice", quote(&name.value)),
                    );
                }
                Some(index) => found[index] = Some(value),
            }
        }
        Some(Fields { at: node.at, shape, found })
    }

    /// A field, where it stands there and is not `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node<'a>> {
        let index = self.shape.fields.iter().position(|known| *known == name)?;
        self.found[index].filter(|node| !node.is_null())
    }

    /// Whether a field stands there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A field that must be there.
    pub(crate) fn need(&self, name: &str, findings: &mut Findings) -> Option<&'n Node<'a>> {
        let node = self.get(name);
        if node.is_none() {
            findings.fatal(self.at, Code::MissingField, format!("{} needs the field `{name}`", self.shape.what));
        }
        node
    }

    /// A text that must be there.
    pub(crate) fn text(&self, name: &str, findings: &mut Findings) -> Option<Located<String>> {
        let node = self.need(name, findings)?;
        text(node, name, findings)
    }

    /// A name that must be there: not empty, without `/` and `,`.
    pub(crate) fn name(&self, findings: &mut Findings) -> Option<Located<String>> {
        let name = self.text("name", findings)?;
        if name.value.trim().is_empty() || name.value.contains(['/', ',']) {
            let message = format!("the name {} must not be empty, nor hold `/` or `,`", quote(&name.value));
            findings.error(name.at, Code::InvalidName, message);
        }
        Some(name)
    }

    /// The items of a list; none where the field is not there.
    pub(crate) fn list(&self, name: &str, findings: &mut Findings) -> &'n [Node<'a>] {
        match self.get(name).map(|node| (node, &node.content)) {
            None => &[],
            Some((_, Content::List(items))) => items,
            Some((node, _)) => {
                findings.fatal(node.at, Code::WrongShape, format!("`{name}` must be a list, not {}", node.shape()));
                &[]
            }
        }
    }

    /// A truth value; also as a text, as AFCL has it. False where the field is not there.
    pub(crate) fn truth(&self, name: &str, findings: &mut Findings) -> bool {
        let Some(node) = self.get(name) else { return false };
        match &node.content {
            Content::Scalar { text, .. } if text == "true" => true,
            Content::Scalar { text, .. } if text == "false" => false,
            _ => {
                findings.error(node.at, Code::WrongShape, format!("`{name}` must be true or false"));
                false
            }
        }
    }
}

/// A text.
pub(crate) fn text(node: &Node<'_>, name: &str, findings: &mut Findings) -> Option<Located<String>> {
    if let Content::Scalar { text, .. } = &node.content {
        return Some(Located { at: node.at, value: text.to_string() });
    }
    findings.fatal(node.at, Code::WrongShape, format!("`{name}` must be a text, not {}", node.shape()));
    None
}

/// Any value.
pub(crate) fn json(node: &Node<'_>, findings: &mut Findings) -> Option<Located<Value>> {
    let value = node.to_json();
    if value.is_none() {
        findings.fatal(node.at, Code::DuplicateField, "a field of this value stands twice");
    }
    Some(Located { at: node.at, value: value? })
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        text.push_str(match index {
            0 => "",
            _ if index + 1 == names.len() => " and ",
            _ => ", ",
        });
        text.push_str(&quote(name.as_ref()));
    }
    text
}

/// The name between back quotes, cut where it is long.
pub(crate) fn quote(name: &str) -> Cow<'static, str> {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        None => format!("`{name}`").into(),
        Some((end, _)) => format!("`{}…`", &name[..end]).into(),
    }
}

/// What to say behind an unknown name: the known one that is near, or all.
pub(crate) fn unknown<T: AsRef<str>>(name: &str, known: &[T]) -> String {
    const LISTED: usize = 16;
    match nearest(name, known.iter().map(AsRef::as_ref)) {
        Some(near) => format!("; did you mean {}?", quote(near)),
        None if known.is_empty() => String::new(),
        None if known.len() > LISTED => {
            format!("; it has {} and {} more", list(&known[..LISTED]), known.len() - LISTED)
        }
        None => format!("; it has {}", list(known)),
    }
}

/// The name that was probably meant.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    const LONGEST: usize = 80;
    if name.len() > LONGEST {
        return None;
    }
    let length = name.chars().count();
    let most = if length < 2 { 0 } else { (length / 3).max(1) };
    known
        .filter(|known| known.len() <= LONGEST)
        .map(|known| (strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
