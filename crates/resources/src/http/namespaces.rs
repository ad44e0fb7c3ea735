//! Namespaces, as far as clients need them: a namespace is a tenant, and every valid name is one.

use std::collections::BTreeSet;

use http::{Method, Response};
use http_body_util::{BodyExt, StreamBody};
use lyra_types::TenantName;
use prost::Message;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::content::{Form, media_type, read};
use super::target::Target;
use super::{Request, method_not_allowed, reviews, table};
use crate::{Access, ResourceApi, Status};

pub(super) fn answer(api: &ResourceApi, target: &Target, request: &Request<'_>) -> Result<Response<Body>, Status> {
    match (&request.method, target.name.as_deref()) {
        (&Method::GET | &Method::HEAD, Some(name)) => {
            request.accept.check()?;
            request.caller.check("get", "namespaces", "", Some(name), name)?;
            let tenant = TenantName::new(name).map_err(|_| {
                Status::new(404, "NotFound", format!("namespaces \"{}\" not found", name.escape_debug()))
            })?;
            Ok(shown(request, &[tenant], true))
        }
        (&Method::GET | &Method::HEAD, None) => {
            request.accept.check()?;
            let tenants = tenants(api, request);
            if request.query.watch { Ok(watch(api, &tenants)) } else { Ok(shown(request, &tenants, false)) }
        }
        (&Method::POST, None) => create(request),
        _ => Err(method_not_allowed()),
    }
}

/// The tenants that the caller sees: its own, or all that have something, and the default one.
fn tenants(api: &ResourceApi, request: &Request<'_>) -> Vec<TenantName> {
    match &request.caller.access {
        Access::Tenants(tenants) => tenants.iter().cloned().collect(),
        Access::Operator => {
            let mut tenants: BTreeSet<TenantName> = [TenantName::default_tenant()].into();
            tenants.extend(api.applications().cache().tenants().into_keys());
            tenants.extend(api.sessions().cache().tenants().into_keys());
            tenants.into_iter().collect()
        }
    }
}

fn namespace(tenant: &TenantName) -> Value {
    json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {
            "name": tenant, "uid": format!("tenant-{tenant}"), "resourceVersion": "1",
            "labels": {"kubernetes.io/metadata.name": tenant},
        },
        "spec": {"finalizers": []},
        "status": {"phase": "Active"},
    })
}

fn shown(request: &Request<'_>, tenants: &[TenantName], one: bool) -> Response<Body> {
    let items: Vec<Value> = tenants.iter().map(namespace).collect();
    let document = match request.accept.form {
        Form::Table => {
            let columns = vec![
                table::column("Name", "string", "name", "Name of the tenant.", 0),
                table::column("Status", "string", "", "Always Active.", 0),
            ];
            let row = |item: &Value| json!({"cells": [item["metadata"]["name"], "Active"], "object": item});
            table::table(columns, items.iter().map(row).collect(), json!({"resourceVersion": "1"}))
        }
        _ if one => items.into_iter().next().unwrap_or(Value::Null),
        _ => json!({"kind": "NamespaceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
    };
    answer::json(200, &request.accept, &document)
}

/// Shows what there is, and nothing more: tenants do not change here.
fn watch(api: &ResourceApi, tenants: &[TenantName]) -> Response<Body> {
    let lines: String =
        tenants.iter().map(|tenant| format!("{}\n", json!({"type": "ADDED", "object": namespace(tenant)}))).collect();
    let stopping = api.stopping();
    let first = futures::stream::iter([Ok(http_body::Frame::data(bytes::Bytes::from(lines)))]);
    let rest = futures::stream::once(async move {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(600), stopping.cancelled()).await;
        Ok(http_body::Frame::data(bytes::Bytes::new()))
    });
    let body = StreamBody::new(futures::StreamExt::chain(first, rest)).boxed_unsync();
    answer::with(200, "application/json", body)
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<MetaMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct MetaMessage {
    #[prost(string, tag = "1")]
    name: String,
}

/// There is nothing to create: the tenant is there.
fn create(request: &Request<'_>) -> Result<Response<Body>, Status> {
    let name = if media_type(&request.content_type) == reviews::PROTOBUF {
        let message = NamespaceMessage::decode(reviews::unwrap(&request.body)?)
            .map_err(|_| Status::bad_request("the body of the request is not a Namespace"))?;
        message.metadata.unwrap_or_default().name
    } else {
        let (value, _) = read(&request.content_type, &request.body)?;
        value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let tenant = TenantName::new(&name).map_err(|error| Status::new(422, "Invalid", error.detail))?;
    request.caller.check("create", "namespaces", "", Some(&name), &name)?;
    Ok(answer::json(201, &request.accept, &namespace(&tenant)))
}
