//! Triggers: what is posted is in one job, whatever is repeated; what can't be is refused with the field at fault. Those that take
//! messages from NATS are tested through the whole program.

use lyra_types::TriggerName;
use lyra_types::trigger::{TriggerPosted, TriggerRequest, TriggerState, TriggerView};
use lyra_wire::control::{JobQuery, PageQuery};
use lyra_wire::hooks::{EventsPosted, HookAnswer, HookRequest, TriggerAsk};
use serde_json::{Value, json};

use super::*;

fn orders() -> TriggerName {
    TriggerName::new("orders").unwrap()
}

fn request(source: Value, batch_size: u32) -> TriggerRequest {
    serde_json::from_value(json!({"function": "f", "source": source, "batch_size": batch_size})).unwrap()
}

async fn ask(site: &Site, ask: TriggerAsk) -> Result<HookAnswer> {
    site.service.hooks(HookRequest::Trigger { tenant: tenant(), ask }).await
}

async fn put(site: &Site, request: TriggerRequest) -> Result<TriggerView> {
    Ok(ask(site, TriggerAsk::Put(orders(), Box::new(request))).await?.trigger()?.0)
}

async fn get(site: &Site) -> Result<TriggerView> {
    Ok(ask(site, TriggerAsk::Get(orders())).await?.trigger()?.0)
}

async fn post(site: &Site, body: Value, key: Option<&str>) -> Result<TriggerPosted> {
    let body = Bytes::from(body.to_string());
    let posted = EventsPosted { body, idempotency_key: key.map(str::to_owned), user: None };
    match ask(site, TriggerAsk::Post(orders(), Box::new(posted))).await? {
        HookAnswer::Posted(posted) => Ok(posted),
        other => panic!("{other:?}"),
    }
}

async fn site(dir: &Path, seed: u64) -> Site {
    let site = Site::start_at(dir, Config::default(), start_of_time(), seed, |jobs| jobs).await;
    if seed == 1 {
        site.deploy("f", |_| ()).await;
    }
    site
}

async fn jobs(site: &Site) -> usize {
    site.service.jobs(&tenant(), JobQuery { limit: 1_000, ..JobQuery::default() }).await.unwrap().items.len()
}

#[tokio::test(start_paused = true)]
async fn posted_events_are_in_jobs_of_the_batches_size() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), 1).await;
    put(&site, request(json!({"kind": "http"}), 2)).await.unwrap();
    let events: Vec<Value> = (0..5).map(|n| json!({"n": n})).collect();
    let posted = post(&site, Value::from(events), None).await.unwrap();
    assert_eq!((posted.accepted, posted.known, posted.filtered, posted.jobs.len()), (5, 0, 0, 3));
    assert_eq!(post(&site, json!([]), None).await.unwrap(), TriggerPosted::default());
    site.worker.clock.sleep(Duration::from_secs(5)).await;
    let mut seen: Vec<Value> = Vec::new();
    for event in site.worker.begun.lock().keys() {
        let event: Value = serde_json::from_slice(event).unwrap();
        assert_eq!((&event["trigger"], &event["source"]), (&json!("orders"), &json!("http")));
        seen.extend(event["records"].as_array().unwrap().iter().map(|record| record["data"]["n"].clone()));
    }
    seen.sort_by_key(Value::as_i64);
    assert_eq!(seen, (0..5).map(Value::from).collect::<Vec<_>>());
    let view = get(&site).await.unwrap();
    assert_eq!(view.state, TriggerState::Active);
    assert_eq!((view.counts.records, view.counts.batches), (5, 3));
    let text = site.metrics.render();
    assert!(text.contains("lyra_trigger_records_total{kind=\"http\"} 5"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_event_with_an_id_is_taken_once_whatever_is_repeated_and_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let first = site(dir.path(), 1).await;
    put(&first, request(json!({"kind": "http", "id_field": "id"}), 1)).await.unwrap();
    let one = post(&first, json!([{"id": 7, "a": 1}, {"id": "x"}]), None).await.unwrap();
    assert_eq!((one.accepted, one.known), (2, 0));
    first.service.stop().await;
    let next = site(dir.path(), 2).await;
    let two = post(&next, json!([{"id": "x"}, {"id": 7, "a": 1}, {"id": 8}]), None).await.unwrap();
    assert_eq!((two.accepted, two.known), (3, 2));
    assert_eq!((two.jobs[0], two.jobs[1]), (one.jobs[1], one.jobs[0]));
    // What says that it is the same, though it is not, was there as well.
    let three = post(&next, json!({"id": 7, "a": 2}), None).await.unwrap();
    assert_eq!((three.accepted, three.known, three.jobs.len()), (1, 1, 0));
    assert_eq!(jobs(&next).await, 3);
    let error = post(&next, json!([{"id": 1}, {"a": 1}]), None).await.unwrap_err();
    assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, "[1].id"));
    // Another trigger of this name takes them anew.
    ask(&next, TriggerAsk::Delete(orders())).await.unwrap();
    put(&next, request(json!({"kind": "http", "id_field": "id"}), 1)).await.unwrap();
    assert_eq!(post(&next, json!({"id": 8}), None).await.unwrap().known, 0);
}

