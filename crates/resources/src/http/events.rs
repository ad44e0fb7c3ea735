//! Events to clients: `core/v1` and `events.k8s.io/v1`.

use std::convert::Infallible;
use std::time::Duration;

use futures::stream;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_types::TenantName;
use lyra_types::resources::Time;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::content::Form;
use super::target::Target;
use super::{Request, method_not_allowed, table};
use crate::events::Event;
use crate::kinds::short;
use crate::selector::{FieldRequirement, parse_fields};
use crate::{ResourceApi, Status};

/// How long a watch of events goes on when the client does not say.
const TIMEOUT: u64 = 600;

pub(super) fn answer(api: &ResourceApi, target: &Target, request: &Request<'_>) -> Result<Response<Body>, Status> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(method_not_allowed());
    }
    request.accept.check()?;
    let verb = match (target.name.is_some(), request.query.watch) {
        (true, _) => "get",
        (false, true) => "watch",
        (false, false) => "list",
    };
    let name = target.name.as_deref().unwrap_or_default();
    request.caller.check(verb, "events", &target.group, target.namespace.as_deref(), name)?;
    let tenant = target.namespace.as_deref().map(TenantName::new).transpose().map_err(|_| Status::no_such_path())?;
    let fields = parse_fields(&request.query.field_selector).map_err(Status::bad_request)?;
    if let Some(field) = fields.iter().find(|field| value(&field.path, None).is_none()) {
        return Err(Status::bad_request(format!("field label not supported: {}", field.path)));
    }
    let view = View { core: target.group.is_empty(), tenant, fields };
    if let Some(name) = &target.name {
        let (events, _) = api.events().list(view.tenant.as_ref());
        let event = events.iter().find(|event| event.name == *name);
        let event = event
            .ok_or_else(|| Status::new(404, "NotFound", format!("events \"{}\" not found", name.escape_debug())))?;
        return Ok(answer::json(200, &request.accept, &view.event(event)));
    }
    if request.query.watch {
        return watch(api, request, view);
    }
    let (events, revision) = view.list(api);
    Ok(answer::json(200, &request.accept, &view.shown(api, request, &events, revision)))
}

/// Which events a request means, and in which form.
struct View {
    /// `core/v1`, else `events.k8s.io/v1`.
    core: bool,
    tenant: Option<TenantName>,
    fields: Vec<FieldRequirement>,
}

