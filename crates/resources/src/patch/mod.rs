//! Changing objects by patches, and keeping who set which of their fields.

mod apply;
mod fields;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub(crate) use self::apply::{Conflict, Manager, after_update, apply};
pub(crate) use self::fields::Shape;

/// The kinds of patches, by their media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// Every media type that is taken.
    pub(crate) const MEDIA_TYPES: [(&'static str, PatchType); 4] = [
        ("application/json-patch+json", PatchType::Json),
        ("application/merge-patch+json", PatchType::Merge),
        ("application/strategic-merge-patch+json", PatchType::Strategic),
        ("application/apply-patch+yaml", PatchType::Apply),
    ];
}

/// Operations of one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// Why a patch can't be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PatchFault {
    /// It is no patch.
    Malformed(String),
    /// It does not fit the object.
    Unfit(String),
}

/// Carries out a patch of any kind but [`PatchType::Apply`].
pub(crate) fn patch(object: &Value, kind: PatchType, patch: &Value, shape: Shape) -> Result<Value, PatchFault> {
    let mut object = object.clone();
    match kind {
        PatchType::Json => {
            let patch: json_patch::Patch = serde::Deserialize::deserialize(patch)
                .map_err(|error| PatchFault::Malformed(format!("the patch can't be read: {error}")))?;
            if patch.len() > MAX_OPERATIONS {
                return Err(PatchFault::Malformed(format!("the patch has more than {MAX_OPERATIONS} operations")));
            }
            json_patch::patch(&mut object, &patch)
                .map_err(|error| PatchFault::Unfit(format!("the patch can't be applied: {error}")))?;
        }
        PatchType::Merge if patch.is_object() => json_patch::merge(&mut object, patch),
        PatchType::Strategic if patch.is_object() => {
            strategic::merge(&mut object, patch, "", shape).map_err(PatchFault::Malformed)?;
        }
        PatchType::Merge | PatchType::Strategic | PatchType::Apply => {
            return Err(PatchFault::Malformed("the patch is not an object".to_owned()));
        }
    }
    Ok(object)
}
