//! Runs in runs: here over real files, elsewhere over a server that a test answers for.

use std::sync::Arc;

use lyra_kit::Clock;
use lyra_wire::workflows::{Completion, NewPart, NewWorkflow, RunCommand, RunQuery};

mod step;

use super::*;
use crate::Config;
use crate::clearing::tests::Site;
use crate::enact::http;
use crate::enact::tests::doubles::FakeEnds;
use crate::enact::tests::target::{Act, Target};

const CHILD: &str = "
name: child
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: add
      type: Addition
      dataIns:
        - { name: firstSummand, type: number, source: child/n }
        - { name: secondSummand, type: number, source: 1 }
        - { name: waitTimeIn, type: number, source: 20 }
      dataOuts: [{ name: sum, type: number }]
dataOuts: [{ name: sum, type: number, source: add/sum }]
";

const EACH: &str = "
name: each
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - parallelFor:
      name: all
      dataIns: [{ name: e, type: number, source: each/list }]
      iterators: [e]
      loopBody:
        - function:
            name: sub
            type: Child
            dataIns: [{ name: n, type: number, source: all/e }]
            dataOuts: [{ name: sum, type: number }]
      dataOuts: [{ name: sums, type: collection, source: sub/sum }]
dataOuts: [{ name: sums, type: collection, source: all/sums }]
";

const ASK: &str = "
name: ask
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: wait
      type: \"lyra:callback\"
      dataIns: [{ name: n, type: number, source: ask/n }]
      dataOuts: [{ name: ok, type: boolean }]
dataOuts: [{ name: ok, type: boolean, source: wait/ok }]
";

/// Has one task of the type `Ask`, which is tried once.
const PARENT: &str = "
name: parent
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: sub
      type: Ask
      dataIns: [{ name: n, type: number, source: parent/n }]
      dataOuts: [{ name: ok, type: boolean }]
      properties: [{ name: retry-attempts, value: 1 }, { name: timeout, value: TIME }]
dataOuts: [{ name: ok, type: boolean, source: sub/ok }]
";

