//! Runs that would take everything for themselves, or fall over.

use std::sync::atomic::AtomicBool;

use lyra_store::runs::{CreatedRun, NewRunRecord};

use super::*;
use crate::core::{Entry, Event};

/// A million times a million iterations, of which none calls anything.
const SPIN: &str = r#"
name: w
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - parallelFor:
      name: p
      iterators: [1000000]
      loopBody:
        - parallelFor:
            name: q
            iterators: [1000000]
            loopBody:
              - if:
                  name: i
                  condition: [{ data1: w/n, data2: "-1", type: number, operator: "==" }]
                  then:
                    - function: { name: f, type: Double, dataIns: [{ name: in, type: number, source: w/n }], dataOuts: [{ name: out, type: number }] }
"#;

const FAN: &str = r#"
name: w
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - parallelFor:
      name: each
      dataIns: [{ name: one, type: number, source: w/list }]
      iterators: [one]
      loopBody:
        - function: { name: double, type: Double, dataIns: [{ name: in, type: number, source: each/one }], dataOuts: [{ name: out, type: number }] }
      dataOuts: [{ name: all, type: collection, source: double/out }]
dataOuts: [{ name: all, type: collection, source: each/all }]
"#;

fn double() -> Mapping {
    mapping(&["http://a.test"])
}

