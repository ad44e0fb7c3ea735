//! Workflows and runs, over a role in memory.

pub mod double;

use std::sync::Arc;
use std::time::Duration;

use lyra_gateway::{Config, Tokens};
use lyra_types::Scope;
use lyra_types::workflow::RunStatus;
use lyra_wire::accounts::TenantState;
use serde_json::{Map, Value, json};

use crate::accounts::FakeAccounts;
use crate::client::{Answer, Gateway, OK, deps, serve};
use double::FakeWorkflows;

async fn with_role() -> (Gateway, Arc<FakeWorkflows>) {
    let role = Arc::new(FakeWorkflows::default());
    let (mut deps, control, worker, logs) = deps();
    deps.workflows = Some(Arc::<FakeWorkflows>::clone(&role));
    (serve(Config::default(), deps, control, worker, logs).await, role)
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    gateway.send(&format!("POST {path}"), &[("content-type", "application/json")], body.to_string()).await
}

fn workflow(definition: &str) -> Value {
    json!({"name": "thumbs", "definition": definition, "mappings": []})
}

#[tokio::test]
async fn a_workflow_is_deployed_shown_listed_and_deleted() {
    let (gateway, _) = with_role().await;
    let made = post(&gateway, "/v1/workflows", &workflow("v1")).await;
    assert_eq!((made.status, made.header("location")), (201, "/v1/workflows/thumbs"));
    assert_eq!((&made.json()["name"], &made.json()["version"]), (&json!("thumbs"), &json!(1)));
    assert_eq!(post(&gateway, "/v1/workflows", &workflow("v1")).await.status, OK, "nothing has changed");
    assert_eq!(post(&gateway, "/v1/workflows", &workflow("v2")).await.json()["version"], 2);
    assert_eq!(gateway.get("/v1/workflows").await.json()["items"][0]["version"], 2);
    assert_eq!(gateway.get("/v1/workflows/thumbs").await.json()["definition"], "v2");
    for path in ["/v1/workflows/thumbs?version=1", "/v1/workflows/thumbs/versions/1"] {
        assert_eq!(gateway.get(path).await.json()["definition"], "v1", "{path}");
    }
    for path in ["/v1/workflows/thumbs/versions/9", "/v1/workflows/thumbs/versions/x", "/v1/workflows/other"] {
        assert_eq!(gateway.get(path).await.fault(), (404, "not_found".into()), "{path}");
    }
    assert_eq!(gateway.send("DELETE /v1/workflows/thumbs", &[], "").await.status, 204);
    assert_eq!(gateway.get("/v1/workflows/thumbs").await.fault(), (404, "not_found".into()));
}

#[tokio::test]
async fn faults_of_a_document_are_told_with_their_place() {
    let (gateway, _) = with_role().await;
    let refused = post(&gateway, "/v1/workflows", &workflow("bad")).await;
    assert_eq!(refused.fault(), (422, "invalid_field".into()));
    assert_eq!((&refused.json()["errors"][0]["line"], &refused.json()["errors"][0]["column"]), (&json!(7), &json!(3)));
    for (body, field) in [
        (json!({"name": "x"}), "definition"),
        (json!({"name": "Bad Name", "definition": "x"}), "name"),
        (json!({"name": "x", "definition": 1}), "definition"),
        (json!({"name": "x", "definition": "x", "mapping": []}), "mapping"),
    ] {
        let answer = post(&gateway, "/v1/workflows", &body).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["field"]), (422, &json!(field)), "{body}");
    }
    let text = gateway.send("POST /v1/workflows", &[("content-type", "text/yaml")], "name: x").await;
    assert_eq!(text.fault(), (415, "unsupported_media_type".into()));
}

#[tokio::test]
async fn the_processes_that_run_workflows_are_listed_with_what_they_own() {
    let (gateway, _) = with_role().await;
    let page = gateway.get("/v1/workflow-members?limit=2").await.json();
    let [c1, f1] = &page["items"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&c1["state"], &c1["role"], c1.get("address")), (&json!("ready"), &json!("control"), None));
    assert_eq!((&c1["runs"], &c1["stuck"], &c1["calls"]), (&json!(3), &json!(1), &json!(2)));
    assert_eq!((&f1["state"], &f1["address"]), (&json!("leaving"), &json!("f1:7070")));
    let next = format!("/v1/workflow-members?cursor={}", page["next"].as_str().unwrap().replace('+', "%2B"));
    let f2 = &gateway.get(&next).await.json()["items"][0];
    assert_eq!((&f2["name"], &f2["state"], f2.get("runs")), (&json!("f2"), &json!("unreachable"), None));
}

