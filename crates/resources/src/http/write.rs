//! Writing: create, replace, patch, apply, delete.

use std::sync::Arc;

use futures::{StreamExt, stream};
use http::Response;
use lyra_types::TenantName;
use lyra_types::resources::{ManagedFieldsEntry, Time};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::content::{media_type, read, read_json, read_yaml};
use super::query::FieldValidation;
use super::{Request, decode};
use crate::cache::{Key, Stored};
use crate::kind::Kind;
use crate::patch::{Conflict, Manager, PatchFault, PatchType, Shape, after_update, apply};
use crate::resources::check_preconditions;
use crate::selector::Selector;
use crate::{Cause, DeleteOptions, Preconditions, ResourceApi, Status, WriteOptions};

/// Objects of a collection that are deleted at once.
const DELETES: usize = 16;

fn options<'a>(request: &'a Request<'_>) -> WriteOptions<'a> {
    WriteOptions { caller: request.caller, dry_run: request.query.dry_run }
}

fn shape<K: Kind>() -> Shape {
    Shape(K::KEYED_LISTS)
}

/// The manager that a request is from: as it says, or the program that it comes from.
fn manager<'a>(api: &ResourceApi, request: &'a Request<'_>, subresource: bool) -> Manager<'a> {
    let name = match request.query.field_manager.as_str() {
        "" => request.user_agent.split('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown"),
        name => name,
    };
    let end = name.char_indices().nth(128).map_or(name.len(), |(at, _)| at);
    Manager {
        name: &name[..end],
        subresource: if subresource { "status" } else { "" },
        now: Time::from(api.clock.now()),
    }
}

/// Looks for fields that the kind does not have.
///
/// # Errors
/// 400 where the client wants to be refused for them; else the warnings.
fn check_fields<K: Kind>(request: &Request<'_>, value: &Value, duplicates: Vec<String>) -> Result<Vec<String>, Status> {
    if request.query.field_validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let unknown = decode::unknown_fields::<K>(value).into_iter().map(|path| format!("unknown field \"{path}\""));
    let duplicates = duplicates.into_iter().map(|path| format!("duplicate field \"{path}\""));
    let faults: Vec<String> = duplicates.chain(unknown).collect();
    if !faults.is_empty() && request.query.field_validation == FieldValidation::Strict {
        let names = K::NAMES;
        return Err(Status::bad_request(format!(
            "{0} in version \"{1}\" cannot be handled as a {0}: strict decoding error: {2}",
            names.kind,
            names.version,
            faults.join(", ")
        )));
    }
    Ok(faults)
}

/// Says what fields there are that do nothing.
fn warn<K: Kind>(response: &mut Response<Body>, mut warnings: Vec<String>, stored: &Stored<K>) {
    warnings.extend(stored.object().warnings());
    answer::warn(response, &warnings);
}

pub(super) async fn create<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    tenant: &TenantName,
) -> Result<Response<Body>, Status> {
    let (value, duplicates) = read(&request.content_type, &request.body)?;
    let warnings = check_fields::<K>(request, &value, duplicates)?;
    let mut object: K = decode::object(value)?;
    check_namespace(&object, tenant)?;
    if !object.meta().resource_version.is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    tenant.as_str().clone_into(&mut object.meta_mut().namespace);
    let json = serde_json::to_value(&object).expect("objects are JSON");
    object.meta_mut().managed_fields = after_update(&[], None, &json, &manager(api, request, false), shape::<K>());
    let stored = api.kind::<K>().create(object, options(request)).await?;
    let mut response = answer::object(201, api, request, &*stored);
    warn(&mut response, warnings, &stored);
    Ok(response)
}

fn check_namespace<K: Kind>(object: &K, tenant: &TenantName) -> Result<(), Status> {
    match object.meta().namespace.as_str() {
        "" => Ok(()),
        namespace if namespace == tenant.as_str() => Ok(()),
        _ => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

fn check_name<K: Kind>(object: &K, key: &Key) -> Result<(), Status> {
    check_namespace(object, &key.tenant)?;
    match object.meta().name.as_str() {
        name if name == &*key.name => Ok(()),
        name => Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            name.escape_debug(),
            key.name
        ))),
    }
}

