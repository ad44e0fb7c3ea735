//! Watches: a list's changes as they come, a JSON object a line.
//!
//! A watch that names a revision shows every change after it, or ends with 410 when they are not kept any more; one that names
//! none begins with all objects. It has no queue: it reads the cache's ring at the speed of the client, and is cut off when it
//! falls out of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_kit::Clock;
use lyra_types::TenantName;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{self, Body, partial};
use super::content::Form;
use super::query::{Include, Query};
use super::{Request, table};
use crate::cache::{Cache, Change, News, Place, Stored};
use crate::kind::Kind;
use crate::selector::Selector;
use crate::{Cause, ResourceApi, Status};

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(30);
/// How long a watch goes on when the client does not say (and a little more, so that not all end together).
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Longest watch.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Waits until the cache has seen a revision that the client knows.
///
/// # Errors
/// 504 as Kubernetes has it where there is no such revision yet.
pub(super) async fn catch_up<K: Kind>(api: &ResourceApi, revision: u64) -> Result<(), Status> {
    let cache = api.kind::<K>().cache();
    if cache.wait(revision).await {
        return Ok(());
    }
    let current = cache.revision();
    let mut status = Status::new(504, "Timeout", format!("Too large resource version: {revision}, current: {current}"));
    status.details.retry_after_seconds = 1;
    status.details.causes = vec![Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".to_owned(),
        field: String::new(),
    }];
    Err(status)
}

/// Where a watch begins.
struct Start<K> {
    place: Place,
    /// Objects to show first.
    initial: Vec<Arc<Stored<K>>>,
    /// Whether their end is to be marked.
    mark_end: bool,
}

async fn start<K: Kind>(
    api: &ResourceApi,
    query: &Query,
    tenant: Option<&TenantName>,
) -> Result<Result<Start<K>, Status>, Status> {
    let resources = api.kind::<K>();
    let cache = resources.cache();
    let revision = query.revision()?;
    if query.send_initial_events.is_some() && query.resource_version_match != "NotOlderThan" {
        return Err(Status::bad_request(
            "sendInitialEvents: resourceVersionMatch must be NotOlderThan when sendInitialEvents is set",
        ));
    }
    match revision {
        None => resources.refresh().await?,
        Some(revision) => catch_up::<K>(api, revision).await?,
    }
    let initial = match query.send_initial_events {
        Some(initial) => initial,
        None => revision.is_none_or(|revision| revision == 0),
    };
    if initial {
        let (initial, place) = cache.snapshot(tenant);
        return Ok(Ok(Start { place, initial, mark_end: query.send_initial_events == Some(true) }));
    }
    let place = match revision {
        None | Some(0) => Ok(cache.snapshot(tenant).1),
        Some(revision) => cache.place_after(revision),
    };
    // As Kubernetes does it: the watch begins, and its first event says that it can't.
    Ok(place.map(|place| Start { place, initial: Vec::new(), mark_end: false }).map_err(|_| too_old(revision)))
}

fn too_old(revision: Option<u64>) -> Status {
    Status::expired(format!("too old resource version: {}", revision.unwrap_or_default()))
}

/// Answers a request to watch.
pub(super) async fn answer<K: Kind>(
    api: &Arc<ResourceApi>,
    request: &Request<'_>,
    tenant: Option<TenantName>,
    name: Option<&str>,
) -> Result<Response<Body>, Status> {
    let query = &request.query;
    let mut fields = query.field_selector.clone();
    if let Some(name) = name {
        let comma = if fields.is_empty() { "" } else { "," };
        fields = format!("{fields}{comma}metadata.name={name}");
    }
    let selector = Selector::parse::<K>(&query.label_selector, &fields).map_err(Status::bad_request)?;
    let cache = api.kind::<K>().cache().clone();
    let news = cache.news();
    let timeout = match query.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(MAX_TIMEOUT),
        _ => TIMEOUT + Duration::from_secs(cache.revision() % 600),
    };
    let mut writer = Writer {
        form: request.accept.form,
        include: query.include,
        columns_told: false,
        clock: api.clock.clone(),
        lines: VecDeque::new(),
    };
    let (place, failed) = match start::<K>(api, query, tenant.as_ref()).await? {
        Ok(start) => {
            for object in start.initial.iter().filter(|object| selector.matches(object.object())) {
                writer.event("ADDED", object);
            }
            if start.mark_end {
                writer.bookmark::<K>(start.place, true);
            }
            (start.place, false)
        }
        Err(status) => {
            writer.error(&status);
            (cache.snapshot(tenant.as_ref()).1, true)
        }
    };
    let now = api.clock.instant();
    let watch = Watch {
        cache,
        news,
        place,
        told: place.revision,
        tenant,
        selector,
        writer,
        ends: now + timeout,
        bookmark: query.allow_watch_bookmarks.then(|| now + BOOKMARK),
        ended: failed,
        stopping: api.stopping(),
    };
    let stream = stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), watch))
    });
    let mut response = answer::with(200, "application/json", StreamBody::new(stream).boxed_unsync());
    if request.accept.form == Form::Table {
        let media = http::HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
        response.headers_mut().insert(http::header::CONTENT_TYPE, media);
    }
    Ok(response)
}

