//! Tables: what `kubectl get` prints, made by the server.

use lyra_types::Timestamp;
use serde_json::{Value, json};

use super::answer::partial;
use super::query::Include;
use crate::cache::Stored;
use crate::kind::Kind;

/// A table of objects. In a watch, only the first one tells the columns.
pub(super) fn of<K: Kind>(
    objects: &[&Stored<K>],
    include: Include,
    with_columns: bool,
    meta: Value,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut cells = vec![json!(object.meta().name)];
            cells.extend(object.cells(now));
            let mut row = json!({"cells": cells});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = partial(object.object()),
                Include::Object => {
                    row["object"] = serde_json::from_slice(object.json()).unwrap_or(Value::Null);
                }
            }
            row
        })
        .collect();
    table(if with_columns { columns::<K>() } else { Vec::new() }, rows, meta)
}

/// A table.
pub(super) fn table(columns: Vec<Value>, rows: Vec<Value>, meta: Value) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The definition of a column.
pub(super) fn column(name: &str, r#type: &str, format: &str, description: &str, priority: u8) -> Value {
    json!({"name": name, "type": r#type, "format": format, "description": description, "priority": priority})
}

fn columns<K: Kind>() -> Vec<Value> {
    let name = column("Name", "string", "name", "Name, unique in its namespace.", 0);
    let rest = K::columns().iter().map(|known| column(known.name, known.r#type, "", known.description, known.priority));
    std::iter::once(name).chain(rest).collect()
}
