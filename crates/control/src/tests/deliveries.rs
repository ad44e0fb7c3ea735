//! Deliveries: each end has one, however often it has to be tried and whoever dies. On real time, with a real receiver.

use lyra_store::Jobs as _;
use lyra_store::jobs::{LeaseRequest, Outcome};
use lyra_types::InvocationId;
use lyra_types::delivery::{DeliveryStatus, DeliveryView, DestinationsRequest, DestinationsView};
use lyra_types::job::{Job, JobStatus};
use lyra_wire::control::JobQuery;
use lyra_wire::hooks::{DeliveryAsk, DeliveryQuery, HookAnswer, HookRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;

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
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthank");
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

async fn site(config: Config) -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), config).await;
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
    };
    let leased = first.jobs.lease(request).await.unwrap().jobs.remove(0);
    assert_eq!(leased.job.id, id);
    let end = Outcome::Succeeded(Bytes::from_static(b"\"late\""));
    first.jobs.finish(leased.lease(), now, end).await.unwrap();
    assert_eq!(first.jobs.owed(10).await.unwrap().len(), 1);
    drop(first);
    let second = Site::start_at(dir.path(), config(), now + LONG, 2, |jobs| jobs).await;
    let call = got(&mut told).await;
    let delivery = the_one(&second, DeliveryStatus::Delivered).await;
    assert_eq!(call.header("webhook-id"), delivery.id);
    assert!(second.jobs.owed(10).await.unwrap().is_empty());
    second.service.stop().await;
    // Whoever takes over once more tells it to nobody again.
    let third = Site::start_at(dir.path(), config(), now + 2 * LONG, 3, |jobs| jobs).await;
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
