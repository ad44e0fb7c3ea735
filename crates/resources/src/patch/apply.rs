//! Server-side apply: a manager says which fields it wants and with what values; the server keeps who said what.
//!
//! What must hold:
//! - A field that another manager set is not changed unless the manager insists (`force`), and then it is its own.
//! - A field that the manager has set by an earlier apply, and does not any more, goes, unless somebody else set it too.
//! - Fields that nobody says anything about stay.

use lyra_types::resources::{API_VERSION, ManagedFieldsEntry, Time};
use serde_json::{Map, Value};

use super::fields::{Element, Fields, List, Shape, join, key_of};

/// Entries of managers that update; the oldest are put together beyond that.
const MAX_UPDATERS: usize = 10;
/// Name of the entry for those.
const ANCIENT: &str = "ancient-changes";

/// Who writes, and by which path.
#[derive(Debug, Clone)]
pub(crate) struct Manager<'a> {
    pub(crate) name: &'a str,
    /// `status`, or empty.
    pub(crate) subresource: &'a str,
    pub(crate) now: Time,
}

/// A field that another manager has set to something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) manager: String,
    pub(crate) operation: String,
    pub(crate) field: String,
}

/// Leaves of an object what managers may own: not its identity, nor what only the server sets.
pub(crate) fn owned_part(object: &Value, subresource: &str) -> Value {
    let Value::Object(object) = object else { return Value::Null };
    let mut part = Map::new();
    if subresource == "status" {
        if let Some(status) = object.get("status") {
            part.insert("status".to_owned(), status.clone());
        }
        return Value::Object(part);
    }
    for (name, value) in object {
        match (name.as_str(), value) {
            ("apiVersion" | "kind" | "status", _) => {}
            ("metadata", Value::Object(meta)) => {
                let kept = ["labels", "annotations", "finalizers", "ownerReferences"];
                let meta: Map<String, Value> = meta
                    .iter()
                    .filter(|(name, _)| kept.contains(&name.as_str()))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                if !meta.is_empty() {
                    part.insert(name.clone(), Value::Object(meta));
                }
            }
            _ => {
                part.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(part)
}

/// The managers after somebody wrote an object without apply.
pub(crate) fn after_update(
    managed: &[ManagedFieldsEntry],
    old: Option<&Value>,
    new: &Value,
    manager: &Manager<'_>,
    shape: Shape,
) -> Vec<ManagedFieldsEntry> {
    let new = owned_part(new, manager.subresource);
    let old = old.map(|old| owned_part(old, manager.subresource));
    let changed = Fields::changed(old.as_ref(), &new, "", shape);
    if changed.is_empty() && old.as_ref() == Some(&new) {
        return managed.to_vec();
    }
    let existing = Fields::of(&new, "", shape);
    let mut entries = Vec::with_capacity(managed.len() + 1);
    let mut own = Fields::default();
    for entry in managed {
        let mut fields = Fields::from_json(&entry.fields_v1);
        if entry.subresource != manager.subresource {
            entries.push(entry.clone());
            continue;
        }
        fields.keep_existing(&existing);
        if entry.operation == "Update" && entry.manager == manager.name {
            own.add(&fields);
            continue;
        }
        fields.subtract(&changed);
        if !fields.is_empty() {
            entries.push(with_fields(entry, &fields));
        }
    }
    own.add(&changed);
    if !own.is_empty() {
        entries.push(entry_of(manager, "Update", &own));
    }
    cap(entries)
}

/// Puts the oldest of too many updaters together.
fn cap(mut entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let updaters = |entries: &[ManagedFieldsEntry]| entries.iter().filter(|entry| entry.operation == "Update").count();
    while updaters(&entries) > MAX_UPDATERS {
        let mut oldest: Vec<usize> = (0..entries.len()).filter(|at| entries[*at].operation == "Update").collect();
        oldest.sort_by_key(|at| entries[*at].time);
        let [first, second] = [oldest[0].max(oldest[1]), oldest[0].min(oldest[1])];
        let taken = entries.remove(first);
        let mut fields = Fields::from_json(&taken.fields_v1);
        fields.add(&Fields::from_json(&entries[second].fields_v1));
        let mut merged = with_fields(&entries[second], &fields);
        merged.manager = ANCIENT.to_owned();
        entries[second] = merged;
    }
    entries
}

fn with_fields(entry: &ManagedFieldsEntry, fields: &Fields) -> ManagedFieldsEntry {
    ManagedFieldsEntry { fields_v1: fields.to_json(), ..entry.clone() }
}

fn entry_of(manager: &Manager<'_>, operation: &str, fields: &Fields) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        manager: manager.name.to_owned(),
        operation: operation.to_owned(),
        api_version: API_VERSION.to_owned(),
        time: Some(manager.now),
        fields_type: "FieldsV1".to_owned(),
        fields_v1: fields.to_json(),
        subresource: manager.subresource.to_owned(),
    }
}

/// The object and its managers after an apply.
///
/// # Errors
/// The fields that others have set to something else.
pub(crate) fn apply(
    live: &Value,
    applied: &Value,
    managed: &[ManagedFieldsEntry],
    manager: &Manager<'_>,
    force: bool,
    shape: Shape,
) -> Result<(Value, Vec<ManagedFieldsEntry>), Vec<Conflict>> {
    let applied = owned_part(applied, manager.subresource);
    let wanted = Fields::of(&applied, "", shape);
    let mut merged = live.clone();
    overlay(&mut merged, &applied, "", shape);
    let changed = Fields::changed(Some(live), &merged, "", shape);

    let is_own = |entry: &ManagedFieldsEntry| {
        entry.manager == manager.name && entry.operation == "Apply" && entry.subresource == manager.subresource
    };
    let mut conflicts = Vec::new();
    let mut entries = Vec::with_capacity(managed.len() + 1);
    let mut others = Fields::default();
    for entry in managed.iter().filter(|entry| !is_own(entry)) {
        let mut fields = Fields::from_json(&entry.fields_v1);
        let mut disputed = fields.clone();
        disputed.intersect(&changed);
        disputed.intersect(&wanted);
        // The same client by another kind of request (create, then apply) does not fight itself.
        if !disputed.is_empty() && entry.manager != manager.name && !force {
            conflicts.extend(disputed.paths().into_iter().map(|field| Conflict {
                manager: entry.manager.clone(),
                operation: entry.operation.clone(),
                field,
            }));
        }
        fields.subtract(&disputed);
        others.add(&fields);
        if !fields.is_empty() {
            entries.push(with_fields(entry, &fields));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let former = managed.iter().find(|entry| is_own(entry));
    if let Some(former) = former {
        let mut gone = Fields::from_json(&former.fields_v1);
        gone.subtract(&wanted);
        gone.subtract(&others);
        remove(&mut merged, &gone, Some(&others), Some(&wanted), "", shape);
    }
    let mut own = entry_of(manager, "Apply", &wanted);
    if let Some(former) = former
        && Fields::from_json(&former.fields_v1) == wanted
    {
        own.time = former.time;
    }
    entries.insert(0, own);
    Ok((merged, entries))
}

/// Lays what was applied over what is there.
fn overlay(value: &mut Value, applied: &Value, path: &str, shape: Shape) {
    match (value, applied, shape.list(path)) {
        (Value::Object(map), Value::Object(applied), _) => {
            for (name, field) in applied {
                match map.get_mut(name) {
                    Some(known) => overlay(known, field, &join(path, name), shape),
                    None => drop(map.insert(name.clone(), field.clone())),
                }
            }
        }
        (Value::Array(items), Value::Array(applied), List::Keyed(keys)) => {
            for item in applied {
                let key = key_of(item, keys);
                match items.iter_mut().find(|known| key_of(known, keys) == key) {
                    Some(known) => overlay(known, item, path, shape),
                    None => items.push(item.clone()),
                }
            }
        }
        (Value::Array(items), Value::Array(applied), List::Set) => {
            for item in applied {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
        }
        (value, applied, _) => *value = applied.clone(),
    }
}

/// Takes fields out of an object. What others own, or is wanted, beneath such a field stays.
fn remove(
    value: &mut Value,
    gone: &Fields,
    others: Option<&Fields>,
    wanted: Option<&Fields>,
    path: &str,
    shape: Shape,
) {
    for (element, child) in gone.children() {
        let others = others.and_then(|others| others.child(element));
        let wanted = wanted.and_then(|wanted| wanted.child(element));
        let whole = child.is_own() && others.is_none() && wanted.is_none();
        match (element, &mut *value) {
            (Element::Field(name), Value::Object(map)) => {
                if whole {
                    map.remove(name);
                } else if let Some(field) = map.get_mut(name) {
                    remove(field, child, others, wanted, &join(path, name), shape);
                }
            }
            (Element::Key(key), Value::Array(items)) => {
                let List::Keyed(keys) = shape.list(path) else { continue };
                let Some(place) = items.iter().position(|item| key_of(item, keys) == *key) else { continue };
                if whole {
                    items.remove(place);
                } else {
                    remove(&mut items[place], child, others, wanted, path, shape);
                }
            }
            (Element::Item(item), Value::Array(items)) if whole => {
                let item = serde_json::from_str::<Value>(item).ok();
                items.retain(|known| Some(known) != item.as_ref());
            }
            _ => {}
        }
    }
}