/// The value of a field of an event that a selector may name; of no event: whether there is such a field.
fn value(path: &str, event: Option<&Event>) -> Option<String> {
    let of = |get: fn(&Event) -> &str| Some(event.map(get).unwrap_or_default().to_owned());
    match path {
        "metadata.name" => of(|event| &event.name),
        "metadata.namespace" | "involvedObject.namespace" | "regarding.namespace" => of(|event| event.tenant.as_str()),
        "involvedObject.kind" | "regarding.kind" => of(|event| event.about.kind),
        "involvedObject.name" | "regarding.name" => of(|event| &event.about.name),
        "involvedObject.uid" | "regarding.uid" => of(|event| &event.about.uid),
        "involvedObject.apiVersion" | "regarding.apiVersion" => of(|event| &event.about.api_version),
        "reason" => of(|event| &event.reason),
        "type" => of(|event| event.r#type.as_str()),
        "source" | "reportingComponent" | "reportingController" => Some("lyra".to_owned()),
        _ => None,
    }
}

impl View {
    fn list(&self, api: &ResourceApi) -> (Vec<Event>, u64) {
        let (mut events, revision) = api.events().list(self.tenant.as_ref());
        events.retain(|event| self.meant(event));
        (events, revision)
    }

    fn meant(&self, event: &Event) -> bool {
        self.fields
            .iter()
            .all(|field| (value(&field.path, Some(event)).as_deref() == Some(&*field.value)) == field.equal)
    }

    fn event(&self, event: &Event) -> Value {
        let about = json!({
            "kind": event.about.kind, "namespace": event.tenant, "name": event.about.name, "uid": event.about.uid,
            "apiVersion": event.about.api_version,
        });
        let (first, last) = (Time::from(event.first), Time::from(event.last));
        let metadata = json!({
            "name": event.name, "namespace": event.tenant, "uid": event.uid,
            "resourceVersion": event.revision.to_string(), "creationTimestamp": first,
        });
        let source = json!({"component": "lyra"});
        if self.core {
            return json!({
                "kind": "Event", "apiVersion": "v1", "metadata": metadata, "involvedObject": about,
                "reason": event.reason, "message": event.message, "source": source, "firstTimestamp": first,
                "lastTimestamp": last, "count": event.count, "type": event.r#type.as_str(), "eventTime": null,
                "reportingComponent": "lyra", "reportingInstance": "",
            });
        }
        json!({
            "kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": metadata, "regarding": about,
            "reason": event.reason, "note": event.message, "type": event.r#type.as_str(), "eventTime": null,
            "reportingController": "lyra", "reportingInstance": "", "deprecatedSource": source,
            "deprecatedFirstTimestamp": first, "deprecatedLastTimestamp": last, "deprecatedCount": event.count,
        })
    }

    fn shown(&self, api: &ResourceApi, request: &Request<'_>, events: &[Event], revision: u64) -> Value {
        let meta = json!({"resourceVersion": revision.to_string()});
        if request.accept.form == Form::Table {
            return self.table(api, events, meta, true);
        }
        let items: Vec<Value> = events.iter().map(|event| self.event(event)).collect();
        let api_version = if self.core { "v1" } else { "events.k8s.io/v1" };
        json!({"kind": "EventList", "apiVersion": api_version, "metadata": meta, "items": items})
    }

    fn table(&self, api: &ResourceApi, events: &[Event], meta: Value, with_columns: bool) -> Value {
        let column = |name: &str, description: &str| table::column(name, "string", "", description, 0);
        let columns = vec![
            column("Last Seen", "Time since it was last told."),
            column("Type", "Normal or Warning."),
            column("Reason", "In one word."),
            column("Object", "What it is about."),
            column("Message", "For people."),
        ];
        let now = api.clock.now();
        let rows = events
            .iter()
            .map(|event| {
                let object = format!("{}/{}", event.about.kind.to_ascii_lowercase(), event.about.name);
                json!({
                    "cells": [short(now.since(event.last)), event.r#type.as_str(), event.reason, object, event.message],
                    "object": self.event(event),
                })
            })
            .collect();
        table::table(if with_columns { columns } else { Vec::new() }, rows, meta)
    }
}

/// Shows events as they come. Those that were told again while the client was slow are shown once.
fn watch(api: &ResourceApi, request: &Request<'_>, view: View) -> Result<Response<Body>, Status> {
    let seen = request.query.revision()?.unwrap_or(0);
    let timeout = Duration::from_secs(request.query.timeout_seconds.unwrap_or(TIMEOUT).clamp(1, TIMEOUT * 10));
    let ends = api.clock.instant() + timeout;
    let (recorder, stopping, news) = (api.events().clone(), api.stopping(), api.events().news());
    let (is_table, now) = (request.accept.form == Form::Table, api.clock.clone());
    let state = (recorder, view, seen, news, stopping, true);
    let stream = stream::unfold(state, move |(recorder, view, mut seen, mut news, stopping, mut first)| {
        let now = now.clone();
        async move {
            loop {
                news.borrow_and_update();
                let (events, revision) = recorder.list(view.tenant.as_ref());
                let fresh: Vec<&Event> =
                    events.iter().filter(|event| event.revision > seen && view.meant(event)).collect();
                let mut lines = String::new();
                for event in fresh {
                    let object = if is_table {
                        let row = json!({"cells": [short(now.now().since(event.last)), event.r#type.as_str(), event.reason,
                            format!("{}/{}", event.about.kind.to_ascii_lowercase(), event.about.name), event.message],
                            "object": view.event(event)});
                        let columns = ["Last Seen", "Type", "Reason", "Object", "Message"];
                        let columns = columns.map(|name| table::column(name, "string", "", name, 0)).to_vec();
                        table::table(if first { columns } else { Vec::new() }, vec![row], json!({}))
                    } else {
                        view.event(event)
                    };
                    first = false;
                    let kind = if event.count == 1 { "ADDED" } else { "MODIFIED" };
                    lines.push_str(&format!("{}\n", json!({"type": kind, "object": object})));
                }
                seen = revision;
                if !lines.is_empty() {
                    let frame = Frame::data(bytes::Bytes::from(lines));
                    return Some((Ok::<_, Infallible>(frame), (recorder, view, seen, news, stopping, first)));
                }
                tokio::select! {
                    () = stopping.cancelled() => return None,
                    () = tokio::time::sleep_until(ends) => return None,
                    changed = news.changed() => if changed.is_err() { return None },
                }
            }
        }
    });
    let body = StreamBody::new(stream).boxed_unsync();
    Ok(answer::with(200, "application/json", body))
}