/// Refuses to change an object that is not the one, or not as, the client knows.
fn check_known<K: Kind>(old: &Stored<K>, new: &K) -> Result<(), Status> {
    let meta = new.meta();
    if !meta.uid.is_empty() && meta.uid != old.meta().uid {
        let preconditions = Preconditions { uid: Some(meta.uid.clone()), resource_version: None };
        check_preconditions(old.object(), &preconditions)?;
    }
    if !meta.resource_version.is_empty() && meta.resource_version != old.meta().resource_version {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Status::conflict::<K>(&old.meta().name, why));
    }
    Ok(())
}

/// What a client may write of `new` in place of `old`: all but the status, or the status only.
fn part_of<K: Kind>(old: &K, mut new: K, subresource: bool) -> K {
    if subresource {
        let mut object = old.clone();
        object.take_status(&new);
        object
    } else {
        new.take_status(old);
        let meta = new.meta_mut();
        // Only a delete request marks an object.
        meta.deletion_timestamp = old.meta().deletion_timestamp;
        meta.deletion_grace_period_seconds = old.meta().deletion_grace_period_seconds;
        new
    }
}

/// Notes who changed what. `given`: what the client wants the list of managers to be; empty forgets all.
fn note<K: Kind>(old: &Stored<K>, new: &mut K, given: &[ManagedFieldsEntry], manager: &Manager<'_>) {
    let (before, after) = (json_of(old.object()), json_of(new));
    let kept = if given.is_empty() { &old.meta().managed_fields } else { given };
    new.meta_mut().managed_fields = after_update(kept, Some(&before), &after, manager, shape::<K>());
}

fn json_of<K: Kind>(object: &K) -> Value {
    serde_json::to_value(object).expect("objects are JSON")
}

pub(super) async fn update<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    key: &Key,
    subresource: bool,
) -> Result<Response<Body>, Status> {
    let (value, duplicates) = read(&request.content_type, &request.body)?;
    let warnings = check_fields::<K>(request, &value, duplicates)?;
    let wanted: K = decode::object(value)?;
    check_name(&wanted, key)?;
    if wanted.meta().resource_version.is_empty() {
        let cause = Cause {
            reason: "FieldValueInvalid",
            message: "Invalid value: 0x0: must be specified for an update".to_owned(),
            field: "metadata.resourceVersion".to_owned(),
        };
        return Err(Status::invalid::<K>(&key.name, vec![cause]));
    }
    let manager = manager(api, request, subresource);
    let change = |old: &Arc<Stored<K>>| {
        check_known(old, &wanted)?;
        let mut new = part_of(old.object(), wanted.clone(), subresource);
        note(old, &mut new, &wanted.meta().managed_fields, &manager);
        Ok(new)
    };
    let stored = api.kind::<K>().change(key, &options(request), subresource, change).await?;
    let mut response = answer::object(200, api, request, &*stored);
    warn(&mut response, warnings, &stored);
    Ok(response)
}

pub(super) async fn patch<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    key: &Key,
    subresource: bool,
) -> Result<Response<Body>, Status> {
    let media = media_type(&request.content_type);
    let Some((_, kind)) = PatchType::MEDIA_TYPES.into_iter().find(|(known, _)| *known == media) else {
        let known = PatchType::MEDIA_TYPES.map(|(known, _)| known).join(", ");
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {known}");
        return Err(Status::new(415, "UnsupportedMediaType", message));
    };
    if kind == PatchType::Apply {
        return apply_patch::<K>(api, request, key, subresource).await;
    }
    let (body, duplicates) = read_json(&request.body)?;
    // What the patch itself adds; what is not in it was checked before.
    let warnings = match kind {
        PatchType::Json => check_fields::<K>(request, &Value::Null, duplicates)?,
        _ => check_fields::<K>(request, &without_directives(&body), duplicates)?,
    };
    let manager = manager(api, request, subresource);
    let change = |old: &Arc<Stored<K>>| {
        let before = json_of(old.object());
        let mut after = crate::patch::patch(&before, kind, &body, shape::<K>()).map_err(|fault| match fault {
            PatchFault::Malformed(why) => Status::bad_request(why),
            PatchFault::Unfit(message) => {
                let cause = Cause { reason: "FieldValueInvalid", message, field: "patch".to_owned() };
                Status::invalid::<K>(&key.name, vec![cause])
            }
        })?;
        // A revision counts only where the patch names one itself.
        if kind != PatchType::Json
            && body.pointer("/metadata/resourceVersion").is_none()
            && let Some(meta) = after.get_mut("metadata").and_then(Value::as_object_mut)
        {
            meta.remove("resourceVersion");
        }
        if kind == PatchType::Json && request.query.field_validation == FieldValidation::Strict {
            check_fields::<K>(request, &after, Vec::new())?;
        }
        let wanted: K = decode::object(after)?;
        check_name(&wanted, key)?;
        check_known(old, &wanted)?;
        let given = wanted.meta().managed_fields.clone();
        let mut new = part_of(old.object(), wanted, subresource);
        note(old, &mut new, &given, &manager);
        Ok(new)
    };
    let stored = api.kind::<K>().change(key, &options(request), subresource, change).await?;
    let mut response = answer::object(200, api, request, &*stored);
    warn(&mut response, warnings, &stored);
    Ok(response)
}