#[tokio::test(start_paused = true)]
async fn runs_that_never_stand_still_leave_others_alone_and_are_cancelled() {
    let mut site = Site::new();
    site.config.max_steps = u64::MAX;
    let runs = site.store();
    let engine = site.engine(&runs, doubling(), 1, true).await;
    for id in ["a", "b", "c", "late"] {
        begin(&engine, SPIN, double(), id, json!({"n": 1})).await;
    }
    begin(&engine, &chain(3, ""), double(), "beside", json!({"n": 1})).await;
    assert_eq!(ended(&engine, &runs, "beside").await.1, json!({"out": 8}));
    let (tenant, id) = key("a");
    let trace = engine.trace(&tenant, &id, 20_000, 100).await.expect("a page of a trace");
    assert_eq!((trace.len(), trace[0].seq), (100, 20_000));
    command(&engine, "a", RunCommand::Cancel).await;
    assert_eq!(ended(&engine, &runs, "a").await.0, RunStatus::Cancelled);
    let trace = engine.trace(&tenant, &id, 0, usize::MAX).await.expect("a trace");
    assert_eq!(trace.last().map(|token| token.step.as_str()), Some("Q"), "it ends where it was cancelled");

    // What is not a cancellation waits until the run stands still.
    let pause = engine.active(&key("b").0, &key("b").1).expect("under way");
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    pause.mail.send(Message::Command(RunCommand::Pause, reply)).await.expect("sent");
    tokio::task::yield_now().await;
    assert!(answer.try_recv().is_err());
    // A restart does not wait for them either.
    engine.deps().tasks.stop(Duration::from_secs(1)).await;
    let engine = site.engine(&runs, doubling(), 2, true).await;
    for id in ["b", "c"] {
        command(&engine, id, RunCommand::Cancel).await;
        assert_eq!(ended(&engine, &runs, id).await.0, RunStatus::Cancelled);
    }
    tokio::time::advance(site.config.run_timeout).await;
    let error = ended(&engine, &runs, "late").await.2.error.expect("an error");
    assert_eq!(error.cause.code, "timeout");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_reaches_a_limit_on_its_way_ends_there() {
    let mut site = Site::new();
    site.config.max_steps = 50_000;
    let runs = site.store();
    let engine = site.engine(&runs, doubling(), 1, true).await;
    begin(&engine, SPIN, double(), "r", json!({"n": 1})).await;
    let error =
        tokio::time::timeout(Duration::from_secs(60), ended(&engine, &runs, "r")).await.expect("it ends").2.error;
    let error = error.expect("an error");
    assert_eq!(error.cause.code, "limit_reached");
    assert!(error.cause.message.contains("workflow.max_steps"), "{}", error.cause.message);
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_by_the_limits_that_it_was_begun_with() {
    let mut site = Site::new();
    let runs = site.store();
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let some = functions(move |enactment, _| {
        let input: Value = serde_json::from_slice(&enactment.input).expect("an object");
        // The later ones first, so that what is read back has no place in fewer iterations at a time.
        let number = input["in"].as_i64().expect("a number");
        counted.fetch_add(1, Ordering::SeqCst);
        (number > 3).then(|| Ok(json!({"out": number * 2})))
    });
    let engine = site.engine(&runs, some, 1, true).await;
    begin(&engine, FAN, double(), "r", json!({"list": [1, 2, 3, 4, 5, 6]})).await;
    while seen.load(Ordering::SeqCst) < 6 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    engine.deps().tasks.stop(Duration::from_secs(1)).await;
    site.config.live_iterations = 1;
    (site.config.max_elements, site.config.max_tasks, site.config.max_steps) = (1, 1, 1);
    let engine = site.engine(&runs, doubling(), 2, true).await;
    assert_eq!(ended(&engine, &runs, "r").await.1, json!({"all": [2, 4, 6, 8, 10, 12]}));
    let (tenant, id) = key("r");
    let trace = engine.trace(&tenant, &id, 0, 1_000).await.expect("a trace");
    assert_eq!(trace.last().map(|token| token.step.as_str()), Some("Q"));
    begin(&engine, FAN, double(), "s", json!({"list": [1, 2]})).await;
    let error = ended(&engine, &runs, "s").await.2.error.expect("an error");
    assert_eq!(error.cause.code, "limit_reached", "a new one has the new ones");
}

/// A run of an earlier Lyra, which kept no limits, whose journal does not fit the limits of now.
async fn unfit(engine: &Engine, runs: &SqliteRuns, id: &str) {
    let graph = lyra_afcl::compile(FAN).expect("right").graph;
    let compiled = Compiled { graph, mapping: double(), cuts: std::collections::BTreeMap::new() };
    let task = compiled.graph.tasks.iter().position(|task| task.name == "double").expect("the function");
    let task = lyra_afcl::graph::TaskId(u32::try_from(task).expect("few tasks"));
    let bytes = Bytes::from(serde_json::to_vec(&compiled).expect("written"));
    let program = engine.deps().blobs.put(bytes).await.expect("stored").0;
    let head = json!({"program": program, "input": {"list": [1, 2]}, "secret": "s"});
    let key_of = |index: u32| TaskKey { task, path: [index].into_iter().collect() };
    let scheduled = |index| Event::Scheduled { key: key_of(index), attempt: 1, picks: [0].into_iter().collect() };
    let succeeded = |index: u32| {
        let output = json!({"out": 1}).as_object().expect("an object").clone();
        Event::succeeded(task.0, [index].into_iter().collect(), 1, output)
    };
    let events = [Event::Begun, scheduled(0), scheduled(1), succeeded(1), succeeded(0)];
    let lines = events.map(|event| serde_json::to_string(&Entry { at: 0, event }).expect("written"));
    let (tenant, id) = key(id);
    let record = NewRunRecord {
        tenant,
        id,
        workflow: WorkflowName::new("w").expect("a name"),
        version: 1,
        fingerprint: [0; 32],
        now: engine.deps().clock.now(),
        owner: 77,
        head: Bytes::from(head.to_string()),
        batch: Bytes::from(lines.join("\n")),
        summary: Bytes::from_static(b"{}"),
        notice: None,
        most_live: None,
    };
    assert!(matches!(runs.create(record).await.expect("created"), CreatedRun::New { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_falls_over_when_it_is_read_back_stops_nobody() {
    let mut site = Site::new();
    let runs = site.store();
    let first = site.engine(&runs, functions(|_, _| None), 1, true).await;
    begin(&first, &chain(2, ""), double(), "good", json!({"n": 1})).await;
    for id in ["bad", "worse"] {
        unfit(&first, &runs, id).await;
    }
    first.deps().tasks.stop(Duration::from_secs(1)).await;
    site.config.live_iterations = 1;
    let engine = site.engine(&runs, doubling(), 2, true).await;
    assert_eq!(ended(&engine, &runs, "good").await.1, json!({"out": 4}));
    assert_eq!(engine.deps().metrics.stuck.get(), 2);
    let (tenant, id) = key("bad");
    let (record, _) = runs.get(tenant.clone(), id.clone(), false).await.expect("the run");
    let summary: Summary = serde_json::from_slice(&record.summary).expect("a summary");
    assert!(summary.stuck.expect("a reason").contains("a fault of Lyra"));
    assert!(engine.cancel_stuck(&tenant, &id).await.expect("cancelled"));
    assert_eq!(ended(&engine, &runs, "bad").await.0, RunStatus::Cancelled);

    engine.deps().tasks.stop(Duration::from_secs(1)).await;
    site.config.live_iterations = 2;
    let engine = site.engine(&runs, doubling(), 3, true).await;
    assert_eq!(ended(&engine, &runs, "worse").await.1, json!({"all": [1, 1]}), "with the settings of then it goes on");
}

/// Calls `Double` as others do; panics where it is to compute `Fall` at once.
struct Falls {
    falls: AtomicBool,
    others: Arc<Functions>,
}

#[async_trait]
impl Enact for Falls {
    fn at_once(
        &self,
        function_type: &str,
        _: &Resource,
        input: &Map<String, Value>,
    ) -> Option<Result<Map<String, Value>, Failure>> {
        if function_type != "Fall" {
            return None;
        }
        assert!(!self.falls.load(Ordering::SeqCst), "fallen over");
        Some(Ok(Map::from_iter([("out".to_owned(), input["in"].clone())])))
    }

    async fn enact(&self, enactment: &Enactment, resource: &Resource) -> Result<Bytes, Failure> {
        assert!(enactment.task != "panics", "a try fell over");
        self.others.enact(enactment, resource).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_falls_over_on_its_way_is_seen_is_tried_again_and_can_be_cancelled() {
    let site = Site::new();
    let runs = site.store();
    let enact = Arc::new(Falls { falls: AtomicBool::new(true), others: doubling() });
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    let document = chain(2, "").replacen("name: f1\n      type: Double", "name: f1\n      type: Fall", 1);
    let mapping = ["Double", "Fall"].map(
        |of| json!({"functionType": of, "resources": [{"type": "Serverless", "properties": {"Uri": "http://a.test"}}]}),
    );
    let mapping = Mapping::parse(&json!(mapping)).expect("a mapping");
    for id in ["mended", "cancelled"] {
        begin(&engine, &document, mapping.clone(), id, json!({"n": 1})).await;
    }
    while engine.deps().metrics.stuck.get() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (tenant, id) = key("cancelled");
    assert!(engine.active(&tenant, &id).is_none());
    let (record, _) = runs.get(tenant.clone(), id.clone(), false).await.expect("the run");
    let summary: Summary = serde_json::from_slice(&record.summary).expect("a summary");
    assert!(summary.stuck.expect("a reason").contains("fallen over"));
    // It falls over again each time that it is tried.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(engine.deps().metrics.stuck.get(), 2);
    assert!(engine.cancel_stuck(&tenant, &id).await.expect("cancelled"));
    assert_eq!(ended(&engine, &runs, "cancelled").await.0, RunStatus::Cancelled);
    enact.falls.store(false, Ordering::SeqCst);
    assert_eq!(ended(&engine, &runs, "mended").await.1, json!({"out": 2}));
    assert_eq!(engine.deps().metrics.stuck.get(), 0);

    // One that falls over before it is stored is an error for whoever starts it; a try that does fails.
    enact.falls.store(true, Ordering::SeqCst);
    let panics = chain(1, "").replace("name: f0", "name: panics").replace("f0/out", "panics/out");
    begin(&engine, &panics, mapping.clone(), "try", json!({"n": 1})).await;
    let error = ended(&engine, &runs, "try").await.2.error.expect("an error");
    assert_eq!((error.cause.code.as_str(), error.attempts), ("internal", 3));
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_nested_too_deep_fails_its_task_and_leaves_a_journal_that_can_be_read() {
    let site = Site::new();
    let runs = site.store();
    let mut deep = json!(1);
    for _ in 0..101 {
        deep = json!([deep]);
    }
    let enact = functions(move |_, _| Some(Ok(json!({"out": deep}))));
    let engine = site.engine(&runs, enact, 1, true).await;
    begin(&engine, &chain(1, ""), double(), "r", json!({"n": 1})).await;
    let error = ended(&engine, &runs, "r").await.2.error.expect("an error");
    assert_eq!(error.cause.code, "invalid_data");
    let (tenant, id) = key("r");
    assert!(engine.trace(&tenant, &id, 0, 1_000).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn references_to_one_large_value_are_not_written_out_again_and_again() {
    let mut site = Site::new();
    site.config.max_result_bytes = 1 << 20;
    let runs = site.store();
    let enact = functions(|_, _| Some(Ok(json!({"out": "x".repeat(100_000)}))));
    let engine = site.engine(&runs, enact, 1, true).await;
    let list: Vec<u32> = (0..20).collect();
    begin(&engine, FAN, double(), "r", json!({"list": list})).await;
    let error = ended(&engine, &runs, "r").await.2.error.expect("an error");
    assert_eq!(error.cause.code, "limit_reached");
    assert!(error.cause.message.contains("workflow.max_result_bytes"), "{}", error.cause.message);
    begin(&engine, FAN, double(), "s", json!({"list": list[..5]})).await;
    assert_eq!(ended(&engine, &runs, "s").await.0, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn where_all_runs_hold_too_much_those_end_that_hold_most() {
    let mut site = Site::new();
    site.config.max_host_live_bytes = 3_000_000;
    let runs = site.store();
    let (sender, open) = tokio::sync::watch::channel(false);
    let enact = functions(move |_, _| open.borrow().then(|| Ok(json!({"out": 1}))));
    let engine = site.engine(&runs, enact, 1, true).await;
    // Each holds its input, and a copy for the call.
    let large = json!({"n": "x".repeat(1_000_000)});
    begin(&engine, &chain(1, ""), double(), "small", json!({"n": 1})).await;
    begin(&engine, &chain(1, ""), double(), "first", large.clone()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    begin(&engine, &chain(1, ""), double(), "second", large).await;
    let error = ended(&engine, &runs, "second").await.2.error.expect("an error");
    assert!(error.cause.message.contains("workflow.max_host_live_bytes"), "{}", error.cause.message);
    tokio::time::sleep(Duration::from_secs(30)).await;
    sender.send_replace(true);
    for id in ["first", "small"] {
        assert_eq!(ended(&engine, &runs, id).await.0, RunStatus::Succeeded);
    }
    while engine.inner.held_bytes.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
