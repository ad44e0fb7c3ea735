//! Runs of workflows as OpenTelemetry spans, in the JSON encoding of OTLP 1.x (an `ExportTraceServiceRequest`).
//!
//! A run is a span, each function task one within it, each of its tries one within that; a try that follows another one is
//! linked to it. Ids are made of the names of what they stand for, so that the same run gives the same spans whoever
//! makes them, and a call that was made in a try can name it as its parent before it has ended.
//!
//! What has not ended has no span yet. Helpers (conditions, loops) take no time of their own, and have none.

use std::collections::HashMap;

use lyra_types::workflow::{Cause, Run, RunStatus, TraceToken};
use lyra_types::{RunId, TenantName, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_CLIENT`.
const INTERNAL: u8 = 1;
const CLIENT: u8 = 3;
/// `STATUS_CODE_OK` and `STATUS_CODE_ERROR`.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// The ids of one run's spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceIds {
    /// 32 hex digits.
    trace: String,
    /// Of the span of whoever started the run, if they said.
    parent: Option<String>,
    run: String,
}

/// A W3C trace context (`traceparent`, version 00): the ids of trace and parent, where it is one.
pub fn parse_traceparent(text: &str) -> Option<(String, String)> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let right = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hex(trace, 32)
        && is_hex(span, 16)
        && is_hex(flags, 2)
        && !is_zero(trace)
        && !is_zero(span);
    right.then(|| (trace.to_owned(), span.to_owned()))
}

fn hash(parts: &[&str], bytes: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..bytes])
}

impl TraceIds {
    /// Those of a run, in the trace of whoever started it, if they said which.
    pub fn new(tenant: &TenantName, run: &RunId, traceparent: Option<&str>) -> TraceIds {
        let (trace, parent) = match traceparent.and_then(parse_traceparent) {
            Some((trace, parent)) => (trace, Some(parent)),
            None => (hash(&["lyra run", tenant.as_str(), run.as_str()], 16), None),
        };
        let span = hash(&["run", &trace, tenant.as_str(), run.as_str()], 8);
        TraceIds { trace, parent, run: span }
    }

    fn task(&self, place: &str) -> String {
        hash(&["task", &self.run, place], 8)
    }

    fn attempt(&self, place: &str, attempt: u32) -> String {
        hash(&["attempt", &self.run, place, &attempt.to_string()], 8)
    }

    /// The trace context of what is called in a try of a task; `place` as in `resize[3]`.
    pub fn traceparent(&self, place: &str, attempt: u32) -> String {
        format!("00-{}-{}-01", self.trace, self.attempt(place, attempt))
    }
}

/// One function task, as its tokens tell it.
#[derive(Default)]
struct Told<'t> {
    place: String,
    scheduled: Option<Timestamp>,
    tries: Vec<Try<'t>>,
}

struct Try<'t> {
    number: u32,
    begun: Timestamp,
    resources: &'t [String],
    ended: Option<Ended<'t>>,
}

struct Ended<'t> {
    at: Timestamp,
    resource: Option<&'t str>,
    failed: Option<Option<&'t Cause>>,
}

/// The task's name with its place.
fn place(token: &TraceToken) -> String {
    if token.path.is_empty() {
        return token.node.clone();
    }
    let path: Vec<String> = token.path.iter().map(u32::to_string).collect();
    format!("{}[{}]", token.node, path.join(","))
}

fn tasks(tokens: &[TraceToken]) -> Vec<Told<'_>> {
    let mut known: HashMap<(&str, &[u32]), usize> = HashMap::new();
    let mut tasks: Vec<Told<'_>> = Vec::new();
    for token in tokens {
        if !matches!(token.step.as_str(), "S" | "E" | "X" | "R") {
            continue;
        }
        let index = *known.entry((&token.node, &token.path)).or_insert_with(|| {
            tasks.push(Told { place: place(token), ..Told::default() });
            tasks.len() - 1
        });
        let task = &mut tasks[index];
        match (token.step.as_str(), token.attempt) {
            ("S", _) => drop(task.scheduled.get_or_insert(token.time)),
            ("E", Some(number)) => {
                task.tries.push(Try { number, begun: token.time, resources: &token.resources, ended: None });
            }
            (step, Some(number)) => {
                if let Some(made) = task.tries.iter_mut().rev().find(|made| made.number == number) {
                    let failed = (step == "R").then_some(token.cause.as_ref());
                    let resource = token.resources.first().map(String::as_str);
                    made.ended = Some(Ended { at: token.time, resource, failed });
                }
            }
            _ => {}
        }
    }
    tasks.retain(|task| !task.tries.is_empty());
    tasks
}

/// The spans of a run, of its tokens from the first on.
pub fn spans(run: &Run, tokens: &[TraceToken]) -> Value {
    let ids = TraceIds::new(&run.tenant, &run.id, run.traceparent.as_deref());
    let mut spans = Vec::new();
    if let Some(ended) = run.ended_at {
        let mut attributes = vec![
            text("lyra.tenant", run.tenant.as_str()),
            text("lyra.run.id", run.id.as_str()),
            text("lyra.workflow.name", run.workflow.as_str()),
            number("lyra.workflow.version", run.version),
            text("lyra.run.status", run.status.as_str()),
        ];
        if let Some(parent) = &run.parent {
            attributes.push(text("lyra.parent.run.id", parent.run.as_str()));
            attributes.push(text("lyra.parent.task", &parent.task));
        }
        let status = match (run.status, &run.error) {
            (RunStatus::Succeeded, _) => json!({"code": OK}),
            (_, Some(error)) => failed(&error.cause),
            _ => json!({"code": ERROR, "message": run.status.as_str()}),
        };
        let name = format!("run {}", run.workflow);
        let mut span = span(&ids, &ids.run, ids.parent.as_deref(), (&name, INTERNAL), (run.created_at, ended));
        span["attributes"] = attributes.into();
        span["status"] = status;
        spans.push(span);
    }
    for task in &tasks(tokens) {
        task_spans(&ids, run, task, &mut spans);
    }
    let resource = json!({"attributes": [text("service.name", "lyra")]});
    let scope = json!({"name": "lyra.workflow", "version": env!("CARGO_PKG_VERSION")});
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

fn task_spans(ids: &TraceIds, run: &Run, task: &Told<'_>, spans: &mut Vec<Value>) {
    let id = ids.task(&task.place);
    let begun = task.scheduled.or_else(|| task.tries.first().map(|first| first.begun)).unwrap_or(run.created_at);
    // It has ended with its last try, unless another one is to come.
    let last = task.tries.last().and_then(|last| last.ended.as_ref());
    if let Some(last) = last.filter(|last| last.failed.is_none() || run.ended_at.is_some()) {
        let mut span = span(ids, &id, Some(&ids.run), (&format!("task {}", task.place), INTERNAL), (begun, last.at));
        span["attributes"] = vec![
            text("lyra.task", &task.place),
            number("lyra.task.attempts", task.tries.last().map_or(0, |last| u64::from(last.number))),
        ]
        .into();
        span["status"] = status(last);
        spans.push(span);
    }
    for (index, made) in task.tries.iter().enumerate() {
        let Some(ended) = &made.ended else { continue };
        let own = ids.attempt(&task.place, made.number);
        let name = format!("call {}", task.place);
        let mut span = span(ids, &own, Some(&id), (&name, CLIENT), (made.begun, ended.at));
        let mut attributes = vec![text("lyra.task", &task.place), number("lyra.task.attempt", u64::from(made.number))];
        let resource = ended.resource.or_else(|| made.resources.first().map(String::as_str));
        attributes.extend(resource.map(|resource| text("lyra.resource", resource)));
        if let Some(Some(cause)) = ended.failed {
            attributes.push(text("error.type", &cause.code));
        }
        span["attributes"] = attributes.into();
        span["status"] = status(ended);
        if let Some(before) = index.checked_sub(1).and_then(|before| task.tries.get(before)) {
            let before = ids.attempt(&task.place, before.number);
            let why = [text("lyra.link", "retry of")];
            span["links"] = json!([{"traceId": ids.trace, "spanId": before, "attributes": why}]);
        }
        spans.push(span);
    }
}

fn span(
    ids: &TraceIds,
    id: &str,
    parent: Option<&str>,
    (name, kind): (&str, u8),
    (begun, ended): (Timestamp, Timestamp),
) -> Value {
    let mut span = json!({
        "traceId": ids.trace,
        "spanId": id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": nanos(begun),
        "endTimeUnixNano": nanos(ended.max(begun)),
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = parent.into();
    }
    span
}

fn status(ended: &Ended<'_>) -> Value {
    match ended.failed {
        None => json!({"code": OK}),
        Some(Some(cause)) => failed(cause),
        Some(None) => json!({"code": ERROR}),
    }
}

fn failed(cause: &Cause) -> Value {
    json!({"code": ERROR, "message": format!("{}: {}", cause.code, cause.message)})
}

/// 64-bit numbers are decimal text in the protocol's JSON.
fn nanos(at: Timestamp) -> String {
    (i128::from(at.millis().max(0)) * 1_000_000).to_string()
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

#[cfg(test)]
mod tests {
    use lyra_types::WorkflowName;
    use lyra_types::workflow::TaskCounts;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn token(seq: u64, step: &str, attempt: Option<u32>) -> TraceToken {
        let cause = (step == "R").then(|| Cause {
            code: "http_503".to_owned(),
            message: "busy".to_owned(),
            name: None,
            resource: None,
        });
        TraceToken {
            seq,
            step: step.to_owned(),
            node: "resize".to_owned(),
            path: vec![3],
            time: Timestamp::from_millis(1_000 + seq as i64),
            attempt,
            resources: vec!["http://a".to_owned()],
            cause,
        }
    }

    fn run() -> Run {
        Run {
            id: RunId::new("mine").unwrap(),
            tenant: TenantName::default_tenant(),
            workflow: WorkflowName::new("thumbs").unwrap(),
            version: 2,
            status: RunStatus::Succeeded,
            created_at: Timestamp::from_millis(1_000),
            ended_at: Some(Timestamp::from_millis(2_000)),
            output: None,
            error: None,
            tasks: TaskCounts::default(),
            parent: None,
            schedule: None,
            traceparent: Some(PARENT.to_owned()),
            stuck: None,
        }
    }

    #[test]
    fn a_run_is_a_tree_of_spans_in_the_trace_of_its_starter() {
        let tokens = [
            token(0, "S", None),
            token(1, "E", Some(1)),
            token(2, "R", Some(1)),
            token(3, "S", None),
            token(4, "E", Some(2)),
            token(5, "X", Some(2)),
            TraceToken { node: "w/if".to_owned(), ..token(6, "E", None) },
        ];
        let made = spans(&run(), &tokens);
        assert_eq!(made, spans(&run(), &tokens), "ids are the same each time");
        let spans = made["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 4, "run, task, and two tries: {made:#}");
        let [whole, task, first, second] = &spans[..] else { panic!("four") };
        assert_eq!(whole["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(whole["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(
            (&whole["startTimeUnixNano"], &whole["endTimeUnixNano"]),
            (&json!("1000000000"), &json!("2000000000"))
        );
        assert_eq!((&task["parentSpanId"], &task["name"]), (&whole["spanId"], &json!("task resize[3]")));
        assert_eq!((&first["parentSpanId"], &second["parentSpanId"]), (&task["spanId"], &task["spanId"]));
        assert_eq!((&first["status"]["code"], &second["status"]["code"]), (&json!(ERROR), &json!(OK)));
        assert_eq!(second["links"][0]["spanId"], first["spanId"]);
        let ids = TraceIds::new(&run().tenant, &run().id, Some(PARENT));
        let header = ids.traceparent("resize[3]", 2);
        let (trace, span) = parse_traceparent(&header).unwrap();
        assert_eq!((json!(trace), json!(span)), (second["traceId"].clone(), second["spanId"].clone()));
    }

    #[test]
    fn what_has_not_ended_has_no_span_yet() {
        let run = Run { ended_at: None, status: RunStatus::Running, ..run() };
        let made =
            spans(&run, &[token(0, "S", None), token(1, "E", Some(1)), token(2, "R", Some(1)), token(3, "E", Some(2))]);
        let spans = made["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 1, "the try that failed: {made:#}");
    }

    #[test]
    fn only_what_is_a_trace_context_is_taken_for_one() {
        assert!(parse_traceparent(PARENT).is_some());
        assert!(parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse_traceparent(bad), None, "{bad}");
        }
        let own = TraceIds::new(&run().tenant, &run().id, Some("nonsense"));
        assert_eq!(own, TraceIds::new(&run().tenant, &run().id, None));
    }
}
