//! Places over restarts, runs that can't be taken up, and what is left of runs that are over.

use super::*;
use lyra_types::function::Digest;

/// A mapping on this machine, whose capacity counts.
fn local() -> Mapping {
    Mapping::parse(&json!([{"functionType": "Addition", "resources": [{"type": "Demo", "properties": {}}]}]))
        .expect("a mapping")
}

fn additions(length: usize) -> String {
    let document = chain(length, "").replace("type: Double", "type: Addition").replace("/out", "/sum");
    document.replace("dataOuts: [{ name: out, type: number }]", "dataOuts: [{ name: sum, type: number }]")
}

fn one_place() -> Site {
    let mut site = Site::new();
    site.config.scheduling.capacity = Limit::TaskNumber { max: 1 };
    site
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_made_again_after_a_restart_take_their_places() {
    let site = one_place();
    let runs = site.store();
    let hangs = functions(|_, _| None);
    let engine = site.engine(&runs, hangs.clone(), 1, true).await;
    for n in 0..4 {
        begin(&engine, &additions(2), local(), &format!("r{n}"), json!({"n": 1})).await;
    }
    while hangs.calls.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.deps().tasks.stop(Duration::from_secs(1)).await;

    let answers = functions(|_, _| Some(Ok(json!({"sum": 1}))));
    let engine = site.engine(&runs, answers.clone(), 2, true).await;
    for n in 0..4 {
        assert_eq!(ended(&engine, &runs, &format!("r{n}")).await.0, RunStatus::Succeeded);
    }
    assert_eq!(answers.most_at_once.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_known_and_a_run_that_is_cancelled_leave_no_place_taken() {
    let site = one_place();
    let runs = site.store();
    let (sender, open) = tokio::sync::watch::channel(false);
    let enact = functions(move |_, _| open.borrow().then(|| Ok(json!({"sum": 1}))));
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    assert!(begin(&engine, &additions(1), local(), "hangs", json!({"n": 1})).await);
    while enact.calls.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(begin(&engine, &additions(1), local(), "waits", json!({"n": 1})).await);
    command(&engine, "hangs", RunCommand::Cancel).await;
    sender.send_replace(true);
    assert_eq!(ended(&engine, &runs, "waits").await.0, RunStatus::Succeeded, "it was told of the place");
    // The place that a start takes before its id turns out to be known goes back.
    assert!(!begin(&engine, &additions(1), local(), "waits", json!({"n": 1})).await);
    begin(&engine, &additions(1), local(), "last", json!({"n": 1})).await;
    assert_eq!(ended(&engine, &runs, "last").await.0, RunStatus::Succeeded);
}

const WAITS_BESIDE: &str = r#"
name: w
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: approve
      type: "lyra:callback"
      dataIns: [{ name: n, type: number, source: w/n }]
      dataOuts: [{ name: approved, type: boolean }]
  - function:
      name: double
      type: Double
      dataIns: [{ name: in, type: number, source: w/n }]
      dataOuts: [{ name: out, type: number }]
dataOuts:
  - { name: approved, type: boolean, source: approve/approved }
  - { name: out, type: number, source: double/out }
"#;

#[tokio::test(start_paused = true)]
async fn what_waits_for_somebody_outside_holds_nothing_up() {
    let mut site = Site::new();
    site.config.run_in_flight = 1;
    let (runs, enact) = (site.store(), doubling());
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    begin(&engine, WAITS_BESIDE, mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    let (tenant, id) = key("r");
    let mut handle = engine.active(&tenant, &id).expect("under way");
    let done = handle.seen.wait_for(|seen| seen.counts.succeeded == 1);
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("the function is called").expect("under way");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_workflow_cannot_be_read_says_so_and_goes_on_when_it_can() {
    let site = Site::new();
    let runs = site.store();
    let engine = site.engine(&runs, functions(|_, _| None), 1, true).await;
    for id in ["mended", "cancelled"] {
        begin(&engine, &chain(1, ""), mapping(&["http://a.test"]), id, json!({"n": 1})).await;
    }
    engine.deps().tasks.stop(Duration::from_secs(1)).await;
    let (tenant, id) = key("mended");
    let (head, _) = runs.journal(tenant.clone(), id.clone()).await.expect("a journal");
    let head: Head = serde_json::from_slice(&head).expect("a head");
    let program = Digest(head.program);
    let kept = engine.deps().blobs.get(&program).await.expect("read").expect("there");
    engine.deps().blobs.delete(&program).await.expect("deleted");

    let engine = site.engine(&runs, doubling(), 2, true).await;
    let summary = |id: &str| {
        let ((tenant, id), runs) = (key(id), Arc::clone(&runs));
        async move {
            let (record, _) = runs.get(tenant, id, false).await.expect("the run");
            serde_json::from_slice::<Summary>(&record.summary).expect("a summary")
        }
    };
    let reason = summary("mended").await.stuck.expect("a reason");
    assert!(reason.contains("not in the blob store"), "{reason}");
    assert_eq!(engine.deps().metrics.stuck.get(), 2);
    let (tenant, id) = key("cancelled");
    assert!(engine.cancel_stuck(&tenant, &id).await.expect("cancelled"));
    assert_eq!(ended(&engine, &runs, "cancelled").await.0, RunStatus::Cancelled);

    engine.deps().blobs.put(kept).await.expect("put back");
    let (status, output, summary) = ended(&engine, &runs, "mended").await;
    assert_eq!((status, output, summary.stuck), (RunStatus::Succeeded, json!({"out": 2}), None));
    assert_eq!(engine.deps().metrics.stuck.get(), 0);
}

async fn blobs_of(engine: &Engine) -> usize {
    engine.deps().blobs.list().await.expect("listed").len()
}

#[tokio::test(start_paused = true)]
async fn what_a_run_has_in_the_blob_store_goes_with_it() {
    let mut site = Site::new();
    site.config.inline_bytes = 200;
    site.config.retention = Duration::from_secs(3_600);
    let runs = site.store();
    let enact = functions(|_, _| Some(Ok(json!({"out": "x".repeat(5_000)}))));
    let engine = site.engine(&runs, enact, 1, true).await;
    begin(&engine, &chain(3, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    begin(&engine, &chain(3, ""), mapping(&["http://a.test"]), "s", json!({"n": 1})).await;
    assert!(ended(&engine, &runs, "r").await.2.spilled);
    ended(&engine, &runs, "s").await;
    assert_eq!(blobs_of(&engine).await, 7, "a program, and three outputs of each run, though they are the same");
    let (tenant, id) = key("r");
    // Not before its time.
    assert!(!engine.forget(&tenant, &key("unknown").1, site.clock.now()).await.expect("asked"));
    let over = site.clock.now();
    assert!(!engine.is_over(over));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(engine.is_over(over), "nobody redrives it while it is being forgotten");
    while runs.get(tenant.clone(), id.clone(), false).await.is_ok() || blobs_of(&engine).await > 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Large texts go through a branch, a loop and another loop over what that has made.
const LARGE: &str = r#"
name: w
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function: { name: make, type: Make, dataIns: [{ name: n, type: number, source: w/n }], dataOuts: [{ name: text, type: string }, { name: list, type: collection }, { name: small, type: number }] }
  - if:
      name: choose
      dataIns: [{ name: s, type: number, source: make/small }]
      condition: [{ data1: choose/s, data2: "3", type: number, operator: "<", negation: "false", combinedWith: and }]
      then:
        - function: { name: yes, type: Copy, dataIns: [{ name: in, type: string, source: make/text }], dataOuts: [{ name: out, type: string }] }
      else:
        - function: { name: no, type: Copy, dataIns: [{ name: in, type: string, source: make/text }], dataOuts: [{ name: out, type: string }] }
      dataOuts: [{ name: out, type: string, source: "yes/out,no/out" }]
  - parallelFor:
      name: each
      dataIns: [{ name: e, type: string, source: make/list }]
      iterators: [e]
      loopBody:
        - function: { name: inner, type: Copy, dataIns: [{ name: in, type: string, source: each/e }], dataOuts: [{ name: out, type: string }] }
      dataOuts: [{ name: outs, type: collection, source: inner/out }]
  - parallelFor:
      name: again
      dataIns: [{ name: e, type: string, source: each/outs }]
      iterators: [e]
      loopBody:
        - function: { name: last, type: Copy, dataIns: [{ name: in, type: string, source: again/e }], dataOuts: [{ name: out, type: string }] }
      dataOuts: [{ name: outs, type: collection, source: last/out }]
dataOuts:
  - { name: chosen, type: string, source: choose/out }
  - { name: outs, type: collection, source: again/outs }
"#;

async fn large(extraction: crate::config::Extraction) -> (Value, usize, usize) {
    let mut site = Site::new();
    (site.config.transmission.extraction, site.config.transmission.reference_bytes) = (extraction, 1_000);
    site.config.inline_bytes = usize::MAX;
    let runs = site.store();
    let enact = functions(|enactment, _| {
        assert!(!String::from_utf8_lossy(&enactment.input).contains("lyra:value"), "no function sees a reference");
        let input: Value = serde_json::from_slice(&enactment.input).expect("an object");
        Some(Ok(match enactment.function_type.as_str() {
            "Make" => {
                let text = |c: &str| c.repeat(5_000);
                json!({"text": text("x"), "list": [text("a"), text("b"), text("c")], "small": 1})
            }
            _ => json!({"out": input["in"]}),
        }))
    });
    let engine = site.engine(&runs, enact, 1, true).await;
    let mapping = ["Make", "Copy"].map(
        |of| json!({"functionType": of, "resources": [{"type": "Serverless", "properties": {"Uri": "http://a.test"}}]}),
    );
    begin(&engine, LARGE, Mapping::parse(&json!(mapping)).expect("a mapping"), "r", json!({"n": 1})).await;
    let (status, output, _) = ended(&engine, &runs, "r").await;
    assert_eq!(status, RunStatus::Succeeded);
    let (tenant, id) = key("r");
    let (_, batches) = runs.journal(tenant.clone(), id.clone()).await.expect("a journal");
    let blobs = blobs_of(&engine).await;
    let trace = engine.trace(&tenant, &id, 0, 1_000).await.expect("a trace");
    assert_eq!(trace.last().map(|token| token.step.as_str()), Some("Q"));
    assert!(engine.forget(&tenant, &id, site.clock.now() + Duration::from_secs(1)).await.expect("forgotten"));
    assert_eq!(blobs_of(&engine).await, 1, "what it left goes with it; the program stays");
    (output, batches.iter().map(Bytes::len).sum(), blobs)
}

#[tokio::test(start_paused = true)]
async fn large_values_that_are_only_handed_on_stay_in_the_blob_store_and_give_the_same() {
    let (at_home, journal, blobs) = large(crate::config::Extraction::Home).await;
    assert!(journal > 50_000 && blobs == 1, "{journal} bytes, {blobs} blobs");
    let (in_place, journal, blobs) = large(crate::config::Extraction::InPlace).await;
    assert_eq!(in_place, at_home);
    assert_eq!(in_place["outs"][2], "c".repeat(5_000));
    // The list is counted, and so is here; the text, the branch's copy and the copies of both loops are not.
    assert!((15_000..25_000).contains(&journal), "{journal} bytes");
    assert_eq!(blobs, 1 + 1 + 1 + 3 + 3);
}
