//! Deliveries: each end has one, however often it has to be tried and whoever dies. On real time, with a real receiver.

use lyra_store::Jobs as _;
use lyra_store::jobs::{LeaseRequest, Outcome};
use lyra_store::objects::{Change, Txn};
use lyra_types::InvocationId;
use lyra_types::WorkflowName;
use lyra_types::delivery::{DeliveryStatus, DeliveryView, DestinationsRequest, DestinationsView};
use lyra_types::job::{Job, JobStatus};
use lyra_types::workflow::{Run, RunStatus};
use lyra_wire::control::JobQuery;
use lyra_wire::hooks::{DeliveryAsk, DeliveryQuery, HookAnswer, HookRequest, RunEnds as _, ThroughControl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::SecretsConfig;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const LONG: Duration = Duration::from_secs(60);

/// A request that was received.
struct Got {
    head: String,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

/// Listens, and answers with these statuses in turn, the last of them for ever.
async fn receiver(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<Got>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    let serve = async move {
        let mut number = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let (head, length) = loop {
                if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                    return;
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                break (head.to_owned(), length.unwrap().parse::<usize>().unwrap());
            };
            while bytes.len() < head.len() + 4 + length {
                stream.read_buf(&mut bytes).await.unwrap();
            }
            let body = Bytes::copy_from_slice(&bytes[head.len() + 4..]);
            let status = statuses[number.min(statuses.len() - 1)];
            number += 1;
            let rest = "content-length: 5\r\nretry-after: 99999\r\nconnection: close";
            let answer = format!("HTTP/1.1 {status} X\r\n{rest}\r\n\r\nthank");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = tell.send(Got { head, body });
        }
    };
    lyra_kit::tasks::spawn("receiver", serve);
    (url, told)
}

fn config() -> Config {
    let mut config = Config::default();
    config.webhooks.allow = vec!["127.0.0.0/8".parse().unwrap()];
    config.webhooks.retry.first = Duration::from_millis(2);
    config.webhooks.retry.max = Duration::from_millis(20);
    config
}

/// With a key to seal secrets with.
fn keyed(dir: &Path, mut config: Config) -> Config {
    config.secrets = SecretsConfig { key_file: Some(dir.join("secrets.key")), make_key: true };
    config
}

async fn site(config: Config) -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), keyed(dir.path(), config)).await;
    site.deploy("f", |request| request.max_attempts = Some(1)).await;
    site.deploy("g", |request| request.max_attempts = Some(1)).await;
    (dir, site)
}

async fn ask(site: &Site, ask: DeliveryAsk) -> Result<HookAnswer> {
    site.service.hooks(HookRequest::Delivery { tenant: tenant(), ask }).await
}

async fn put(site: &Site, function: &str, request: serde_json::Value) -> Result<DestinationsView> {
    let request: DestinationsRequest = serde_json::from_value(request).unwrap();
    match ask(site, DeliveryAsk::PutDestinations(name(function), Box::new(request))).await? {
        HookAnswer::Destinations(view) => Ok(*view),
        other => panic!("{other:?}"),
    }
}

async fn list(site: &Site, query: DeliveryQuery) -> Vec<DeliveryView> {
    match ask(site, DeliveryAsk::List(query)).await.unwrap() {
        HookAnswer::Deliveries(page) => page.items,
        other => panic!("{other:?}"),
    }
}