#[tokio::test]
async fn a_run_is_started_and_waited_for() {
    let (gateway, role) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    let started = post(&gateway, "/v1/workflows/thumbs/runs", &json!({"input": {"n": 3}, "id": "mine"})).await;
    assert_eq!((started.status, started.header("location")), (202, "/v1/runs/mine"));
    assert_eq!(started.json()["id"], "mine");
    let again = post(&gateway, "/v1/workflows/thumbs/runs", &json!({"input": {"n": 3}, "id": "mine"})).await;
    assert_eq!((again.status, &again.json()["created"]), (202, &json!(false)));
    let other = post(&gateway, "/v1/workflows/thumbs/runs", &json!({"input": {"n": 4}, "id": "mine"})).await;
    assert_eq!(other.fault(), (422, "idempotency_mismatch".into()));
    let running =
        post(&gateway, "/v1/workflows/thumbs/runs?wait=0.01", &json!({"id": "mine", "input": {"n": 3}})).await;
    assert_eq!((running.status, &running.json()["status"]), (202, &json!("running")));
    role.end("mine", RunStatus::Succeeded, json!({"sum": 6}));
    let ended = post(&gateway, "/v1/workflows/thumbs/runs?wait=30", &json!({"id": "mine", "input": {"n": 3}})).await;
    assert_eq!((ended.status, &ended.json()["output"]), (OK, &json!({"sum": 6})));
    assert_eq!(gateway.get("/v1/runs/mine?wait=30").await.json()["status"], "succeeded");
    let bare = gateway.send("POST /v1/workflows/thumbs/runs", &[], "").await;
    assert_eq!(bare.status, 202, "no body is no input");
    assert_eq!(*role.inputs.lock().values().nth(1).unwrap(), Map::new());
    assert_eq!(post(&gateway, "/v1/workflows/none/runs", &json!({})).await.fault(), (404, "not_found".into()));
    for (body, field) in
        [(json!({"input": [1]}), "input"), (json!({"id": "a b"}), "id"), (json!({"inputs": {}}), "inputs")]
    {
        let answer = post(&gateway, "/v1/workflows/thumbs/runs", &body).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["field"]), (422, &json!(field)), "{body}");
    }
    let bad = post(&gateway, "/v1/workflows/thumbs/runs?wait=soon", &json!({})).await;
    assert_eq!(bad.fault(), (400, "bad_request".into()));
}

#[tokio::test]
async fn a_part_of_another_lyras_workflow_is_a_run_here() {
    let (gateway, role) = with_role().await;
    let part = json!({"id": "far.1", "graph": {"tasks": []}, "mappings": [], "input": {"n": 1}});
    let started = post(&gateway, "/v1/cuts", &part).await;
    assert_eq!((started.status, &started.json()["id"]), (202, &json!("far.1")));
    assert_eq!(post(&gateway, "/v1/cuts", &part).await.json()["id"], "far.1");
    assert_eq!(role.inputs.lock().values().next().unwrap()["n"], 1);
    let bad = post(&gateway, "/v1/cuts", &json!({"id": "far.2", "graph": {}})).await;
    assert_eq!(bad.fault(), (422, "invalid_field".into()));
}

