//! Strategic merge: a merge patch that knows which lists have keys, and has directives.

use serde_json::{Map, Value};

use super::fields::{List, Shape, join, key_of};

/// Merges `patch` into `value`, which is at `path`.
///
/// # Errors
/// What is wrong with the patch.
pub(super) fn merge(value: &mut Value, patch: &Value, path: &str, shape: Shape) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *value = Value::Object(plain(patch));
            return Ok(());
        }
        Some(Some("delete")) => {
            *value = Value::Null;
            return Ok(());
        }
        Some(_) => return Err(format!("unknown $patch directive {} at {path:?}", patch["$patch"])),
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else { return Ok(()) };
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        map.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    for (name, change) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (map.get_mut(list), change) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        let path = join(path, name);
        match change {
            Value::Null => {
                map.remove(name);
            }
            Value::Array(changes) => {
                let list = map.entry(name.clone()).or_insert(Value::Array(Vec::new()));
                merge_list(list, changes, &path, shape)?;
            }
            change => {
                let mut field = map.remove(name).unwrap_or(Value::Null);
                merge(&mut field, change, &path, shape)?;
                if !field.is_null() {
                    map.insert(name.clone(), field);
                }
            }
        }
    }
    Ok(())
}

/// A map without directives.
fn plain(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(name, _)| !name.starts_with('$')).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn merge_list(list: &mut Value, changes: &[Value], path: &str, shape: Shape) -> Result<(), String> {
    let items = match list {
        Value::Array(items) => items,
        other => {
            *other = Value::Array(Vec::new());
            other.as_array_mut().ok_or("a list")?
        }
    };
    let keys = match shape.list(path) {
        List::Atomic => {
            *items = changes.to_vec();
            return Ok(());
        }
        List::Set => {
            for change in changes.iter().filter(|change| !change.is_object()) {
                if !items.contains(change) {
                    items.push(change.clone());
                }
            }
            return Ok(());
        }
        List::Keyed(keys) => keys,
    };
    let directive = |change: &Value| change.get("$patch").and_then(Value::as_str).map(str::to_owned);
    if changes.iter().any(|change| directive(change).as_deref() == Some("replace")) {
        items.clear();
    }
    for change in changes {
        let Value::Object(fields) = change else { return Err(format!("{path}: an item of the list is not an object")) };
        // A patch may name less than the whole key: kubectl knows only the first field of some.
        let given: Vec<&str> = keys.iter().copied().filter(|key| fields.contains_key(*key)).collect();
        let place = match given.is_empty() {
            true => None,
            false => items.iter().position(|item| key_of(item, &given) == key_of(change, &given)),
        };
        match (directive(change).as_deref(), place) {
            (Some("delete"), Some(place)) => drop(items.remove(place)),
            (Some("delete"), None) => {}
            (Some("replace"), _) if given.is_empty() => {}
            (Some("replace"), place) => {
                place.into_iter().for_each(|place| drop(items.remove(place)));
                items.push(Value::Object(plain(fields)));
            }
            (_, _) if given.is_empty() => return Err(format!("{path}: an item lacks its key ({})", keys.join(", "))),
            (_, Some(place)) => merge(&mut items[place], change, path, shape)?,
            (_, None) => items.push(Value::Object(plain(fields))),
        }
    }
    Ok(())
}