/// What a patch gives an object: without what only patches have, and without the fields that it takes away, known or not.
fn without_directives(patch: &Value) -> Value {
    match patch {
        Value::Object(map) => map
            .iter()
            .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
            .map(|(name, value)| (name.clone(), without_directives(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(without_directives).collect(),
        value => value.clone(),
    }
}

async fn apply_patch<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    key: &Key,
    subresource: bool,
) -> Result<Response<Body>, Status> {
    if request.query.field_manager.is_empty() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let mut applied = read_yaml(&request.body)?;
    decode::without_nulls(&mut applied);
    let warnings = check_fields::<K>(request, &applied, Vec::new())?;
    let mut wanted: K = decode::object(applied.clone())?;
    if wanted.meta().name.is_empty() {
        (*key.name).clone_into(&mut wanted.meta_mut().name);
    }
    check_name(&wanted, key)?;
    if !wanted.meta().managed_fields.is_empty() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let manager = manager(api, request, subresource);
    let resources = api.kind::<K>();
    let change = |old: &Arc<Stored<K>>| {
        check_known(old, &wanted)?;
        let live = json_of(old.object());
        let managed = &old.meta().managed_fields;
        let (mut merged, entries) = apply(&live, &applied, managed, &manager, request.query.force, shape::<K>())
            .map_err(|conflicts| conflict::<K>(&key.name, &conflicts))?;
        merged["metadata"]["managedFields"] = Value::Null;
        let mut new = part_of(old.object(), decode::object(merged)?, subresource);
        new.meta_mut().managed_fields = entries;
        Ok(new)
    };
    resources.refresh().await?;
    let (code, stored) = match resources.change(key, &options(request), subresource, change).await {
        Ok(stored) => (200, stored),
        Err(status) if status.code == 404 && !subresource && wanted.meta().resource_version.is_empty() => {
            let mut new = wanted.clone();
            key.tenant.as_str().clone_into(&mut new.meta_mut().namespace);
            let (_, entries) = apply(&json!({}), &applied, &[], &manager, true, shape::<K>()).unwrap_or_default();
            new.meta_mut().managed_fields = entries;
            match resources.create(new, options(request)).await {
                // Somebody else was faster: then it is a change.
                Err(status) if status.reason == "AlreadyExists" => {
                    (200, resources.change(key, &options(request), subresource, change).await?)
                }
                created => (201, created?),
            }
        }
        Err(status) => return Err(status),
    };
    let mut response = answer::object(code, api, request, &*stored);
    warn(&mut response, warnings, &stored);
    Ok(response)
}

fn conflict<K: Kind>(name: &str, conflicts: &[Conflict]) -> Status {
    let by = |conflict: &Conflict| format!("conflict with \"{}\" using lyra.dev/v1", conflict.manager);
    let told: Vec<String> = conflicts.iter().map(|conflict| format!("{}: {}", by(conflict), conflict.field)).collect();
    let plural = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {plural}: {}", conflicts.len(), told.join("\n"));
    let mut status = Status::new(409, "Conflict", message).of(&K::NAMES, K::NAMES.plural, name);
    status.details.causes = conflicts
        .iter()
        .map(|conflict| Cause { reason: "FieldManagerConflict", message: by(conflict), field: conflict.field.clone() })
        .collect();
    status
}

/// The body of a delete request.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteBody {
    grace_period_seconds: Option<i64>,
    preconditions: Option<PreconditionsBody>,
    propagation_policy: Option<String>,
    dry_run: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PreconditionsBody {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// How a request wants something deleted, and whether only for show.
fn delete_options(request: &Request<'_>) -> Result<(DeleteOptions, bool), Status> {
    let body = match request.body.is_empty() {
        true => DeleteBody::default(),
        false => serde_json::from_value(read(&request.content_type, &request.body)?.0)
            .map_err(|error| Status::bad_request(format!("the options can't be read: {error}")))?,
    };
    // Whatever belongs to an object is deleted by its controller: all policies come to the same.
    if let Some(policy) = &body.propagation_policy
        && !matches!(policy.as_str(), "" | "Background" | "Foreground" | "Orphan")
    {
        return Err(Status::bad_request("propagationPolicy: must be Background, Foreground or Orphan"));
    }
    let dry_run = match body.dry_run.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => request.query.dry_run,
        ["All"] => true,
        _ => return Err(Status::bad_request("dryRun: Unsupported value: supported values: \"All\"")),
    };
    let preconditions = body.preconditions.unwrap_or_default();
    let delete = DeleteOptions {
        preconditions: Preconditions { uid: preconditions.uid, resource_version: preconditions.resource_version },
        grace_period_seconds: body.grace_period_seconds.or(request.query.grace_period_seconds),
    };
    if delete.grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        return Err(Status::bad_request("gracePeriodSeconds: must be 0 or more"));
    }
    Ok((delete, dry_run))
}

pub(super) async fn delete<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    tenant: &TenantName,
    name: &str,
) -> Result<Response<Body>, Status> {
    let (delete, dry_run) = delete_options(request)?;
    let options = WriteOptions { caller: request.caller, dry_run };
    let last = api.kind::<K>().delete(tenant, name, &delete, options).await?;
    if !last.meta().finalizers.is_empty() {
        return Ok(answer::object(200, api, request, &*last));
    }
    let names = K::NAMES;
    let gone = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name, "group": names.group, "kind": names.plural, "uid": last.meta().uid},
    });
    Ok(answer::json(200, &request.accept, &gone))
}

