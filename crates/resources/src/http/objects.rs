//! Requests about objects: which verb is meant, whether the caller may, and reading.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Response};
use lyra_types::TenantName;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{self, Body};
use super::target::Target;
use super::{Request, method_not_allowed, watch, write};
use crate::cache::{Key, Stored};
use crate::kind::Kind;
use crate::selector::Selector;
use crate::{ResourceApi, Status};

/// Answers a request about objects of a kind.
pub(super) async fn answer<K: Kind>(
    api: &Arc<ResourceApi>,
    target: Target,
    request: Request<'_>,
) -> Result<Response<Body>, Status> {
    request.accept.check()?;
    if !matches!(target.subresource.as_deref(), None | Some("status")) {
        return Err(Status::no_such_path());
    }
    let verb = verb(&target, &request)?;
    let resource = match &target.subresource {
        Some(subresource) => format!("{}/{subresource}", K::NAMES.plural),
        None => K::NAMES.plural.to_owned(),
    };
    let name = target.name.as_deref().unwrap_or_default();
    request.caller.check(verb, &resource, K::NAMES.group, target.namespace.as_deref(), name)?;
    let tenant = match target.namespace.as_deref() {
        Some(namespace) => Some(TenantName::new(namespace).map_err(|_| no_namespace(namespace))?),
        None => None,
    };
    match (verb, tenant, target.name.as_deref()) {
        ("get", Some(tenant), Some(name)) => get::<K>(api, &request, &Key::new(&tenant, name)).await,
        ("list", tenant, None) => list::<K>(api, &request, tenant.as_ref()).await,
        ("watch", tenant, None) => watch::answer::<K>(api, &request, tenant, None).await,
        ("watch", tenant, Some(name)) => watch::answer::<K>(api, &request, tenant, Some(name)).await,
        ("create", Some(tenant), None) => write::create::<K>(api, &request, &tenant).await,
        ("update", Some(tenant), Some(name)) => {
            write::update::<K>(api, &request, &Key::new(&tenant, name), target.subresource.is_some()).await
        }
        ("patch", Some(tenant), Some(name)) => {
            write::patch::<K>(api, &request, &Key::new(&tenant, name), target.subresource.is_some()).await
        }
        ("delete", Some(tenant), Some(name)) => write::delete::<K>(api, &request, &tenant, name).await,
        ("deletecollection", tenant, None) => write::delete_all::<K>(api, &request, tenant.as_ref()).await,
        _ => Err(method_not_allowed()),
    }
}

fn no_namespace(namespace: &str) -> Status {
    let shown: String = namespace.chars().take(80).collect();
    Status::new(404, "NotFound", format!("namespaces \"{}\" not found", shown.escape_debug()))
}

/// The verb that a request means, as access is granted by it.
fn verb(target: &Target, request: &Request<'_>) -> Result<&'static str, Status> {
    let one = target.name.is_some();
    let main = target.subresource.is_none();
    Ok(match request.method {
        Method::GET if main && request.query.watch => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST if !one && target.namespace.is_some() => "create",
        Method::PUT if one => "update",
        Method::PATCH if one => "patch",
        Method::DELETE if one && main => "delete",
        Method::DELETE if !one => "deletecollection",
        _ => return Err(method_not_allowed()),
    })
}

async fn get<K: Kind>(api: &ResourceApi, request: &Request<'_>, key: &Key) -> Result<Response<Body>, Status> {
    let resources = api.kind::<K>();
    match request.query.revision()? {
        None => resources.refresh().await?,
        Some(revision) => watch::catch_up::<K>(api, revision).await?,
    }
    match resources.get_key(key) {
        Some(object) => Ok(answer::object(200, api, request, &*object)),
        None => Err(Status::not_found::<K>(&key.name)),
    }
}

/// Where the next page of a list begins.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continue {
    /// The revision that all pages show.
    rv: u64,
    /// The last object of the page before.
    tenant: String,
    name: String,
}

/// The objects that a request means, and the revision that they show.
type Listed<K> = (Vec<Arc<Stored<K>>>, u64);

async fn list<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    tenant: Option<&TenantName>,
) -> Result<Response<Body>, Status> {
    let query = &request.query;
    let selector = Selector::parse::<K>(&query.label_selector, &query.field_selector).map_err(Status::bad_request)?;
    let (from, (objects, revision)) = match query.continue_token.as_str() {
        "" => (None, first_page::<K>(api, request, tenant).await?),
        token => {
            let from = URL_SAFE_NO_PAD
                .decode(token)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Continue>(&bytes).ok())
                .ok_or_else(|| Status::bad_request("continue key is not valid"))?;
            watch::catch_up::<K>(api, from.rv).await?;
            let objects = api.kind::<K>().cache().as_of(from.rv, tenant).ok_or_else(|| {
                Status::expired(
                    "The provided continue parameter is too old to display a consistent list result. You must start a \
                     new list without the continue parameter.",
                )
            })?;
            let rv = from.rv;
            (Some(from), (objects, rv))
        }
    };
    let after = |object: &Stored<K>| {
        from.as_ref().is_none_or(|from| {
            let meta = object.meta();
            (meta.namespace.as_str(), meta.name.as_str()) > (from.tenant.as_str(), from.name.as_str())
        })
    };
    let mut items: Vec<&Stored<K>> = objects
        .iter()
        .map(|object| &**object)
        .filter(|object| after(object) && selector.matches(object.object()))
        .collect();
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if query.limit > 0 && items.len() > query.limit {
        let remaining = items.len() - query.limit;
        items.truncate(query.limit);
        if let Some(last) = items.last() {
            let (tenant, name) = (last.meta().namespace.clone(), last.meta().name.clone());
            let next = serde_json::to_vec(&Continue { rv: revision, tenant, name }).expect("strings and a number");
            meta["continue"] = URL_SAFE_NO_PAD.encode(next).into();
            if query.label_selector.is_empty() && query.field_selector.is_empty() {
                meta["remainingItemCount"] = remaining.into();
            }
        }
    }
    Ok(answer::list(api, request, &items, &meta))
}

/// All objects of a list that does not go on with another.
async fn first_page<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    tenant: Option<&TenantName>,
) -> Result<Listed<K>, Status> {
    let query = &request.query;
    let cache = api.kind::<K>().cache();
    let revision = query.revision()?;
    match (query.resource_version_match.as_str(), revision) {
        ("" | "NotOlderThan", Some(revision)) => watch::catch_up::<K>(api, revision).await?,
        ("", None) => api.kind::<K>().refresh().await?,
        ("Exact", Some(revision)) if revision > 0 => {
            watch::catch_up::<K>(api, revision).await?;
            let objects = cache
                .as_of(revision, tenant)
                .ok_or_else(|| Status::expired(format!("too old resource version: {revision}")))?;
            return Ok((objects, revision));
        }
        ("NotOlderThan" | "Exact", _) => {
            return Err(Status::bad_request("resourceVersionMatch is forbidden without a resourceVersion that fits"));
        }
        _ => return Err(Status::bad_request("resourceVersionMatch: must be Exact or NotOlderThan")),
    }
    Ok(cache.list(tenant))
}