#[tokio::test]
async fn runs_are_listed_by_workflow_and_status() {
    let (gateway, role) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    for id in ["a", "b", "c"] {
        post(&gateway, "/v1/workflows/thumbs/runs", &json!({"id": id})).await;
    }
    role.end("b", RunStatus::Failed, Value::Null);
    let listed = async |query: &str| {
        let page = gateway.get(&format!("/v1/runs?{query}")).await.json();
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(listed("").await, 3);
    assert_eq!((listed("status=failed").await, listed("workflow=thumbs&status=running").await), (1, 2));
    assert_eq!((listed("workflow=other").await, listed("limit=2").await, listed("limit=2&cursor=2").await), (0, 2, 1));
    assert_eq!(gateway.get("/v1/runs?status=asleep").await.fault(), (400, "bad_request".into()));
}

#[tokio::test]
async fn a_run_takes_commands_where_its_state_allows() {
    let (gateway, _) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    post(&gateway, "/v1/workflows/thumbs/runs", &json!({"id": "r"})).await;
    for (verb, status) in [("pause", "paused"), ("resume", "running"), ("cancel", "cancelled"), ("redrive", "running")]
    {
        let answer = gateway.send(&format!("POST /v1/runs/r/{verb}"), &[], "").await;
        assert_eq!((answer.status, &answer.json()["status"]), (OK, &json!(status)), "{verb}");
    }
    gateway.send("POST /v1/runs/r/cancel", &[], "").await;
    assert_eq!(gateway.send("POST /v1/runs/r/pause", &[], "").await.fault(), (409, "conflict".into()));
    for path in ["/v1/runs/none/cancel", "/v1/runs/a%20b/cancel"] {
        assert_eq!(gateway.send(&format!("POST {path}"), &[], "").await.fault(), (404, "not_found".into()), "{path}");
    }
}

#[tokio::test]
async fn a_run_that_has_ended_is_deleted() {
    let (gateway, role) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    post(&gateway, "/v1/workflows/thumbs/runs", &json!({"id": "r"})).await;
    assert_eq!(gateway.send("DELETE /v1/runs/r", &[], "").await.fault(), (409, "conflict".into()));
    role.end("r", RunStatus::Succeeded, Value::Null);
    assert_eq!(gateway.send("DELETE /v1/runs/r", &[], "").await.status, 204);
    for request in ["GET /v1/runs/r", "DELETE /v1/runs/r", "DELETE /v1/runs/a%20b"] {
        assert_eq!(gateway.send(request, &[], "").await.fault(), (404, "not_found".into()), "{request}");
    }
}

#[tokio::test]
async fn a_trace_comes_in_pages() {
    let (gateway, _) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    post(&gateway, "/v1/workflows/thumbs/runs", &json!({"id": "r"})).await;
    let first = gateway.get("/v1/runs/r/trace?limit=2").await.json();
    assert_eq!((&first["items"][1]["seq"], &first["next"]), (&json!(1), &json!("2")));
    let second = gateway.get("/v1/runs/r/trace?limit=2&cursor=2").await.json();
    assert_eq!((&second["items"][0]["seq"], &second["next"]), (&json!(2), &json!("4")));
    let last = gateway.get("/v1/runs/r/trace?from=4&limit=2").await.json();
    assert_eq!((last["items"].as_array().unwrap().len(), &last["next"]), (1, &Value::Null));
    assert_eq!(gateway.get("/v1/runs/r/trace").await.json()["items"].as_array().unwrap().len(), 5);
    for bad in ["from=1&cursor=2", "from=x", "limit=0"] {
        assert_eq!(gateway.get(&format!("/v1/runs/r/trace?{bad}")).await.fault(), (400, "bad_request".into()), "{bad}");
    }
}

#[tokio::test]
async fn a_trace_comes_as_spans_in_the_trace_of_the_starter() {
    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (gateway, role) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    let start = |id: &str, header: &'static str| {
        let (gateway, body) = (&gateway, json!({ "id": id }).to_string());
        let headers = [("content-type", "application/json"), ("traceparent", header)];
        async move { gateway.send("POST /v1/workflows/thumbs/runs", &headers, body).await.status }
    };
    assert_eq!(start("r", HEADER).await, 202);
    assert_eq!(start("s", "nonsense").await, 202, "a header that is none is left out");
    let named = post(&gateway, "/v1/workflows/thumbs/runs", &json!({"traceparent": "nonsense"})).await;
    assert_eq!((named.status, &named.json()["errors"][0]["field"]), (422, &json!("traceparent")));
    assert_eq!(gateway.get("/v1/runs/r").await.json()["traceparent"], HEADER);
    assert_eq!(gateway.get("/v1/runs/s").await.json()["traceparent"], Value::Null);
    role.end("r", RunStatus::Succeeded, json!({}));
    let spans = gateway.get("/v1/runs/r/trace?format=otlp").await.json();
    assert_eq!(spans["resourceSpans"][0]["resource"]["attributes"][0]["key"], "service.name", "{spans}");
    assert_eq!(gateway.get("/v1/runs/r/trace?format=tokens&limit=2").await.json()["next"], "2");
    for bad in ["format=xml", "format=otlp&limit=2", "format=otlp&from=1"] {
        assert_eq!(gateway.get(&format!("/v1/runs/r/trace?{bad}")).await.fault(), (400, "bad_request".into()), "{bad}");
    }
    assert_eq!(gateway.get("/v1/runs/none/trace?format=otlp").await.fault(), (404, "not_found".into()));
}

