//! Deploys, versions, aliases.

use serde_json::json;

use crate::client::{OK, start};

const JSON: (&str, &str) = ("content-type", "application/json");
const BODY: &str = r#"{"runtime":"js","code":{"source":"export default () => 1"}}"#;

#[tokio::test]
async fn a_function_lives_from_deploy_to_delete() {
    let gateway = start().await;
    let made = gateway.send("PUT /v1/functions/hello", &[JSON], BODY).await;
    assert_eq!((made.status, made.header("etag"), made.header("location")), (201, "\"1\"", "/v1/functions/hello"));
    assert_eq!(made.json()["live"], json!({"1": 1}));
    assert_eq!((&made.json()["runtime"], &made.json()["state"]), (&json!("js"), &json!("ready")));
    let again = gateway.send("PUT /v1/functions/hello", &[JSON], BODY).await;
    assert_eq!((again.status, again.header("etag"), again.json()["version"].clone()), (OK, "\"2\"", json!(2)));

    let shown = gateway.get("/v1/functions/hello").await;
    assert_eq!((shown.status, shown.header("etag")), (OK, "\"2\""));
    let known = gateway.send("GET /v1/functions/hello", &[("if-none-match", "\"2\"")], "").await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let listed = gateway.get("/v1/functions?limit=1000").await.json();
    assert!(listed["items"].as_array().unwrap().iter().any(|item| item["name"] == "hello"));
    assert_eq!(listed["next"], json!(null));

    let versions = gateway.get("/v1/functions/hello/versions").await.json();
    let seen: Vec<_> = versions["items"].as_array().unwrap().iter().map(|v| (&v["version"], &v["aliases"])).collect();
    assert_eq!(seen, [(&json!(2), &json!(["live"])), (&json!(1), &json!([]))]);
    let page = gateway.get("/v1/functions/hello/versions?limit=1").await.json();
    let next = page["next"].as_str().unwrap();
    let page = gateway.get(&format!("/v1/functions/hello/versions?limit=1&cursor={next}")).await.json();
    assert_eq!((&page["items"][0]["version"], &page["next"]), (&json!(1), &json!(null)));
    assert_eq!(gateway.get("/v1/functions/hello/versions/1").await.json()["version"], 1);
    assert_eq!(gateway.get("/v1/functions/hello/versions/3").await.fault(), (404, "not_found".into()));

    let alias = gateway.send("PUT /v1/functions/hello/aliases/beta", &[JSON], r#"{"weights":{"1":90,"2":10}}"#).await;
    assert_eq!((alias.status, &alias.json()["weights"]), (OK, &json!({"1": 90, "2": 10})));
    let alias = gateway.send("PUT /v1/functions/hello/aliases/beta", &[JSON], r#"{"version":1}"#).await;
    assert_eq!(alias.json()["version"], 1);
    assert_eq!(gateway.get("/v1/functions/hello/aliases/beta").await.json()["version"], 1);
    assert_eq!(gateway.get("/v1/functions/hello/aliases").await.json()["items"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.send("DELETE /v1/functions/hello/aliases/beta", &[], "").await.status, 204);
    assert_eq!(gateway.get("/v1/functions/hello/aliases/beta").await.fault(), (404, "not_found".into()));

    let back = gateway.send("POST /v1/functions/hello/rollback", &[], "").await;
    assert_eq!((back.status, &back.json()["version"]), (OK, &json!(1)));
    assert_eq!(gateway.send("POST /v1/functions/hello/invoke", &[], "1").await.header("lyra-version"), "1");

    assert_eq!(gateway.send("DELETE /v1/functions/hello", &[], "").await.status, 204);
    assert_eq!(gateway.get("/v1/functions/hello").await.fault(), (404, "not_found".into()));
    assert_eq!(gateway.send("POST /v1/functions/hello/invoke", &[], "1").await.fault(), (404, "not_found".into()));
}

#[tokio::test]
async fn preconditions_keep_one_deploy_from_undoing_another() {
    let gateway = start().await;
    let put = |headers| gateway.send("PUT /v1/functions/hello", headers, BODY);
    assert_eq!(put(&[JSON, ("if-match", "*")]).await.fault(), (412, "stale_version".into()));
    assert_eq!(put(&[JSON, ("if-none-match", "*")]).await.status, 201);
    assert_eq!(put(&[JSON, ("if-none-match", "*")]).await.fault(), (412, "stale_version".into()));
    assert_eq!(put(&[JSON, ("if-match", "\"1\"")]).await.status, OK);
    assert_eq!(put(&[JSON, ("if-match", "\"1\"")]).await.fault(), (412, "stale_version".into()));
    assert_eq!(put(&[JSON, ("if-match", "1")]).await.fault(), (400, "bad_request".into()));
}

#[tokio::test]
async fn an_answer_to_a_change_comes_once_the_gateway_routes_by_it() {
    let gateway = start().await;
    assert_eq!(gateway.get("/readyz").await.status, OK);
    gateway.control.hold.store(true, std::sync::atomic::Ordering::SeqCst);
    let put = gateway.send("PUT /v1/functions/late", &[JSON], BODY);
    let mut put = std::pin::pin!(put);
    tokio::select! {
        answer = &mut put => panic!("answered before the route was there: {answer:?}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
    }
    gateway.control.release();
    assert_eq!(put.await.status, 201);
    assert_eq!(gateway.send("POST /v1/functions/late/invoke", &[], "1").await.status, OK);
}

#[tokio::test]
async fn raw_code_is_taken_by_its_media_type() {
    let gateway = start().await;
    for (media_type, runtime) in [
        ("text/javascript; charset=utf-8", "js"),
        ("application/javascript", "js"),
        ("application/wasm", "wasm"),
        ("application/zip", "wasm"),
        ("text/x-python", "python"),
    ] {
        let answer = gateway.send("PUT /v1/functions/raw/code", &[("content-type", media_type)], "x").await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        assert_eq!(answer.json()["runtime"], runtime);
    }
    for headers in [&[("content-type", "text/x-perl")][..], &[("content-type", "image/png")], &[]] {
        let answer = gateway.send("PUT /v1/functions/raw/code", headers, "x").await;
        assert_eq!(answer.fault(), (415, "unsupported_media_type".into()));
        assert!(answer.problem().detail.contains("application/wasm"));
    }
}

#[tokio::test]
async fn each_bad_request_has_its_own_clear_error() {
    let gateway = start().await;
    let long = format!("/v1/functions/{}", "x".repeat(64));
    let deploy = "PUT /v1/functions/hello";
    let alias = "PUT /v1/functions/echo/aliases/beta";
    let cases: &[(&str, &str, u16, &str, &str)] = &[
        (deploy, "{", 400, "bad_request", "body"),
        (deploy, r#"{"runtime":"js"}"#, 422, "invalid_field", "code"),
        (deploy, r#"{"runtime":"js","code":{"source":"x"},"memroy_mb":1}"#, 422, "invalid_field", "memroy_mb"),
        (deploy, r#"{"runtime":"js","code":{"source":1}}"#, 422, "invalid_field", "code.source"),
        (deploy, r#"{"runtime":"cobol","code":{"source":"x"}}"#, 422, "invalid_field", "runtime"),
        ("PUT /v1/functions/Hello", BODY, 422, "invalid_name", "name"),
        ("PUT /v1/functions/a_b", BODY, 422, "invalid_name", "name"),
        (&format!("PUT {long}"), BODY, 422, "invalid_name", "name"),
        ("PUT /v1/functions/echo/aliases/12", r#"{"version":1}"#, 422, "invalid_name", "alias"),
        (alias, r#"{"weights":{"x":1}}"#, 422, "invalid_field", "weights"),
        (alias, r#"{"weight":{}}"#, 422, "invalid_field", "weight"),
        ("GET /v1/functions?limit=0", "", 400, "bad_request", "limit"),
        ("GET /v1/functions?limit=many", "", 400, "bad_request", "limit"),
        ("GET /v1/functions/echo/versions/0", "", 422, "invalid_name", "version"),
        ("GET /v1/functions?tenant=No", "", 422, "invalid_name", "name"),
    ];
    for (target, body, status, code, field) in cases {
        let answer = gateway.send(target, &[JSON], (*body).to_owned()).await;
        assert_eq!(answer.fault(), (*status, (*code).to_owned()), "{target} {body}");
        assert_eq!(answer.problem().errors[0].field, *field, "{target} {body}");
    }
    let place = gateway.send(deploy, &[JSON], "{\"runtime\": \"js\",\n  oops}").await.problem();
    assert_eq!((place.errors[0].line, place.errors[0].column), (Some(2), Some(3)));
    let html = gateway.send(deploy, &[("content-type", "text/html")], BODY).await;
    assert_eq!(html.fault(), (415, "unsupported_media_type".into()));
    assert_eq!(gateway.send(deploy, &[], BODY).await.status, 201, "a body without a type is taken as JSON");
    assert_eq!(gateway.get("/v1/functions/%ff").await.fault(), (400, "bad_request".into()));
    assert_eq!(gateway.get("/v1/functions/none").await.fault(), (404, "not_found".into()));
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let gateway = start().await;
    let acme = ("lyra-tenant", "acme");
    assert_eq!(gateway.send("PUT /v1/functions/mine", &[JSON, acme], BODY).await.json()["tenant"], "acme");
    assert_eq!(gateway.get("/v1/functions/mine").await.status, 404);
    assert_eq!(gateway.get("/v1/functions/mine?tenant=acme").await.status, OK);
    assert_eq!(gateway.send("POST /v1/functions/mine/invoke", &[acme], "1").await.status, OK);
    assert_eq!(gateway.send("POST /v1/functions/mine/invoke", &[], "1").await.status, 404);
    assert_eq!(gateway.send("GET /v1/functions/mine?tenant=other", &[acme], "").await.status, 400);
}