/// One watch of one client.
struct Watch<K> {
    cache: Arc<Cache<K>>,
    news: News,
    place: Place,
    /// The newest revision that the client was told.
    told: u64,
    tenant: Option<TenantName>,
    selector: Selector,
    writer: Writer,
    ends: Instant,
    bookmark: Option<Instant>,
    ended: bool,
    stopping: tokio_util::sync::CancellationToken,
}

/// Why a watch goes on.
enum Wake {
    Changed,
    Bookmark,
    Over,
}

impl<K: Kind> Watch<K> {
    /// The next lines, once there are any; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(lines) = self.writer.take() {
                return Some(lines);
            }
            if self.ended {
                return None;
            }
            match self.wait().await {
                Wake::Changed => self.changes(),
                Wake::Bookmark => {
                    self.bookmark = self.bookmark.map(|at| at + BOOKMARK);
                    // What was passed over counts too: that is what a bookmark is for.
                    if self.cache.changes(&mut self.place.clone()).is_ok_and(|changes| changes.is_empty()) {
                        let _ = self.cache.changes(&mut self.place);
                        if self.place.revision > self.told {
                            self.told = self.place.revision;
                            self.writer.bookmark::<K>(self.place, false);
                        }
                    }
                }
                Wake::Over => self.ended = true,
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let bookmark = self.bookmark.unwrap_or(self.ends);
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Wake::Over,
            () = tokio::time::sleep_until(self.ends) => Wake::Over,
            there = self.news.after(self.place) => if there { Wake::Changed } else { Wake::Over },
            () = tokio::time::sleep_until(bookmark) => Wake::Bookmark,
        }
    }

    fn changes(&mut self) {
        let changes = match self.cache.changes(&mut self.place) {
            Ok(changes) => changes,
            Err(_) => {
                self.ended = true;
                return self.writer.error(&too_old(Some(self.told)));
            }
        };
        for change in changes {
            if let Some(kind) = self.view(&change) {
                self.told = change.revision;
                self.writer.event(kind, &change.object);
            }
        }
    }

    /// What a change is to somebody who sees only a part of the objects.
    fn view(&self, change: &Change<K>) -> Option<&'static str> {
        let seen = |object: &Stored<K>| {
            self.tenant.as_ref().is_none_or(|tenant| tenant.as_str() == object.meta().namespace)
                && self.selector.matches(object.object())
        };
        let before = change.before.as_ref().is_some_and(|before| seen(before));
        let now = !change.deleted && seen(&change.object);
        match (before, now) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }
}

/// Writes events in the form that was asked for.
struct Writer {
    form: Form,
    include: Include,
    columns_told: bool,
    clock: Clock,
    lines: VecDeque<Bytes>,
}

impl Writer {
    fn line(&mut self, kind: &str, object: &[u8]) {
        let mut line = Vec::with_capacity(object.len() + 40);
        line.extend_from_slice(br#"{"type":""#);
        line.extend_from_slice(kind.as_bytes());
        line.extend_from_slice(br#"","object":"#);
        line.extend_from_slice(object);
        line.extend_from_slice(b"}\n");
        self.lines.push_back(line.into());
    }

    fn event<K: Kind>(&mut self, kind: &str, object: &Stored<K>) {
        match self.form {
            Form::Objects => self.line(kind, object.json()),
            Form::Metadata => self.line(kind, partial(object.object()).to_string().as_bytes()),
            Form::Table => {
                let meta = json!({"resourceVersion": object.meta().resource_version});
                let columns = !std::mem::replace(&mut self.columns_told, true);
                let table = table::of(&[object], self.include, columns, meta, self.clock.now());
                self.line(kind, table.to_string().as_bytes());
            }
        }
    }

    fn bookmark<K: Kind>(&mut self, place: Place, initial_events_end: bool) {
        let mut meta = json!({"resourceVersion": place.revision.to_string()});
        if initial_events_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object: Value = match self.form {
            Form::Objects => {
                let api_version = format!("{}/{}", K::NAMES.group, K::NAMES.version);
                json!({"kind": K::NAMES.kind, "apiVersion": api_version, "metadata": meta, "spec": {}})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            Form::Table => {
                let row = json!({"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
                }});
                table::table(Vec::new(), vec![row], meta.clone())
            }
        };
        self.line("BOOKMARK", object.to_string().as_bytes());
    }

    fn error(&mut self, status: &Status) {
        self.line("ERROR", status.to_json().to_string().as_bytes());
    }

    /// The lines that were written so far.
    fn take(&mut self) -> Option<Bytes> {
        match self.lines.len() {
            0 => None,
            1 => self.lines.pop_front(),
            _ => Some(self.lines.drain(..).flatten().collect()),
        }
    }
}
