//! The engine over real files, with functions that the test answers for.

mod deadlines;
mod dropped;
mod handover;
mod hostile;
mod pages;
mod recovery;

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use lyra_kit::telemetry;
use lyra_store::objects::History;
use lyra_store::{DirectoryBlobs, SqliteObjects, SqliteRuns};
use lyra_types::Timestamp;
use serde_json::json;

use super::*;
use crate::core::TaskKey;
use crate::enact::{Enactment, Failure};
use crate::mapping::{Mapping, Resource};
use crate::schedule::{Limit, Policy};
use lyra_wire::workflows::{Completion, RunCommand};

type Answer = dyn Fn(&Enactment, &str) -> Option<Result<Value, Failure>> + Send + Sync;

/// Answers calls; one that it has no answer for is never answered.
struct Functions {
    answer: Box<Answer>,
    calls: AtomicUsize,
    /// Idempotency keys, in the order of the calls.
    keys: Mutex<Vec<String>>,
    most_at_once: AtomicUsize,
    now: AtomicUsize,
}

#[async_trait]
impl Enact for Functions {
    async fn enact(&self, enactment: &Enactment, resource: &Resource) -> Result<Bytes, Failure> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.keys.lock().push(enactment.key.clone());
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let answer = (self.answer)(enactment, &resource.id());
        let Some(answer) = answer else { return futures::future::pending().await };
        self.now.fetch_sub(1, Ordering::SeqCst);
        answer.map(|value| Bytes::from(value.to_string()))
    }
}

fn functions(
    answer: impl Fn(&Enactment, &str) -> Option<Result<Value, Failure>> + Send + Sync + 'static,
) -> Arc<Functions> {
    Arc::new(Functions {
        answer: Box::new(answer),
        calls: AtomicUsize::new(0),
        keys: Mutex::default(),
        most_at_once: AtomicUsize::new(0),
        now: AtomicUsize::new(0),
    })
}

/// Every function doubles.
fn doubling() -> Arc<Functions> {
    functions(|enactment, _| {
        let input: Value = serde_json::from_slice(&enactment.input).expect("an object");
        Some(Ok(json!({"out": input["in"].as_i64().expect("a number") * 2})))
    })
}

struct Site {
    dir: tempfile::TempDir,
    clock: Clock,
    config: Config,
}

impl Site {
    fn new() -> Site {
        let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
        Site { dir: tempfile::tempdir().expect("a directory"), clock, config: Config::default() }
    }

    fn store(&self) -> Arc<SqliteRuns> {
        Arc::new(SqliteRuns::open(&self.dir.path().join("runs.db"), None).expect("opens"))
    }

    async fn engine(&self, runs: &Arc<SqliteRuns>, enact: Arc<dyn Enact>, seed: u64, alone: bool) -> Engine {
        let blobs = DirectoryBlobs::open(&self.dir.path().join("blobs")).expect("opens");
        let objects =
            SqliteObjects::open(&self.dir.path().join("objects.db"), History::default(), None).expect("opens");
        let links = links::Links::open(&objects, &Random::seeded(seed), &self.config.public_url).await.expect("a key");
        let engine = Engine::new(Deps {
            runs: runs.clone(),
            blobs: Arc::new(blobs),
            enact,
            config: self.config.clone(),
            clock: self.clock.clone(),
            random: Random::seeded(seed),
            tasks: Tasks::new(),
            metrics: Metrics::new(&telemetry::Metrics::new()),
            ended: None,
            links: Arc::new(links),
        });
        engine.take_over(alone).await.expect("taken over");
        engine
    }
}

fn chain(length: usize, extra: &str) -> String {
    let mut body = String::new();
    for n in 0..length {
        let source = if n == 0 { "w/n".to_owned() } else { format!("f{}/out", n - 1) };
        body += &format!(
            "  - function:\n      name: f{n}\n      type: Double\n      dataIns: [{{ name: in, type: number, source: {source} }}]\n      dataOuts: [{{ name: out, type: number }}]\n{extra}"
        );
    }
    format!(
        "name: w\ndataIns: [{{ name: n, type: number, source: n }}]\nworkflowBody:\n{body}dataOuts: [{{ name: out, type: number, source: f{}/out }}]\n",
        length - 1
    )
}

