//! Objects that the command line gives: inputs of runs, outputs of tasks.

use serde_json::{Map, Value};

use crate::failure::{Failure, Result};
use crate::function::invoke::read_event;

/// Reads what `--data` says: JSON, `@FILE` or `-`; an empty object where nothing is said.
///
/// # Errors
/// When it can't be read, or is no JSON object.
pub(super) fn read_object(data: Option<&str>) -> Result<Map<String, Value>> {
    let text = read_event(data)?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => {
            Err(Failure::usage("the data must be a JSON object").hint("an input looks like '{\"name\": \"Ada\"}'"))
        }
        Err(error) => Err(Failure::usage(format!("the data is not JSON: {error}"))),
    }
}