/// Waits until the only delivery with this status is there, and gives it.
async fn the_one(site: &Site, status: DeliveryStatus) -> DeliveryView {
    let wait = async {
        loop {
            let query = DeliveryQuery { status: Some(status), ..DeliveryQuery::default() };
            if let [one] = &list(site, query).await[..] {
                return one.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("there is one delivery of that status")
}

async fn ended(site: &Site, function: &str, event: &str) -> Job {
    let id = site.submit(function, event).await;
    site.service.job(&tenant(), id, LONG).await.unwrap().job
}

async fn got(told: &mut mpsc::UnboundedReceiver<Got>) -> Got {
    tokio::time::timeout(LONG, told.recv()).await.expect("a call comes").unwrap()
}

#[tokio::test]
async fn an_end_is_told_under_one_id_and_signature_until_it_is_taken() {
    let (url, mut told) = receiver(&[500, 302, 204]).await;
    let (_dir, site) = site(config()).await;
    let to = serde_json::json!({"url": url, "secret": SECRET});
    put(&site, "f", serde_json::json!({"on_success": to})).await.unwrap();
    assert_eq!(ended(&site, "f", "throw").await.status, JobStatus::Failed);
    let job = ended(&site, "f", "ok").await;
    let calls = [got(&mut told).await, got(&mut told).await, got(&mut told).await];
    let delivery = the_one(&site, DeliveryStatus::Delivered).await;
    for call in &calls {
        assert_eq!((call.header("webhook-id"), &call.body), (&*delivery.id, &calls[0].body));
        let seconds: i64 = call.header("webhook-timestamp").parse().unwrap();
        assert!((seconds - start_of_time().millis() / 1_000).abs() < 600);
        assert!(call.header("webhook-signature").starts_with("v1,"));
        assert_eq!(call.header("content-type"), "application/json");
    }
    let body: serde_json::Value = serde_json::from_slice(&calls[0].body).unwrap();
    assert_eq!((&body["type"], &body["id"]), (&"job.succeeded".into(), &delivery.id.clone().into()));
    assert_eq!(body["data"]["job"]["id"], job.id.to_string());
    assert_eq!(body["data"]["result"], "done");
    let statuses: Vec<_> = delivery.log.iter().map(|one| one.http_status).collect();
    assert_eq!((statuses, delivery.attempts), (vec![Some(204), Some(302), Some(500)], 3));
    assert_eq!(delivery.log[2].answer.as_deref(), Some("thank"));
    assert_eq!((delivery.job, delivery.to.secret), (Some(job.id), None));
    assert!(told.try_recv().is_err(), "the job that failed is told to nobody");
    assert!(site.metrics.render().contains("lyra_deliveries_total{status=\"delivered\"} 1"));
}

#[tokio::test]
async fn an_end_that_a_killed_process_did_not_pass_on_is_told_by_the_next() {
    let (url, mut told) = receiver(&[200]).await;
    let mut settings = config();
    // Nothing is run here: jobs wait.
    settings.jobs.max_in_flight = 0;
    let (dir, first) = site(settings).await;
    let to = serde_json::json!({"url": url, "secret": SECRET});
    put(&first, "f", serde_json::json!({"on_success": to, "on_failure": to})).await.unwrap();
    let id = first.submit("f", "ok").await;
    first.service.stop().await;
    // Another process ended it, and died at that moment.
    let now = start_of_time() + 10 * LONG;
    let request = LeaseRequest {
        rooms: Vec::new(),
        owner: 7,
        now,
        ttl: LONG,
        invocations: vec![InvocationId::from_parts(1, 1)],
        max_bytes: 1_000,
        per_function: 10,
        running: HashMap::new(),
        after: None,
    };
    let leased = first.jobs.lease(request).await.unwrap().jobs.remove(0);
    assert_eq!(leased.job.id, id);
    let end = Outcome::Succeeded(Bytes::from_static(b"\"late\""));
    first.jobs.finish(leased.lease(), now, end).await.unwrap();
    assert_eq!(first.jobs.owed(10).await.unwrap().len(), 1);
    drop(first);
    let settings = || keyed(dir.path(), config());
    let second = Site::start_at(dir.path(), settings(), now + LONG, 2, |jobs| jobs).await;
    let call = got(&mut told).await;
    let delivery = the_one(&second, DeliveryStatus::Delivered).await;
    assert_eq!(call.header("webhook-id"), delivery.id);
    // It may have been taken before its job was marked.
    let marked = async {
        while !second.jobs.owed(10).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, marked).await.expect("the end is passed on");
    second.service.stop().await;
    // Whoever takes over once more tells it to nobody again.
    let third = Site::start_at(dir.path(), settings(), now + 2 * LONG, 3, |jobs| jobs).await;
    ended(&third, "f", "throw").await;
    assert_ne!(got(&mut told).await.header("webhook-id"), delivery.id);
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_in_every_form() {
    let mut settings = config();
    settings.webhooks.allow.clear();
    settings.webhooks.max_attempts = 2;
    let (_dir, site) = site(settings).await;
    for url in ["http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://10.0.0.1/"]
    {
        let error = put(&site, "f", serde_json::json!({"on_success": {"url": url}})).await.unwrap_err();
        assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, "on_success.url"), "{url}");
    }
    for url in ["ftp://example.org/", "nonsense", "https://ada:secret@example.org/"] {
        let error = put(&site, "f", serde_json::json!({"on_success": {"url": url}})).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidField, "{url}");
    }
    // A name is looked at when it is called.
    let view = put(&site, "f", serde_json::json!({"on_success": {"url": "http://localhost:9/"}})).await.unwrap();
    assert!(view.on_success.unwrap().secret.unwrap().reveal().starts_with("whsec_"), "it is shown this once");
    ended(&site, "f", "ok").await;
    let failed = the_one(&site, DeliveryStatus::Failed).await;
    assert_eq!(failed.attempts, 2);
    assert!(failed.log[0].error.as_ref().unwrap().contains("not public"), "{failed:?}");
    let HookAnswer::Destinations(view) = ask(&site, DeliveryAsk::Destinations(name("f"))).await.unwrap() else {
        panic!("no destinations")
    };
    assert_eq!(view.on_success.unwrap().secret, None);
    let again = ask(&site, DeliveryAsk::Redeliver(failed.id.clone())).await.unwrap();
    assert!(matches!(again, HookAnswer::Delivery(view) if view.id == failed.id && view.attempts == 0));
    let failed = the_one(&site, DeliveryStatus::Failed).await;
    assert_eq!(failed.log.len(), 4, "what was tried before is still shown");
}

#[tokio::test]
async fn a_function_hears_of_an_end_and_functions_that_hear_of_each_other_come_to_an_end() {
    let (_dir, site) = site(config()).await;
    put(&site, "f", serde_json::json!({"on_failure": {"function": "g@live"}})).await.unwrap();
    // The event of g is the message, which this worker can't act on: it fails, and f hears of that, and so on.
    put(&site, "g", serde_json::json!({"on_failure": {"function": "f"}})).await.unwrap();
    let job = ended(&site, "f", "throw").await;
    let wait = async {
        loop {
            let query = JobQuery { limit: 100, ..JobQuery::default() };
            let jobs = site.service.jobs(&tenant(), query).await.unwrap().items;
            if jobs.len() == 10 && jobs.iter().all(|job| job.status.is_final()) {
                return jobs;
            }
            tokio::task::yield_now().await;
        }
    };
    let jobs = tokio::time::timeout(LONG, wait).await.expect("the first, eight more, and one that is told to nobody");
    assert_eq!(jobs.last().unwrap().id, job.id);
    let query = DeliveryQuery { job: Some(job.id), ..DeliveryQuery::default() };
    let [delivery] = &list(&site, query).await[..] else { panic!("one delivery of the first job") };
    assert_eq!(delivery.started_job, Some(jobs[jobs.len() - 2].id));
    assert_eq!((delivery.kind.as_str(), delivery.to.function.as_deref()), ("job.failed", Some("g@live")));
}

#[tokio::test]
async fn a_job_has_destinations_of_its_own_and_a_function_none_any_more() {
    let (url, mut told) = receiver(&[200]).await;
    let (_dir, site) = site(config()).await;
    let to = |url: &str| serde_json::json!({"on_success": {"url": url, "secret": SECRET}});
    put(&site, "f", to(&format!("{url}/of-the-function"))).await.unwrap();
    let submit = async |destinations: serde_json::Value| {
        let route = site.service.function(&tenant(), &name("f")).await.unwrap();
        let version = Arc::clone(route.versions.values().next_back().unwrap());
        let destinations = Some(Box::new(serde_json::from_value(destinations).unwrap()));
        let event = Bytes::from_static(b"ok");
        site.service.submit(Submit { id: None, version, event, idempotency_key: None, user: None, destinations }).await
    };
    submit(to(&format!("{url}/of-the-job"))).await.unwrap();
    assert!(got(&mut told).await.head.starts_with("POST /hook/of-the-job "));
    let error = submit(serde_json::json!({"on_success": {"url": url}})).await.unwrap_err();
    assert_eq!(error.errors[0].field, "destinations.on_success.secret");
    ended(&site, "f", "ok").await;
    assert!(got(&mut told).await.head.starts_with("POST /hook/of-the-function "));
    ask(&site, DeliveryAsk::Test(name("f"))).await.unwrap();
    assert!(String::from_utf8_lossy(&got(&mut told).await.body).contains("webhook.test"));
    ask(&site, DeliveryAsk::DeleteDestinations(name("f"))).await.unwrap();
    assert_eq!(ask(&site, DeliveryAsk::Test(name("f"))).await.unwrap_err().code, Code::NotFound);
    ended(&site, "f", "ok#untold").await;
    put(&site, "f", to(&format!("{url}/last"))).await.unwrap();
    ended(&site, "f", "ok").await;
    assert!(got(&mut told).await.head.starts_with("POST /hook/last "), "nobody heard of the one before");
}

#[tokio::test]
async fn whoever_says_when_to_come_back_is_believed_for_an_hour_at_most() {
    let (url, mut told) = receiver(&[429]).await;
    let (_dir, site) = site(config()).await;
    put(&site, "f", serde_json::json!({"on_success": {"url": url}})).await.unwrap();
    ended(&site, "f", "ok").await;
    got(&mut told).await;
    let wait = async {
        loop {
            let delivery = the_one(&site, DeliveryStatus::Pending).await;
            if delivery.attempts == 1 {
                return delivery;
            }
            tokio::task::yield_now().await;
        }
    };
    let delivery = tokio::time::timeout(LONG, wait).await.expect("a try");
    let waits = delivery.next_attempt_at.unwrap().since(delivery.log[0].at);
    assert!(waits >= Duration::from_secs(3_600) && waits < Duration::from_secs(3_600) + LONG, "{waits:?}");
}

fn run(id: &str, status: RunStatus) -> Run {
    let shown = serde_json::json!({
        "id": id, "tenant": "default", "workflow": "w", "version": 1, "status": status, "created_at": "2026-01-01T00:00:00.000Z",
        "ended_at": "2026-01-01T00:00:09.000Z", "tasks": {"succeeded": 1, "active": 0, "failed_attempts": 0},
    });
    serde_json::from_value(shown).expect("a run")
}

async fn put_of_workflow(site: &Site, request: serde_json::Value) -> Result<DestinationsView> {
    let request: DestinationsRequest = serde_json::from_value(request).unwrap();
    let workflow = WorkflowName::new("w").unwrap();
    match ask(site, DeliveryAsk::PutWorkflowDestinations(workflow, Box::new(request))).await? {
        HookAnswer::Destinations(view) => Ok(*view),
        other => panic!("{other:?}"),
    }
}

/// There is a workflow of this name.
async fn make_workflow(site: &Site) {
    let key = lyra_wire::hooks::workflow_key(&tenant(), &WorkflowName::new("w").unwrap());
    let changes = vec![Change::Put(key, Bytes::from_static(b"{}"))];
    site.objects.txn(Txn { checks: Vec::new(), changes }).await.unwrap();
}

fn ends(site: &Site) -> ThroughControl {
    ThroughControl(Arc::clone(&site.service) as Arc<dyn Control>)
}

#[tokio::test]
async fn the_end_of_a_run_is_one_delivery_however_often_it_is_handed_over() {
    let (url, mut told) = receiver(&[200]).await;
    let (_dir, site) = site(config()).await;
    let to = serde_json::json!({"url": url, "secret": SECRET});
    let both = serde_json::json!({"on_success": to, "on_failure": to});
    assert_eq!(put_of_workflow(&site, both.clone()).await.unwrap_err().code, Code::NotFound);
    make_workflow(&site).await;
    let view = put_of_workflow(&site, both).await.unwrap();
    assert_eq!((view.workflow.as_deref(), view.function), (Some("w"), None));
    let w = WorkflowName::new("w").unwrap();
    let notice = ends(&site).notice(&tenant(), &w, None).await.unwrap().expect("somebody wants to hear of it");
    let mut done = run("r", RunStatus::Succeeded);
    done.output = Some(serde_json::json!({"sum": 2}).as_object().unwrap().clone());
    let at = done.ended_at.unwrap();
    for _ in 0..3 {
        ends(&site).ended(&done, at, &notice).await.unwrap();
    }
    let call = got(&mut told).await;
    let delivery = the_one(&site, DeliveryStatus::Delivered).await;
    assert_eq!((delivery.of(), delivery.run.as_ref(), delivery.kind.as_str()), ("w", Some(&done.id), "run.succeeded"));
    let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(body["data"]["run"], serde_json::to_value(&done).unwrap());
    // An end of its own for each time that it ends, with its own type.
    let mut late = run("late", RunStatus::Failed);
    let cause = serde_json::json!({"attempts": 0, "cause": {"code": "timeout", "message": "late"}});
    late.error = Some(serde_json::from_value(cause).unwrap());
    let mut large = run("large", RunStatus::Succeeded);
    large.output = Some(serde_json::json!({"text": "x".repeat(100_000)}).as_object().unwrap().clone());
    let all = [
        (late, "run.timed_out"),
        (run("failed", RunStatus::Failed), "run.failed"),
        (run("gone", RunStatus::Cancelled), "run.cancelled"),
        (large, "run.succeeded"),
    ];
    for (one, kind) in &all {
        ends(&site).ended(one, at, &notice).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&got(&mut told).await.body).unwrap();
        assert_eq!((&body["type"], &body["data"]["run"]["id"]), (&(*kind).into(), &one.id.to_string().into()));
        assert_eq!(body["data"]["output_omitted"].as_bool().unwrap_or_default(), one.output.is_some());
    }
    let query = DeliveryQuery { run: Some(done.id), ..DeliveryQuery::default() };
    assert_eq!(list(&site, query).await.len(), 1);
    // A run's own destinations are in place of those of its workflow, and are checked at its start.
    let own: DestinationsRequest = serde_json::from_value(serde_json::json!({"on_failure": to})).unwrap();
    let notice = ends(&site).notice(&tenant(), &w, Some(&own)).await.unwrap().unwrap();
    ends(&site).ended(&run("own", RunStatus::Succeeded), at, &notice).await.unwrap();
    let bad: DestinationsRequest = serde_json::from_value(serde_json::json!({"on_failure": {"url": url}})).unwrap();
    assert_eq!(
        ends(&site).notice(&tenant(), &w, Some(&bad)).await.unwrap_err().errors[0].field,
        "destinations.on_failure.secret"
    );
    ask(&site, DeliveryAsk::TestWorkflow(w.clone())).await.unwrap();
    let body = got(&mut told).await.body;
    assert!(String::from_utf8_lossy(&body).contains("webhook.test"), "nobody heard of the run before");
    ask(&site, DeliveryAsk::DeleteWorkflowDestinations(w.clone())).await.unwrap();
    assert_eq!(ends(&site).notice(&tenant(), &w, None).await.unwrap(), None);
}