fn mapping(urls: &[&str]) -> Mapping {
    let resources: Vec<Value> =
        urls.iter().map(|url| json!({"type": "Serverless", "properties": {"Uri": url}})).collect();
    Mapping::parse(&json!([{"functionType": "Double", "resources": resources}])).expect("a mapping")
}

async fn begin(engine: &Engine, document: &str, mapping: Mapping, id: &str, input: Value) -> bool {
    let graph = lyra_afcl::compile(document).unwrap_or_else(|found| panic!("{found:?}")).graph;
    let compiled = Compiled { graph, mapping, cuts: std::collections::BTreeMap::new() };
    let bytes = Bytes::from(serde_json::to_vec(&compiled).expect("written"));
    let digest = engine.deps().blobs.put(bytes).await.expect("stored").0;
    let program = engine.program(&digest).await.expect("a program");
    let input = input.as_object().expect("an object").clone();
    let head = Head {
        program: digest,
        input,
        secret: "secret".to_owned(),
        parent: None,
        depth: 0,
        schedule: None,
        timeout_ms: None,
        traceparent: None,
        user: None,
        limits: None,
    };
    let begin = Begin {
        notice: None,
        most_live: None,
        tenant: TenantName::default_tenant(),
        id: RunId::new(id).expect("an id"),
        workflow: WorkflowName::new("w").expect("a name"),
        version: 1,
        fingerprint: [0; 32],
        program,
        head,
    };
    engine.begin(begin).await.expect("begun")
}

fn key(id: &str) -> (TenantName, RunId) {
    (TenantName::default_tenant(), RunId::new(id).expect("an id"))
}

