//! Runs that go from one process to another, and runs whose output is lost.

use super::*;
use lyra_types::function::Digest;

fn hanging() -> Arc<Functions> {
    functions(|_, _| None)
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_in_good_order_gives_its_runs_up_at_once() {
    let mut site = Site::new();
    // Nobody could wait for the lease to end.
    site.config.lease = Duration::from_secs(10_000_000);
    let runs = site.store();
    let first = site.engine(&runs, hanging(), 1, false).await;
    begin(&first, &chain(2, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    let second = site.engine(&runs, doubling(), 2, false).await;
    first.deps().tasks.stop(Duration::from_secs(1)).await;
    second.look_now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(second.active(&key("r").0, &key("r").1).is_none(), "its owner has not given it up");
    first.give_up().await.expect("given up");
    second.look_now();
    let (status, output, _) = ended(&second, &runs, "r").await;
    assert_eq!((status, output), (RunStatus::Succeeded, json!({"out": 4})));
    assert_eq!((first.load().runs, second.load().runs), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_takes_nothing_more() {
    let site = Site::new();
    let runs = site.store();
    let engine = site.engine(&runs, doubling(), 1, false).await;
    begin(&engine, &chain(1, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    ended(&engine, &runs, "r").await;
    engine.deps().tasks.stop(Duration::from_secs(1)).await;
    let (tenant, id) = key("r");
    assert_eq!(engine.redrive(&tenant, &id).await.expect_err("it ends").code, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_learns_which_runs_are_its_own() {
    let site = Site::new();
    let runs = site.store();
    let first = site.engine(&runs, hanging(), 1, false).await;
    for id in ["taken", "kept"] {
        begin(&first, &chain(1, ""), mapping(&["http://a.test"]), id, json!({"n": 1})).await;
    }
    assert_eq!(first.load().runs, 2);
    // As if it had stood still: one of its runs has another owner, and nothing was written since.
    let lapsed = site.clock.now() + Duration::from_secs(60);
    runs.renew(77, lapsed, Duration::from_secs(3_600)).await.expect("renewed");
    let taken = runs.take(77, lapsed, false, 1).await.expect("asked");
    let taken = taken[0].record.id.clone();
    first.doubt_all();
    let tenant = TenantName::default_tenant();
    while first.active(&tenant, &taken).is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(first.load().runs, 1, "the other one is its own");
}

/// A large text that is only handed on to the output, and a task after it.
const HANDED_ON: &str = r#"
name: w
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function: { name: make, type: Make, dataIns: [{ name: n, type: number, source: w/n }], dataOuts: [{ name: text, type: string }, { name: small, type: number }] }
  - function: { name: last, type: Last, dataIns: [{ name: in, type: number, source: make/small }], dataOuts: [{ name: out, type: number }] }
dataOuts:
  - { name: text, type: string, source: make/text }
  - { name: out, type: number, source: last/out }
"#;

#[tokio::test(start_paused = true)]
async fn a_run_whose_output_is_lost_fails_and_is_redriven_when_it_is_back() {
    let mut site = Site::new();
    site.config.transmission.extraction = crate::config::Extraction::InPlace;
    site.config.transmission.reference_bytes = 1_000;
    let runs = site.store();
    let (sender, open) = tokio::sync::watch::channel(false);
    let enact = functions(move |enactment, _| match enactment.task.as_str() {
        "make" => Some(Ok(json!({"text": "x".repeat(5_000), "small": 1}))),
        _ if *open.borrow() => Some(Ok(json!({"out": 2}))),
        _ => Some(Err(Failure { retry_after: Some(Duration::from_secs(1)), ..Failure::passing("not_yet", "not yet") })),
    });
    let engine = site.engine(&runs, enact, 1, true).await;
    let extra = json!(["Make", "Last"].map(
        |of| json!({"functionType": of, "resources": [{"type": "Serverless", "properties": {"Uri": "http://a.test"}}]}),
    ));
    let mapping = Mapping::parse(&extra).expect("a mapping");
    begin(&engine, HANDED_ON, mapping, "r", json!({"n": 1})).await;
    let (tenant, id) = key("r");
    let digest = loop {
        let (_, batches) = runs.journal(tenant.clone(), id.clone()).await.expect("a journal");
        if let Some(digest) = journal::blobs(&batches).expect("read").pop() {
            break Digest(digest);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let blobs = &engine.deps().blobs;
    let kept = blobs.get(&digest).await.expect("asked").expect("the text");
    blobs.delete(&digest).await.expect("deleted");
    sender.send_replace(true);
    let (status, output, summary) = ended(&engine, &runs, "r").await;
    assert_eq!((status, output), (RunStatus::Failed, Value::Null));
    let cause = summary.error.expect("an error").cause;
    assert_eq!(cause.code, "missing_value");
    assert!(cause.message.contains("\"text\"") && cause.message.contains(&digest.0), "{}", cause.message);
    // Another process reads the same out of the journal.
    let trace = engine.trace(&tenant, &id, 0, 100).await.expect("a trace");
    assert_eq!(trace.last().map(|token| token.step.as_str()), Some("Q"));
    // Whoever has the value back, from a backup, has the run end well.
    assert_eq!(blobs.put(kept).await.expect("put"), digest);
    engine.redrive(&tenant, &id).await.expect("redriven");
    let (status, output, _) = ended(&engine, &runs, "r").await;
    assert_eq!((status, output), (RunStatus::Succeeded, json!({"text": "x".repeat(5_000), "out": 2})));
}