#[tokio::test]
async fn an_outside_party_completes_a_task() {
    let (gateway, role) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    post(&gateway, "/v1/workflows/thumbs/runs", &json!({"id": "r"})).await;
    let waiting = gateway.get("/v1/runs/r/waiting").await.json();
    assert_eq!((&waiting["items"][0]["token"], &waiting["next"]), (&json!("cb_1"), &Value::Null));
    assert_eq!(post(&gateway, "/v1/callbacks/cb_1", &json!({"output": {"ok": true}})).await.status, 204);
    let failed = json!({"error": {"code": "refused", "message": "no"}});
    assert_eq!(post(&gateway, "/v1/callbacks/cb_1", &failed).await.status, 204);
    assert_eq!(role.completed.lock().len(), 2);
    assert_eq!(post(&gateway, "/v1/callbacks/cb_2", &failed).await.fault(), (404, "not_found".into()));
    for bad in [
        json!({}),
        json!({"output": 1}),
        json!({"error": {}}),
        json!({"output": {}, "error": {"code": "x", "message": "y"}}),
    ] {
        assert_eq!(post(&gateway, "/v1/callbacks/cb_1", &bad).await.fault(), (422, "invalid_field".into()), "{bad}");
    }
}

#[tokio::test]
async fn a_wait_for_a_run_ends_when_the_gateway_does() {
    let (mut gateway, _) = with_role().await;
    post(&gateway, "/v1/workflows", &workflow("v1")).await;
    post(&gateway, "/v1/workflows/thumbs/runs", &json!({"id": "r"})).await;
    let mut waiting = Box::pin(gateway.get("/v1/runs/r?wait=60"));
    tokio::select! {
        answer = &mut waiting => panic!("did not wait: {answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(50)) => gateway.shutdown.cancel(),
    }
    let answer = tokio::time::timeout(Duration::from_secs(20), &mut waiting).await.expect("the wait ends too");
    assert_eq!(answer.json()["status"], "running");
    drop(waiting);
    gateway.served.take().unwrap().await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_workflow_role_its_routes_say_so() {
    let (mut deps, control, worker, logs) = deps();
    deps.workflows = None;
    let gateway = serve(Config::default(), deps, control, worker, logs).await;
    for target in ["GET /v1/workflows", "GET /v1/runs/r", "POST /v1/workflows"] {
        assert_eq!(gateway.send(target, &[], "{}").await.fault(), (503, "unavailable".into()), "{target}");
    }
}

#[tokio::test]
async fn tokens_of_tasks_are_shown_to_those_who_may_invoke_and_completions_are_written_down() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let token = |scopes: &[Scope]| format!("Bearer {}", accounts.grant(Some("acme"), None, scopes).secret.reveal());
    let [reads, invokes, both] = [&[Scope::Read][..], &[Scope::Invoke], &[Scope::Deploy, Scope::Invoke]].map(token);
    let (mut deps, control, worker, logs) = deps();
    deps.accounts = Arc::<FakeAccounts>::clone(&accounts);
    let tokens = Tokens::parse("an-operators-token").unwrap();
    let gateway = serve(Config { tokens, ..Config::default() }, deps, control, worker, logs).await;
    let with = async |token: &str, target: &str, body: &str| {
        let headers = [("authorization", token), ("content-type", "application/json")];
        gateway.send(target, &headers, body.to_owned()).await
    };
    // A part comes with its own definition: who may only invoke what is there can't run one.
    let part = r#"{"id":"r","graph":{"tasks":[]},"mappings":[],"input":{}}"#;
    for who in [&reads, &invokes] {
        assert_eq!(with(who, "POST /v1/cuts", part).await.fault(), (403, "permission_denied".into()));
    }
    assert_eq!(with(&both, "POST /v1/cuts", part).await.status, 202);
    let waiting = "GET /v1/runs/r/waiting";
    let shown = with(&reads, waiting, "").await.json();
    assert_eq!((&shown["items"][0]["task"], shown["items"][0].get("token")), (&json!("approve"), None));
    assert_eq!(with(&invokes, waiting, "").await.json()["items"][0]["token"], "cb_1");
    let complete = async |token: &str| {
        let target = format!("POST /v1/callbacks/{token}");
        gateway.send(&target, &[("content-type", "application/json")], r#"{"output":{}}"#).await.status
    };
    assert_eq!(complete("cb_acme~r~0~~1~proof").await, 204);
    assert_eq!(complete("cb_acme~r~0~~1~guess").await, 404);
    let recorded = accounts.recorded.lock().clone();
    let [event] = &recorded[..] else { panic!("{recorded:?}") };
    let tenant = event.tenant.as_ref().map(|tenant| tenant.as_str());
    assert_eq!((event.actor.as_str(), tenant, event.target.as_str()), ("callback", Some("acme"), "/v1/runs/r"));
    assert!(!format!("{recorded:?}").contains("proof"), "a token shows nowhere");
}