#[tokio::test(start_paused = true)]
async fn a_post_with_a_key_is_taken_once_and_the_key_is_for_that_post_alone() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), 1).await;
    put(&site, request(json!({"kind": "http"}), 2)).await.unwrap();
    let body = json!([{"a": 1}, {"a": 2}, {"a": 3}]);
    let one = post(&site, body.clone(), Some("k")).await.unwrap();
    let two = post(&site, body, Some("k")).await.unwrap();
    assert_eq!((two.known, &two.jobs), (3, &one.jobs));
    let error = post(&site, json!([{"a": 9}, {"a": 2}]), Some("k")).await.unwrap_err();
    assert_eq!(error.code, Code::IdempotencyMismatch);
    assert_eq!(jobs(&site).await, 2);
}

#[tokio::test(start_paused = true)]
async fn of_notifications_of_s3_those_are_taken_that_the_filter_wants() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), 1).await;
    put(&site, request(json!({"kind": "s3", "events": ["s3:ObjectCreated:*"], "suffix": ".jpg"}), 10)).await.unwrap();
    let record = |event: &str, key: &str| {
        let object = json!({"key": key, "size": 1, "eTag": "e"});
        json!({"eventName": event, "s3": {"bucket": {"name": "b"}, "object": object}})
    };
    let records = [
        record("s3:ObjectCreated:Put", "a.jpg"),
        record("s3:ObjectCreated:Put", "a.png"),
        record("s3:ObjectRemoved:Delete", "b.jpg"),
    ];
    let body = json!({"EventName": "s3:ObjectCreated:Put", "Key": "b/a.jpg", "Records": records});
    let posted = post(&site, body.clone(), None).await.unwrap();
    assert_eq!((posted.accepted, posted.filtered, posted.jobs.len()), (1, 2, 1));
    assert_eq!(post(&site, body, None).await.unwrap().known, 1, "stores send again what was not answered");
    let error = post(&site, json!({"a": 1}), None).await.unwrap_err();
    assert_eq!(error.errors[0].field, "Records");
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_takes_no_posts_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), 1).await;
    assert_eq!(post(&site, json!({}), None).await.unwrap_err().code, Code::NotFound);
    put(&site, request(json!({"kind": "http"}), 1)).await.unwrap();
    ask(&site, TriggerAsk::Pause(orders(), true)).await.unwrap();
    assert_eq!(get(&site).await.unwrap().state, TriggerState::Paused);
    assert_eq!(post(&site, json!({}), None).await.unwrap_err().code, Code::Conflict);
    ask(&site, TriggerAsk::Pause(orders(), false)).await.unwrap();
    assert_eq!(post(&site, json!({}), None).await.unwrap().accepted, 1);
    site.service.delete_function(&tenant(), &name("f")).await.unwrap();
    let error = post(&site, json!({}), None).await.unwrap_err();
    assert!(error.code == Code::NotFound && error.detail.contains("function"), "{error}");
    ask(&site, TriggerAsk::Delete(orders())).await.unwrap();
    assert_eq!(get(&site).await.unwrap_err().code, Code::NotFound);
    assert_eq!(ask(&site, TriggerAsk::Delete(orders())).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_of_a_trigger_that_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), 1).await;
    let nats = |url: &str| json!({"kind": "nats", "url": url, "subject": "s"});
    let http = request(json!({"kind": "http"}), 1);
    for (change, field) in [
        (TriggerRequest { function: "none".to_owned(), ..http.clone() }, "function"),
        (TriggerRequest { batch_size: 0, ..http }, "batch_size"),
        (request(nats("nats://127.0.0.1:4222"), 1), "source.url"),
        (request(nats("nats://user:word@example.org"), 1), "source.url"),
        (request(json!({"kind": "s3", "nats": {"url": "nats://10.0.0.1", "subject": "s"}}), 1), "source.url"),
    ] {
        let error = put(&site, change).await.unwrap_err();
        assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, field));
    }
    let HookAnswer::Triggers(page) = ask(&site, TriggerAsk::List(PageQuery::default())).await.unwrap() else {
        panic!("no list")
    };
    assert!(page.items.is_empty());
}
