//! Sets of fields: which parts of an object a manager has set, as server-side apply keeps them (`fieldsV1`).
//!
//! A field is a scalar, an empty map, or a list without keys; items of lists with keys are fields too, beside those in them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

/// How the lists of a kind are put together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape(pub(crate) &'static [(&'static str, &'static [&'static str])]);

/// What a list is.
pub(crate) enum List {
    /// One value, replaced as a whole.
    Atomic,
    /// Values that are there or not.
    Set,
    /// Items with a key of these fields.
    Keyed(&'static [&'static str]),
}

impl Shape {
    /// What the list at a path (fields joined by dots, no indices) is.
    pub(crate) fn list(self, path: &str) -> List {
        if path == "metadata.finalizers" {
            return List::Set;
        }
        match self.0.iter().find(|(known, _)| *known == path) {
            Some((_, keys)) => List::Keyed(keys),
            None => List::Atomic,
        }
    }
}

/// The path of a field of what is at `path`.
pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// The key of an item as JSON with sorted fields; a field that is not given has its default.
pub(crate) fn key_of(item: &Value, keys: &[&str]) -> String {
    let mut key = BTreeMap::new();
    for name in keys {
        match item.get(*name) {
            Some(value) => key.insert(*name, value.clone()),
            None if *name == "protocol" => key.insert(*name, "TCP".into()),
            None => key.insert(*name, Value::Null),
        };
    }
    serde_json::to_string(&key).expect("a map of JSON")
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// A field of a map.
    Field(String),
    /// An item of a list by its key, as JSON.
    Key(String),
    /// An item of a set, as JSON.
    Item(String),
}

impl Element {
    fn to_text(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(key) => format!("k:{key}"),
            Element::Item(value) => format!("v:{value}"),
        }
    }

    fn parse(text: &str) -> Option<Element> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Element::Field(rest.to_owned())),
            // Read and written again, so that it is the same text for the same key.
            "k" => {
                let key: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Element::Key(serde_json::to_string(&key).ok()?))
            }
            "v" => Some(Element::Item(rest.to_owned())),
            _ => None,
        }
    }
}

/// A set of fields, as a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    /// Whether what is here is in the set itself.
    own: bool,
    children: BTreeMap<Element, Fields>,
}

impl Fields {
    fn leaf() -> Fields {
        Fields { own: true, children: BTreeMap::new() }
    }

    /// Whether nothing is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        !self.own && self.children.is_empty()
    }

    pub(crate) fn child(&self, element: &Element) -> Option<&Fields> {
        self.children.get(element)
    }

    pub(crate) fn children(&self) -> impl Iterator<Item = (&Element, &Fields)> {
        self.children.iter()
    }

    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// All fields of a value.
    pub(crate) fn of(value: &Value, path: &str, shape: Shape) -> Fields {
        Fields::changed(None, value, path, shape)
    }

    /// The fields of `new` that `old` does not have, or has otherwise.
    pub(crate) fn changed(old: Option<&Value>, new: &Value, path: &str, shape: Shape) -> Fields {
        let mut fields = Fields::default();
        match (new, shape.list(path)) {
            (Value::Object(map), _) if !map.is_empty() => {
                let old = old.and_then(Value::as_object);
                for (name, value) in map {
                    let before = old.and_then(|old| old.get(name));
                    if before == Some(value) {
                        continue;
                    }
                    let child = Fields::changed(before, value, &join(path, name), shape);
                    fields.put(Element::Field(name.clone()), child);
                }
            }
            (Value::Array(items), List::Keyed(keys)) if !items.is_empty() => {
                let old: BTreeMap<String, &Value> = old
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .map(|item| (key_of(item, keys), item))
                    .collect();
                for item in items {
                    let key = key_of(item, keys);
                    let before = old.get(&key).copied();
                    let mut child = Fields::changed(before, item, path, Shape(shape.0));
                    child.own |= before.is_none();
                    fields.put(Element::Key(key), child);
                }
            }
            (Value::Array(items), List::Set) if !items.is_empty() => {
                let old = old.and_then(Value::as_array);
                for item in items.iter().filter(|item| !old.is_some_and(|old| old.contains(item))) {
                    fields.put(Element::Item(item.to_string()), Fields::leaf());
                }
            }
            _ => fields.own = old != Some(new),
        }
        fields
    }

    fn put(&mut self, element: Element, child: Fields) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    /// Adds the fields of another set.
    pub(crate) fn add(&mut self, other: &Fields) {
        self.own |= other.own;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().add(child);
        }
    }

    /// Takes the fields of another set out.
    pub(crate) fn subtract(&mut self, other: &Fields) {
        self.own &= !other.own;
        self.children.retain(|element, child| {
            if let Some(other) = other.children.get(element) {
                child.subtract(other);
            }
            !child.is_empty()
        });
    }

    /// Keeps the fields that are in another set too.
    pub(crate) fn intersect(&mut self, other: &Fields) {
        self.own &= other.own;
        self.children.retain(|element, child| match other.children.get(element) {
            Some(other) => {
                child.intersect(other);
                !child.is_empty()
            }
            None => false,
        });
    }

    /// Keeps the fields that are there at all in an object that has these fields.
    pub(crate) fn keep_existing(&mut self, existing: &Fields) {
        self.children.retain(|element, child| match existing.children.get(element) {
            Some(existing) => {
                child.keep_existing(existing);
                !child.is_empty()
            }
            None => false,
        });
    }

    /// The set in the form of `fieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.own && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.to_text(), child.to_json());
        }
        Value::Object(map)
    }

    /// Reads the form of `fieldsV1`. What can't be read is left out.
    pub(crate) fn from_json(json: &Value) -> Fields {
        let mut fields = Fields::default();
        if let Value::Object(map) = json {
            for (name, child) in map {
                if name == "." {
                    fields.own = true;
                } else if let Some(element) = Element::parse(name) {
                    let mut child = Fields::from_json(child);
                    child.own |= child.children.is_empty();
                    fields.children.insert(element, child);
                }
            }
        }
        fields
    }

    /// The path of each field, for people.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.own {
            paths.push(path.to_owned());
        }
        for (element, child) in &self.children {
            let mut path = path.to_owned();
            match element {
                Element::Field(name) => {
                    path.push('.');
                    path.push_str(name);
                }
                Element::Key(key) => {
                    let key: BTreeMap<String, Value> = serde_json::from_str(key).unwrap_or_default();
                    let parts: Vec<String> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    let _ = write!(path, "[{}]", parts.join(","));
                }
                Element::Item(value) => {
                    let _ = write!(path, "[={value}]");
                }
            }
            child.collect_paths(&path, paths);
        }
    }
}