/// All that the store holds under destinations and deliveries, as text.
async fn stored(site: &Site) -> String {
    let mut text = String::new();
    for prefix in ["destinations/", "deliveries/"] {
        for entry in site.objects.list(prefix, 1_000, None).await.unwrap().entries {
            text.push_str(&String::from_utf8_lossy(&entry.value));
        }
    }
    text
}

#[tokio::test]
async fn what_calls_are_signed_with_is_sealed_wherever_it_is_stored_and_over_a_rotation() {
    let (url, mut told) = receiver(&[200]).await;
    let (dir, first) = site(config()).await;
    put(&first, "f", serde_json::json!({"on_success": {"url": url, "secret": SECRET}})).await.unwrap();
    ended(&first, "f", "ok").await;
    let before = got(&mut told).await;
    the_one(&first, DeliveryStatus::Delivered).await;
    let made = put(&first, "g", serde_json::json!({"on_success": {"url": url}})).await.unwrap();
    let made = made.on_success.unwrap().secret.unwrap();
    let text = stored(&first).await;
    assert!(!text.contains("whsec_") && !text.contains(SECRET) && !text.contains(made.reveal()), "{text}");
    // As an earlier Lyra stored it: it is sealed by whoever leads next.
    let clear = serde_json::json!({
        "on_success": {"url": {"url": url, "secret": SECRET}}, "on_failure": null, "updated_at": "2026-01-01T00:00:00.000Z",
    });
    let changes = vec![Change::Put("destinations/default/f".to_owned(), Bytes::from(clear.to_string()))];
    first.objects.txn(Txn { checks: Vec::new(), changes }).await.unwrap();
    let w = WorkflowName::new("w").unwrap();
    make_workflow(&first).await;
    put_of_workflow(&first, serde_json::json!({"on_success": {"url": url, "secret": SECRET}})).await.unwrap();
    let pinned = ends(&first).notice(&tenant(), &w, None).await.unwrap().unwrap();
    assert!(!pinned.contains("whsec_"), "{pinned}");
    first.service.stop().await;
    drop(first);
    let settings = || keyed(dir.path(), config());
    let second = Site::start_at(dir.path(), settings(), start_of_time() + LONG, 2, |jobs| jobs).await;
    let sealed = async {
        while stored(&second).await.contains("whsec_") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, sealed).await.expect("it is sealed");
    // Four: those of f, g and w, and the delivery that is over.
    let path = dir.path().join("secrets.key");
    let new = crate::secrets::key_file::add(&path, true, &Random::seeded(7)).unwrap();
    let counts = async |site: &Site| -> Vec<u64> {
        site.service.sealing_keys().await.unwrap().iter().map(|key| key.secrets).collect()
    };
    assert_eq!(counts(&second).await, [0, 4]);
    let done = second.service.reseal_secrets().await.unwrap();
    assert_eq!((done.key, done.resealed), (new, 4));
    assert_eq!(counts(&second).await, [4, 0]);
    // The old key goes. What was pinned with it before is signed with what is there now.
    let text = std::fs::read_to_string(&path).unwrap();
    let keys: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    std::fs::write(&path, format!("{}\n", keys[0])).unwrap();
    second.service.stop().await;
    drop(second);
    let third = Site::start_at(dir.path(), settings(), start_of_time() + 2 * LONG, 3, |jobs| jobs).await;
    let done = run("r", RunStatus::Succeeded);
    ends(&third).ended(&done, done.ended_at.unwrap(), &pinned).await.unwrap();
    let after = got(&mut told).await;
    for call in [&before, &after] {
        let (id, seconds) = (call.header("webhook-id"), call.header("webhook-timestamp").parse().unwrap());
        let signature = crate::deliveries::sign(&lyra_types::Secret::new(SECRET), id, seconds, &call.body).unwrap();
        assert_eq!(call.header("webhook-signature"), signature);
    }
    ended(&third, "f", "ok").await;
    got(&mut told).await;
    third.service.stop().await;
}