/// The run once it has ended.
async fn ended(engine: &Engine, runs: &SqliteRuns, id: &str) -> (RunStatus, Value, Summary) {
    loop {
        let (tenant, id) = key(id);
        if let Some(mut handle) = engine.active(&tenant, &id) {
            drop(handle.seen.wait_for(|seen| seen.status.is_final()).await);
        }
        let (record, output) = runs.get(tenant, id, true).await.expect("the run");
        if record.status.is_final() {
            let output = output.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).expect("JSON"));
            return (record.status, output, serde_json::from_slice(&record.summary).expect("a summary"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn command(engine: &Engine, id: &str, command: RunCommand) {
    let (tenant, id) = key(id);
    let handle = engine.active(&tenant, &id).expect("under way");
    let (reply, answer) = tokio::sync::oneshot::channel();
    handle.mail.send(Message::Command(command, reply)).await.expect("sent");
    answer.await.expect("answered").expect("done");
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_with_its_output_and_is_known_by_its_id() {
    let site = Site::new();
    let (runs, functions) = (site.store(), doubling());
    let engine = site.engine(&runs, functions.clone(), 1, true).await;
    assert!(begin(&engine, &chain(5, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await);
    let (status, output, summary) = ended(&engine, &runs, "r").await;
    assert_eq!((status, output, summary.counts.succeeded), (RunStatus::Succeeded, json!({"out": 32}), 5));
    assert!(!begin(&engine, &chain(5, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await);
    assert_eq!(functions.calls.load(Ordering::SeqCst), 5, "a second start with the id starts nothing");
    let (tenant, id) = key("r");
    let trace = engine.trace(&tenant, &id, 0, 1_000).await.expect("a trace");
    let steps: String = trace.iter().filter(|token| token.node == "f3").map(|token| token.step.as_str()).collect();
    assert_eq!(steps, "SEX");
    assert!(trace.iter().any(|token| token.step == "E" && token.resources == ["http://a.test"]));
    assert_eq!(engine.trace(&tenant, &id, 3, 2).await.expect("a page"), trace[3..5]);
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_at_its_last_finished_task_wherever_it_is_killed() {
    for kill_after in 0..8 {
        let site = Site::new();
        let runs = site.store();
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        // From the kill on no call is answered.
        let first = functions(move |enactment, _| {
            let input: Value = serde_json::from_slice(&enactment.input).expect("an object");
            let answered = counted.fetch_add(1, Ordering::SeqCst) < kill_after;
            answered.then(|| Ok(json!({"out": input["in"].as_i64().expect("a number") * 2})))
        });
        let engine = site.engine(&runs, first.clone(), 1, true).await;
        begin(&engine, &chain(8, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
        while seen.load(Ordering::SeqCst) <= kill_after {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        engine.deps().tasks.stop(Duration::from_secs(1)).await;

        let second = doubling();
        let engine = site.engine(&runs, second.clone(), 2, true).await;
        let (status, output, _) = ended(&engine, &runs, "r").await;
        assert_eq!((status, output), (RunStatus::Succeeded, json!({"out": 256})));
        assert_eq!(second.calls.load(Ordering::SeqCst), 8 - kill_after, "what had ended is not done again");
        assert_eq!(first.keys.lock().last(), second.keys.lock().first(), "the try that is repeated has the same key");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_host_s_runs_are_taken_over_and_it_can_write_nothing_more() {
    let site = Site::new();
    let runs = site.store();
    let first = site.engine(&runs, functions(|_, _| None), 1, false).await;
    begin(&first, &chain(2, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    let second = site.engine(&runs, doubling(), 2, false).await;
    assert!(second.active(&key("r").0, &key("r").1).is_none(), "its owner lives");
    // The first one's loop that says that it lives is stopped, not its runs.
    let lapsed = site.clock.now() + Duration::from_secs(60);
    let taken = runs.take(77, lapsed, false, 10).await.expect("asked");
    assert_eq!(taken.len(), 1);
    command_is_lost(&first, "r").await;
}

/// A command to a run that another owner has: the actor finds out when it writes, and goes.
async fn command_is_lost(engine: &Engine, id: &str) {
    let (tenant, id) = key(id);
    let handle = engine.active(&tenant, &id).expect("under way");
    let (reply, answer) = tokio::sync::oneshot::channel();
    handle.mail.send(Message::Command(RunCommand::Cancel, reply)).await.expect("sent");
    assert!(answer.await.expect("answered").is_err());
    assert!(engine.active(&tenant, &id).is_none());
}

#[tokio::test(start_paused = true)]
async fn tries_fail_over_to_another_resource_and_then_end_the_run() {
    let site = Site::new();
    let runs = site.store();
    let enact = functions(|enactment, resource| {
        Some(if resource.contains("good") && enactment.task == "f0" {
            Ok(json!({"out": 7}))
        } else {
            Err(Failure::passing("http_503", "busy"))
        })
    });
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    let mapping = mapping(&["http://bad.test", "http://good.test"]);
    begin(&engine, &chain(2, ""), mapping, "r", json!({"n": 1})).await;
    let (status, _, summary) = ended(&engine, &runs, "r").await;
    let error = summary.error.expect("an error");
    assert_eq!((status, error.task.as_deref(), error.attempts), (RunStatus::Failed, Some("f1"), 3));
    assert_eq!((error.cause.code.as_str(), error.causes.len()), ("http_503", 3));
    assert_eq!(summary.counts.succeeded, 1, "the first task went to the resource that works");
}

#[tokio::test(start_paused = true)]
async fn redundant_calls_end_with_the_first_that_succeeds() {
    let mut site = Site::new();
    site.config.scheduling.scheduler = Policy::Redundant;
    let runs = site.store();
    let enact = functions(|_, resource| match resource {
        resource if resource.contains("fails") => Some(Err(Failure::passing("http_500", "no"))),
        resource if resource.contains("good") => Some(Ok(json!({"out": 7}))),
        _ => None,
    });
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    let mapping = mapping(&["http://fails.test", "http://hangs.test", "http://good.test"]);
    begin(&engine, &chain(1, ""), mapping, "r", json!({"n": 1})).await;
    let (status, output, _) = ended(&engine, &runs, "r").await;
    assert_eq!((status, output), (RunStatus::Succeeded, json!({"out": 7})));
    assert_eq!(enact.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn pause_holds_and_cancel_ends_a_run_and_its_calls() {
    let site = Site::new();
    let runs = site.store();
    let (sender, open) = tokio::sync::watch::channel(false);
    let enact = functions(move |_, _| open.borrow().then(|| Ok(json!({"out": 1}))));
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    begin(&engine, &chain(3, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    command(&engine, "r", RunCommand::Pause).await;
    let (tenant, id) = key("r");
    assert_eq!(runs.get(tenant.clone(), id.clone(), false).await.expect("the run").0.status, RunStatus::Paused);
    // It is paused over a restart too.
    engine.deps().tasks.stop(Duration::from_secs(1)).await;
    sender.send_replace(true);
    let engine = site.engine(&runs, enact.clone(), 2, true).await;
    let calls = || enact.calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = calls();
    assert!(before <= 2, "the call that was under way is repeated, nothing is begun: {before}");
    command(&engine, "r", RunCommand::Resume).await;
    assert_eq!(ended(&engine, &runs, "r").await.0, RunStatus::Succeeded);

    sender.send_replace(false);
    begin(&engine, &chain(3, ""), mapping(&["http://a.test"]), "s", json!({"n": 1})).await;
    command(&engine, "s", RunCommand::Cancel).await;
    assert_eq!(ended(&engine, &runs, "s").await.0, RunStatus::Cancelled);
    sender.send_replace(true);
    engine.redrive(&key("s").0, &key("s").1).await.expect("redriven");
    assert_eq!(ended(&engine, &runs, "s").await.0, RunStatus::Succeeded);
}

const WAITS: &str = r#"
name: w
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: pause
      type: "lyra:delay"
      dataIns: [{ name: seconds, type: number, source: w/n }]
      dataOuts: [{ name: seconds, type: number }]
  - function:
      name: approve
      type: "lyra:callback"
      dataIns: [{ name: waited, type: number, source: pause/seconds }]
      dataOuts: [{ name: approved, type: boolean }]
dataOuts: [{ name: approved, type: boolean, source: approve/approved }]
"#;

#[tokio::test(start_paused = true)]
async fn a_delay_and_a_callback_outlive_the_process() {
    let site = Site::new();
    let runs = site.store();
    let engine = site.engine(&runs, doubling(), 1, true).await;
    let before = site.clock.now();
    begin(&engine, WAITS, Mapping::default(), "r", json!({"n": 3600})).await;
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    engine.deps().tasks.stop(Duration::from_secs(1)).await;
    let engine = site.engine(&runs, doubling(), 2, true).await;
    let (tenant, id) = key("r");
    let handle = engine.active(&tenant, &id).expect("taken up");
    let waiting = loop {
        let (reply, answer) = tokio::sync::oneshot::channel();
        handle.mail.send(Message::Waiting(reply)).await.expect("sent");
        let waiting = answer.await.expect("answered");
        if !waiting.is_empty() {
            break waiting;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let waited = site.clock.now().since(before).as_secs();
    assert!((3_600..3_605).contains(&waited), "the delay counts from its start: {waited}");
    let token = waiting[0].token.clone().expect("a token");
    assert_eq!((waiting[0].task.as_str(), &waiting[0].input["waited"]), ("approve", &json!(3600)));
    let complete = async |token: String| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let completion = Completion::Output(json!({"approved": true}).as_object().expect("an object").clone());
        let sent = handle.mail.send(Message::Complete { token, completion, reply }).await;
        match sent {
            Ok(()) => answer.await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    };
    let forged = token.replace(['a', 'b'], "c");
    assert!(forged == token || complete(forged).await.is_err(), "a guessed token completes nothing");
    complete(token.clone()).await.expect("completed");
    complete(token).await.expect("a repetition does nothing");
    assert_eq!(ended(&engine, &runs, "r").await.1, json!({"approved": true}));
}

#[tokio::test(start_paused = true)]
async fn this_machine_never_has_more_tasks_than_its_capacity_and_every_run_gets_its_turn() {
    let mut site = Site::new();
    site.config.scheduling.capacity = Limit::TaskNumber { max: 2 };
    site.config.scheduling.scheduler = Policy::LocalFirst;
    let runs = site.store();
    let enact = functions(|_, _| Some(Ok(json!({"sum": 1}))));
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    let document = chain(3, "").replace("type: Double", "type: Addition").replace("/out", "/sum");
    let document =
        document.replace("dataOuts: [{ name: out, type: number }]", "dataOuts: [{ name: sum, type: number }]");
    let mapping =
        Mapping::parse(&json!([{"functionType": "Addition", "resources": [{"type": "Demo", "properties": {}}]}]));
    let mapping = mapping.expect("a mapping");
    for n in 0..20 {
        begin(&engine, &document, mapping.clone(), &format!("r{n}"), json!({"n": 1})).await;
    }
    for n in 0..20 {
        assert_eq!(ended(&engine, &runs, &format!("r{n}")).await.0, RunStatus::Succeeded);
    }
    assert_eq!(enact.calls.load(Ordering::SeqCst), 60);
    assert!(enact.most_at_once.load(Ordering::SeqCst) <= 2);
}

#[tokio::test(start_paused = true)]
async fn large_outputs_stand_in_the_blob_store_and_come_back() {
    let mut site = Site::new();
    site.config.inline_bytes = 200;
    let runs = site.store();
    let text = "x".repeat(5_000);
    let answer = text.clone();
    let enact = functions(move |_, _| Some(Ok(json!({"out": answer}))));
    let engine = site.engine(&runs, enact, 1, true).await;
    begin(&engine, &chain(1, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    assert_eq!(ended(&engine, &runs, "r").await.1, json!({"out": text}));
    let (tenant, id) = key("r");
    let (_, batches) = runs.journal(tenant.clone(), id.clone()).await.expect("a journal");
    assert!(batches.iter().all(|batch| batch.len() < 1_000), "the journal stays small");
    assert!(engine.trace(&tenant, &id, 0, 100).await.expect("a trace").iter().any(|token| token.step == "Q"));
}

#[tokio::test(start_paused = true)]
async fn a_hang_ends_at_the_deadline_and_a_missing_output_is_an_error_of_its_own() {
    let site = Site::new();
    let runs = site.store();
    let enact = functions(|enactment, _| (enactment.task == "f0").then(|| Ok(json!({"other": 1}))));
    let engine = site.engine(&runs, enact, 1, true).await;
    begin(&engine, &chain(1, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    let error = ended(&engine, &runs, "r").await.2.error.expect("an error");
    assert_eq!((error.cause.code.as_str(), error.attempts), ("missing_output", 1));
    let hangs = site.engine(&runs, functions(|_, _| None), 2, true).await;
    begin(&hangs, &chain(1, ""), mapping(&["http://a.test"]), "s", json!({"n": 1})).await;
    let error = ended(&hangs, &runs, "s").await.2.error.expect("an error");
    assert_eq!((error.cause.code.as_str(), error.attempts), ("timeout", 3));
}

#[test]
fn a_token_says_which_task_it_completes_and_nothing_else_fits_it() {
    let (tenant, id) = key("run_1");
    let task = TaskKey { task: lyra_afcl::graph::TaskId(3), path: [1, 2].into_iter().collect() };
    let token = attempt::callback_token(&tenant, &id, &task, 2, "secret");
    assert_eq!(parse_callback(&token), Some((tenant.clone(), id.clone(), task.clone(), 2)));
    assert_ne!(token, attempt::callback_token(&tenant, &id, &task, 2, "other"));
    assert_eq!(parse_callback("a~b"), None);
}