pub(super) async fn delete_all<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    tenant: Option<&TenantName>,
) -> Result<Response<Body>, Status> {
    let query = &request.query;
    let selector = Selector::parse::<K>(&query.label_selector, &query.field_selector).map_err(Status::bad_request)?;
    let (delete, dry_run) = delete_options(request)?;
    let resources = api.kind::<K>();
    resources.refresh().await?;
    let (objects, revision) = resources.cache().list(tenant);
    let meant = objects.into_iter().filter(|object| selector.matches(object.object()));
    let mut gone = Vec::new();
    let mut deletes = stream::iter(meant)
        .map(|object| {
            // Each is deleted only as long as it is the object that was selected.
            let uid = Some(object.meta().uid.clone());
            let delete = DeleteOptions {
                preconditions: Preconditions { uid, resource_version: None },
                grace_period_seconds: delete.grace_period_seconds,
            };
            async move {
                let meta = object.meta();
                let Ok(tenant) = TenantName::new(&meta.namespace) else { return Ok(None) };
                let options = WriteOptions { caller: request.caller, dry_run };
                match resources.delete(&tenant, &meta.name, &delete, options).await {
                    Ok(last) => Ok(Some(last)),
                    Err(status) if matches!(status.code, 404 | 409) => Ok(None),
                    Err(status) => Err(status),
                }
            }
        })
        .buffer_unordered(DELETES);
    while let Some(last) = deletes.next().await {
        gone.extend(last?);
    }
    let items: Vec<&Stored<K>> = gone.iter().map(|object| &**object).collect();
    Ok(answer::list(api, request, &items, &json!({"resourceVersion": revision.to_string()})))
}