async fn site(change: impl FnOnce(&mut Config)) -> Site {
    let mut config = Config::default();
    change(&mut config);
    let dir = tempfile::tempdir().expect("a directory");
    Site::on(dir, config, Clock::system(), Arc::new(FakeEnds::default())).await
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

impl Site {
    async fn has(&self, name: &str, definition: &str, mappings: Value) {
        let (name, definition) = (WorkflowName::new(name).expect("a name"), definition.to_owned());
        let new = NewWorkflow { name, definition, mappings, schedule: None };
        self.service.deploy(&tenant(), new).await.expect("deployed");
    }

    async fn start(&self, name: &str, input: Value) -> RunId {
        let input = input.as_object().expect("an object").clone();
        let name = WorkflowName::new(name).expect("a name");
        self.service.start(&tenant(), &name, NewRun { input, ..NewRun::default() }).await.expect("started").id
    }

    async fn ended(&self, id: &RunId) -> Run {
        let run = self.service.run(&tenant(), id, Duration::from_secs(30)).await.expect("the run");
        assert!(run.status.is_final(), "{run:?}");
        run
    }

    /// The runs of a workflow, oldest first, once there are so many.
    async fn runs_of(&self, name: &str, count: usize) -> Vec<Run> {
        let query = RunQuery { workflow: Some(WorkflowName::new(name).expect("a name")), ..RunQuery::default() };
        let query = RunQuery { page: lyra_wire::control::PageQuery { limit: 100, cursor: None }, ..query };
        for _ in 0..1_000 {
            let mut found = self.service.runs(&tenant(), query.clone()).await.expect("runs").items;
            if found.len() >= count {
                found.reverse();
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("there are no {count} runs of {name}");
    }

    /// The token of the one task of a run that waits.
    async fn token(&self, id: &RunId) -> String {
        for _ in 0..1_000 {
            // In the moment of a redrive nobody has it.
            let waiting = self.service.waiting(&tenant(), id).await.unwrap_or_default();
            if let Some(task) = waiting.into_iter().next() {
                return task.token.expect("a token");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no task of {id} waits");
    }
}

fn demo() -> Value {
    json!([{"functionType": "Addition", "resources": [{"type": "Demo"}]}])
}

fn sub(function_type: &str, name: &str) -> Value {
    json!([{"functionType": function_type, "resources": [{"type": "Workflow", "properties": {"name": name}}]}])
}

#[tokio::test]
async fn more_sub_workflows_than_there_are_places_for_calls_all_end() {
    let site = site(|config| config.in_flight = 2).await;
    site.has("child", CHILD, demo()).await;
    site.has("each", EACH, sub("Child", "child")).await;
    let id = site.start("each", json!({"list": [1, 2, 3, 4, 5, 6, 7, 8]})).await;
    let run = site.ended(&id).await;
    assert_eq!(Value::from(run.output.expect("an output")), json!({"sums": [2, 3, 4, 5, 6, 7, 8, 9]}));
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_sub_workflow_that_was_cancelled_with_its_run_is_made_anew_when_that_is_redriven() {
    let site = site(|_| ()).await;
    site.has("ask", ASK, json!([])).await;
    site.has("parent", &PARENT.replace("TIME", "1h"), sub("Ask", "ask")).await;
    let id = site.start("parent", json!({"n": 1})).await;
    let first = site.runs_of("ask", 1).await.remove(0).id;
    site.token(&first).await;
    site.service.command(&tenant(), &id, RunCommand::Cancel).await.expect("cancelled");
    assert_eq!(site.ended(&first).await.status, RunStatus::Cancelled);
    site.service.command(&tenant(), &id, RunCommand::Redrive).await.expect("redriven");
    let second = site.runs_of("ask", 2).await.remove(1).id;
    assert_ne!(first, second);
    let token = site.token(&second).await;
    let output = json!({"ok": true}).as_object().expect("an object").clone();
    site.service.complete(&token, Completion::Output(output)).await.expect("completed");
    assert_eq!(site.ended(&id).await.status, RunStatus::Succeeded);
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_token_for_a_task_is_good_after_its_run_was_redriven() {
    let site = site(|_| ()).await;
    site.has("ask", ASK, json!([])).await;
    let id = site.start("ask", json!({"n": 1})).await;
    let token = site.token(&id).await;
    site.service.command(&tenant(), &id, RunCommand::Cancel).await.expect("cancelled");
    site.service.command(&tenant(), &id, RunCommand::Redrive).await.expect("redriven");
    assert_eq!(site.token(&id).await, token);
    site.service.stop(Duration::ZERO).await;
}

const EDGE: &str = "
name: cuts
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: far
      type: Far
      dataIns: [{ name: n, type: number, source: cuts/n }]
      dataOuts: [{ name: m, type: number }]
  - function:
      name: near
      type: Addition
      dataIns:
        - { name: firstSummand, type: number, source: far/m }
        - { name: secondSummand, type: number, source: 1 }
        - { name: waitTimeIn, type: number, source: 0 }
      dataOuts: [{ name: sum, type: number }]
cuts: [{ name: edge, members: [far] }]
dataOuts: [{ name: sum, type: number, source: near/sum }]
";

/// Another Lyra, on which parts never end.
async fn elsewhere() -> Target {
    let answer = |request: &str| match request.starts_with("POST /v1/cuts") {
        true => Act::hang(""),
        false => Act::json("200 OK", "{}"),
    };
    Target::with(answer, None).await
}

fn cut_to(target: &Target) -> Value {
    let mut mappings = demo();
    let more = json!([
        {"functionType": "Far", "resources": [{"type": "Function", "properties": {"name": "far"}}]},
        {"functionType": "lyra:cut/edge", "resources": [{"type": "Cut", "properties": {"url": target.url("")}}]},
    ]);
    let more = more.as_array().expect("an array").clone();
    mappings.as_array_mut().expect("an array").extend(more);
    mappings
}

/// The body of the first request whose target begins so, once there is one.
async fn asked(target: &Target, beginning: &str) -> String {
    for _ in 0..1_000 {
        let found = target.requests.lock().iter().find(|request| request.starts_with(beginning)).cloned();
        if let Some(found) = found {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody asked for {beginning}: {:?}", target.requests.lock());
}

fn part_of(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
}

#[tokio::test]
async fn a_part_elsewhere_is_cancelled_when_its_run_is() {
    let (site, target) = (site(|_| ()).await, elsewhere().await);
    site.has("cuts", EDGE, cut_to(&target)).await;
    let id = site.start("cuts", json!({"n": 1})).await;
    let part = part_of(&asked(&target, "POST /v1/cuts").await);
    assert_eq!(part.get("depth"), None, "nothing stands around the run");
    site.service.command(&tenant(), &id, RunCommand::Cancel).await.expect("cancelled");
    asked(&target, &format!("POST /v1/runs/{}/cancel", part["id"].as_str().expect("an id"))).await;
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_part_elsewhere_is_cancelled_when_its_try_has_had_its_time() {
    let (site, target) = (
        site(|config| {
            config.task_timeout = Duration::from_millis(300);
            config.attempts = 1;
        })
        .await,
        elsewhere().await,
    );
    site.has("cuts", EDGE, cut_to(&target)).await;
    let id = site.start("cuts", json!({"n": 1})).await;
    let part = part_of(&asked(&target, "POST /v1/cuts").await);
    asked(&target, &format!("POST /v1/runs/{}/cancel", part["id"].as_str().expect("an id"))).await;
    assert_eq!(site.ended(&id).await.error.expect("an error").cause.code, "timeout");
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn how_deep_runs_nest_is_counted_over_all_lyras() {
    let (site, target) = (site(|_| ()).await, elsewhere().await);
    site.has("child", EDGE, cut_to(&target)).await;
    site.has("each", EACH, sub("Child", "child")).await;
    site.start("each", json!({"list": [1]})).await;
    let part = part_of(&asked(&target, "POST /v1/cuts").await);
    assert_eq!(part["depth"], 1, "{part}");
    // Here it is one deeper; at the limit it is refused.
    let mut new: NewPart = serde_json::from_value(part).expect("a part");
    new.depth = DEPTH;
    let refused = site.service.start_part(&tenant(), new.clone()).await.expect_err("too deep");
    assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::InvalidField, "depth"));
    new.depth = DEPTH - 1;
    site.service.start_part(&tenant(), new).await.expect("it is just deep enough");
    site.service.stop(Duration::ZERO).await;
}

fn enactment(tenant: &str) -> Enactment {
    Enactment {
        tenant: TenantName::new(tenant).expect("a name"),
        run: RunId::new("r").expect("an id"),
        task: "edge".to_owned(),
        key: "r/0//1".to_owned(),
        attempt: 1,
        function_type: "lyra:cut/edge".to_owned(),
        input: Bytes::from_static(b"{}"),
        timeout: LOOK,
        traceparent: String::new(),
        user: None,
    }
}

#[tokio::test]
async fn a_token_goes_to_the_lyra_and_from_the_tenant_that_it_is_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "lyra_secret\n").expect("written");
    let token = CutToken { url: "https://cloud.test/".to_owned(), file, tenants: vec![enactment("acme").tenant] };
    let missing = CutToken { file: dir.path().join("none"), ..token.clone() };
    let http = Http::new(http::Config::default(), Clock::system()).expect("a client");
    let tokens = [("cloud".to_owned(), token), ("lost".to_owned(), missing)].into_iter().collect();
    let nested = NestedRuns::new(Arc::new(http), tokens, Tasks::new());
    let found = nested.token(&enactment("acme"), "cloud", "https://cloud.test").await.expect("the token");
    assert_eq!(found.reveal(), "lyra_secret");
    for (tenant, name, url, retryable) in [
        ("acme", "cloud", "https://elsewhere.test", false),
        ("acme", "cloud", "http://cloud.test", false),
        ("other", "cloud", "https://cloud.test", false),
        ("acme", "unknown", "https://cloud.test", false),
        ("acme", "lost", "https://cloud.test", true),
    ] {
        let refused = nested.token(&enactment(tenant), name, url).await.expect_err("no token");
        assert_eq!((refused.cause.code.as_str(), refused.retryable), ("unauthenticated", retryable), "{name} {url}");
        assert!(!refused.cause.message.contains("secret"), "{}", refused.cause.message);
    }
}
