//! What each caller may do: every route of the document with no token, a foreign tenant's, and each scope.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use lyra_gateway::{Config, Tokens, listed_routes, needed_scopes, openapi_document};
use lyra_types::function::Contract;
use lyra_types::{Scope, Scopes, Timestamp};
use lyra_wire::accounts::TenantState;

use crate::accounts::FakeAccounts;
use crate::client::{Answer, Gateway, OK, start_among};
use crate::resources::Echo;

const OPERATOR: &str = "an-operators-token";

/// A gateway that asks for tokens.
async fn start(accounts: &Arc<FakeAccounts>) -> Gateway {
    let config = Config { tokens: Tokens::parse(OPERATOR).unwrap(), ..Config::default() };
    start_among(config, Some(Arc::new(Echo)), Arc::clone(accounts)).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

impl Gateway {
    async fn with(&self, token: &str, target: &str, body: &str) -> Answer {
        self.send(target, &[("authorization", &bearer(token))], body.to_owned()).await
    }
}

/// A path of a route, about things of the default tenant that are there where possible.
fn example(method: &str, path: &str) -> String {
    let path = path.replace("{tenant}/{function}/{path}", "default/web/x").replace("{name}", "echo");
    let path = path.replace("{tenant}/{session}/{path}", "default/none/x").replace("{tenant}", "default");
    // A classic user is a tenant of the same name.
    let path = if path.starts_with("/u/") { path.replace("{user}", "default") } else { path };
    let path = path.replace("{alias}", "live").replace("{version}", "1").replace("{user}", "bob");
    let path = path.replace("{job}", "000000010000000200000003");
    let path = match path.contains("/tokens/") {
        true => path.replace("{id}", "tok_00000000000000000000000000"),
        false => path.replace("{id}", "job_00000000000000000000000000"),
    };
    if (method, path.as_str()) == ("DELETE", "/v1/tenants/default") { format!("{path}?wait=0") } else { path }
}

/// Of the routes that are open to everybody with a token, those whose handler still asks for administrators, where others are meant.
const OF_OTHERS: [(&str, &str); 3] = [
    ("GET", "/v1/tenants/{tenant}/users/{user}"),
    ("PUT", "/v1/tenants/{tenant}/users/{user}/password"),
    ("POST", "/v1/tokens"),
];

fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/v1/login")
        || path.starts_with("/s/")
        || path.starts_with("/v1/callbacks/")
        || path.starts_with("/v1/values/")
}

async fn call(gateway: &Gateway, token: Option<&str>, method: &str, path: &str) -> u16 {
    let target = format!("{method} {}", example(method, path));
    let authorization = token.map(bearer);
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
    let body = if path == "/v1/tokens" { r#"{"name":"ci"}"# } else { "{}" };
    let status = gateway.send(&target, &headers, body).await.status;
    // What was deleted on the way is there again for the next one.
    if method == "DELETE" && path == "/v1/functions/{name}" {
        gateway.control.add("echo", Contract::Handler);
    }
    status
}

#[tokio::test]
async fn every_documented_route_holds_callers_to_their_token_tenant_and_scopes() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("other", TenantState::Active);
    let foreign = accounts.grant(Some("other"), Some("eve"), &Scope::ALL[..4]).secret;
    let each: Vec<(Scope, String)> = Scope::ALL
        .into_iter()
        .map(|scope| {
            let (tenant, user) = if scope == Scope::Operator { (None, None) } else { (Some("default"), Some("ada")) };
            (scope, accounts.grant(tenant, user, &[scope]).secret.reveal().to_owned())
        })
        .collect();
    let gateway = start(&accounts).await;
    let document = serde_json::to_value(openapi_document()).unwrap();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            assert!(listed_routes().iter().any(|(m, p)| *m == method && p == path), "{method} {path}");
            let status = call(&gateway, None, &method, path).await;
            assert_eq!(
                status == 401,
                !is_open(path) && path != "/v1/login",
                "{method} {path} without a token: {status}"
            );
            let needed = needed_scopes(&method, path);
            for (scope, token) in &each {
                let may = match needed {
                    Some(ref enough) => {
                        *scope == Scope::Operator || enough.iter().any(|all| Scopes::of(&[*scope]).has_all(*all))
                    }
                    None => {
                        let of_others = OF_OTHERS.iter().any(|(m, p)| *m == method && p == path);
                        !of_others || matches!(scope, Scope::Admin | Scope::Operator)
                    }
                };
                let status = call(&gateway, Some(token), &method, path).await;
                let refused = matches!(status, 401 | 403) && path != "/v1/login";
                assert_eq!(refused, !may, "{method} {path} with {scope:?}: {status}");
                walked += 1;
            }
            if is_open(path) || matches!(path.as_str(), "/openapi.json" | "/version") {
                continue;
            }
            let target = format!("{method} {}", example(&method, path));
            let headers = [("authorization", &*bearer(foreign.reveal())), ("lyra-tenant", "default")];
            let status = gateway.send(&target, &headers, "{}").await.status;
            assert_eq!(status, 403, "{method} {path} with a foreign token");
        }
    }
    assert!(walked > 300, "{walked}");
}

#[tokio::test]
async fn a_token_chooses_its_tenant_and_no_other() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let token = accounts.grant(Some("acme"), Some("ada"), &Scope::ALL[..4]).secret;
    let (gateway, token) = (start(&accounts).await, token.reveal());
    let who = gateway.with(token, "GET /v1/whoami", "").await.json();
    assert_eq!((&who["name"], &who["tenant"], &who["by"]), (&"acme/ada".into(), &"acme".into(), &"token".into()));
    // The functions are the default tenant's; this one has none.
    assert_eq!(gateway.with(token, "GET /v1/functions/echo", "").await.status, 404);
    assert_eq!(gateway.with(token, "POST /v1/functions/echo/invoke", "1").await.status, 404);
    assert_eq!(gateway.with(token, "GET /v1/functions/echo?tenant=acme", "").await.status, 404);
    for target in [
        "GET /v1/functions/echo?tenant=default",
        "POST /v1/functions/echo/invoke?tenant=default",
        "GET /fn/default/web/",
        "GET /v1/tenants/default",
        "GET /v1/tenants/nowhere",
        "GET /v1/tenants/default/users",
        "GET /v1/audit?tenant=default",
        "GET /v1/tokens?tenant=default",
    ] {
        assert_eq!(gateway.with(token, target, "1").await.fault(), (403, "permission_denied".into()), "{target}");
    }
    let named = [("authorization", &*bearer(token)), ("x-trigger-id", "web")];
    assert_eq!(gateway.send("GET /", &named, "").await.status, 403, "an id without a tenant is the default one's");
    assert!(gateway.worker.http_calls.lock().is_empty() && gateway.worker.calls.lock().is_empty());
    let answer = gateway.with(token, "GET /apis/lyra.dev/v1/applications", "").await;
    assert_eq!(answer.text(), "acme/ada[deploy,invoke,read,admin] GET /apis/lyra.dev/v1/applications ");
}

#[tokio::test]
async fn a_token_that_is_revoked_has_ended_or_was_narrowed_is_so_at_once() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let first = accounts.grant(Some("acme"), Some("ada"), &[Scope::Read, Scope::Admin]);
    let past = accounts.grant_until(Some("acme"), None, &[Scope::Read], Some(Timestamp::from_millis(1)), false).0;
    let gateway = start(&accounts).await;
    let status = async |token: &str| gateway.with(token, "GET /v1/functions", "").await.status;
    assert_eq!(status(first.secret.reveal()).await, OK);
    let ended = gateway.with(past.secret.reveal(), "GET /v1/functions", "").await;
    assert_eq!(ended.fault(), (401, "unauthenticated".into()));
    assert!(ended.problem().detail.contains("has ended"));
    let unknown = format!("lyra_{}", "x".repeat(43));
    assert_eq!(status(&unknown).await, 401);
    let target = format!("DELETE /v1/tokens/{}", first.token.id);
    assert_eq!(gateway.with(first.secret.reveal(), &target, "").await.status, 204);
    assert_eq!(status(first.secret.reveal()).await, 401, "the answer came when it was revoked here");
    let metrics = gateway.with(OPERATOR, "GET /metrics", "").await.text().to_owned();
    assert!(metrics.contains("lyra_gateway_denied_total{reason=\"unknown_token\"} 2"), "{metrics}");
    assert!(metrics.contains("lyra_gateway_denied_total{reason=\"expired_token\"} 1"));
}

#[tokio::test]
async fn tokens_go_on_without_control_for_a_bounded_time() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let token = accounts.grant(Some("acme"), Some("ada"), &[Scope::Read]).secret;
    let config = Config {
        tokens: Tokens::parse(OPERATOR).unwrap(),
        tokens_stale_after: Duration::ZERO,
        route_wait: Duration::from_millis(50),
        ..Config::default()
    };
    let gateway = start_among(config, None, Arc::clone(&accounts)).await;
    // With no time at all, what is known is too old a moment later.
    let mut answer = gateway.with(token.reveal(), "GET /v1/functions", "").await;
    while answer.status == OK {
        answer = gateway.with(token.reveal(), "GET /v1/functions", "").await;
    }
    assert_eq!(answer.fault(), (503, "unavailable".into()));
    assert_eq!(
        gateway.with(OPERATOR, "GET /v1/functions", "").await.status,
        OK,
        "the operators' file needs no control"
    );

    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let token = accounts.grant(Some("acme"), Some("ada"), &[Scope::Read]).secret;
    let gateway = start(&accounts).await;
    assert_eq!(gateway.with(token.reveal(), "GET /v1/functions", "").await.status, OK);
    accounts.mute.store(true, Ordering::SeqCst);
    accounts.cut();
    while accounts.watches.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.with(token.reveal(), "GET /v1/functions", "").await.status, OK);
}

#[tokio::test]
async fn a_login_gives_a_token_and_its_body_shows_nowhere() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let gateway = start(&accounts).await;
    let login =
        async |body: &str| gateway.send("POST /v1/login", &[("authorization", "Bearer stale")], body.to_owned()).await;
    let answer = login(r#"{"tenant":"acme","user":"ada","password":"right"}"#).await;
    assert_eq!((answer.status, answer.header("cache-control")), (OK, "no-store"));
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    let who = gateway.with(&token, "GET /v1/whoami", "").await.json();
    assert_eq!((&who["by"], &who["user"]), (&"login".into(), &"ada".into()));
    for wrong in [
        r#"{"tenant":"acme","user":"ada","password":"wrong"}"#,
        r#"{"tenant":"ACME!","user":"ada","password":"right"}"#,
        r#"{"tenant":"acme","user":"a/b","password":"right"}"#,
    ] {
        let answer = login(wrong).await;
        assert_eq!(answer.fault(), (401, "unauthenticated".into()), "{wrong}");
        assert_eq!(answer.problem().detail, "tenant, user or password is wrong");
    }
    for malformed in [r#"{"user":"ada","password":987654}"#, r#"{"user":"ada","password":["987654"]}"#, "987654", "{"] {
        let answer = login(malformed).await;
        assert!(matches!(answer.status, 400 | 422), "{malformed}");
        assert!(!answer.text().contains("987654"), "{}", answer.text());
    }
    // Whoever logged in makes tokens for themselves, of what they have.
    let make = async |body: &str| gateway.with(&token, "POST /v1/tokens", body).await;
    let made = make(r#"{"name":"ci","scopes":["read"]}"#).await;
    assert_eq!(made.status, 201);
    assert_eq!((&made.json()["tenant"], &made.json()["user"]), (&"acme".into(), &"ada".into()));
    assert_eq!(make(r#"{"name":"ci","scopes":["invoke"]}"#).await.status, 403);
    assert_eq!(make(r#"{"name":"ci","scopes":["operator"]}"#).await.status, 403);
    let password = "PUT /v1/tenants/acme/users/ada/password";
    let answer = gateway.with(&token, password, r#"{"password":"another one"}"#).await;
    assert_eq!(answer.fault(), (422, "invalid_field".into()), "one's own needs the current one");
    assert_eq!(gateway.with(&token, password, r#"{"password":"another one","current":"right"}"#).await.status, 204);
}

#[tokio::test]
async fn changes_are_written_down_and_reads_and_calls_are_not() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let ada = accounts.grant(Some("acme"), Some("ada"), &[Scope::Deploy, Scope::Read]);
    let gateway = start(&accounts).await;
    let token = ada.secret.reveal();
    let deploy = r#"{"runtime":"js","code":{"source":"x"},"env":{"KEY":"s3cret"}}"#;
    gateway.with(token, "PUT /v1/functions/hello", deploy).await;
    gateway.with(token, "GET /v1/functions", "").await;
    gateway.with(token, "POST /v1/functions/hello/invoke", "1").await;
    gateway.with(token, "DELETE /v1/functions/nothing?x=s3cret", "").await;
    gateway.with(token, "POST /v1/workers/w1/drain", "").await;
    gateway.with(OPERATOR, "DELETE /v1/functions/echo", "").await;
    gateway.with(token, "POST /apis/lyra.dev/v1/namespaces/acme/applications", "{}").await;
    gateway.with(token, "POST /apis/lyra.dev/v1/namespaces/acme/applicationsessions", "{}").await;
    gateway.send("POST /v1/login", &[], r#"{"tenant":"acme","user":"ada","password":"s3cret"}"#).await;
    gateway.send("POST /v1/login", &[], r#"{"tenant":"none","user":"ada","password":"s3cret"}"#).await;
    gateway.send("DELETE /v1/functions/echo", &[], "").await;
    // They need no more than a call, and change what others have called.
    let bob = accounts.grant(Some("acme"), Some("bob"), &[Scope::Invoke]);
    for target in [
        "DELETE /v1/jobs/job_00000000000000000000000000",
        "POST /v1/dead-letters/redrive",
        "POST /v1/dead-letters/job_00000000000000000000000000/redrive",
        "POST /v1/runs/r/pause",
        "POST /v1/runs/r/resume",
        "POST /v1/runs/r/cancel",
        "POST /v1/runs/r/redrive",
    ] {
        gateway.with(bob.secret.reveal(), target, "").await;
    }
    let mut recorded = accounts.recorded.lock().clone();
    let changed: Vec<String> =
        recorded.split_off(7).into_iter().map(|e| format!("{} {} {}", e.actor, e.action, e.target)).collect();
    assert_eq!(
        changed,
        [
            "acme/bob DELETE /v1/jobs/{id} /v1/jobs/job_00000000000000000000000000",
            "acme/bob POST /v1/dead-letters/redrive /v1/dead-letters/redrive",
            "acme/bob POST /v1/dead-letters/{id}/redrive /v1/dead-letters/job_00000000000000000000000000/redrive",
            "acme/bob POST /v1/runs/{id}/pause /v1/runs/r/pause",
            "acme/bob POST /v1/runs/{id}/resume /v1/runs/r/resume",
            "acme/bob POST /v1/runs/{id}/cancel /v1/runs/r/cancel",
            "acme/bob POST /v1/runs/{id}/redrive /v1/runs/r/redrive",
        ]
    );
    let shown: Vec<_> = recorded
        .iter()
        .map(|e| {
            let tenant = e.tenant.as_ref().map_or("-", |tenant| tenant.as_str());
            format!("{} {tenant} {} {} {}", e.actor, e.action, e.target, e.outcome)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "acme/ada acme PUT /v1/functions/{name} /v1/functions/hello ok",
            "acme/ada acme DELETE /v1/functions/{name} /v1/functions/nothing not_found",
            "acme/ada acme POST /v1/workers/{worker}/drain /v1/workers/w1/drain permission_denied",
            "operator default DELETE /v1/functions/{name} /v1/functions/echo ok",
            "acme/ada acme POST /apis/lyra.dev/v1/namespaces/{tenant}/applications /apis/lyra.dev/v1/namespaces/acme/applications ok",
            "acme/ada acme POST /v1/login /v1/login unauthenticated",
            "none/ada - POST /v1/login /v1/login unauthenticated",
        ]
    );
    assert_eq!((recorded[0].token, recorded[0].address.as_str()), (Some(ada.token.id), "127.0.0.1"));
    assert!(!format!("{recorded:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_change_stands_where_it_can_not_be_written_down_yet() {
    let accounts = Arc::new(FakeAccounts::default());
    let gateway = start(&accounts).await;
    accounts.broken_log.store(true, Ordering::SeqCst);
    assert_eq!(gateway.with(OPERATOR, "DELETE /v1/functions/echo", "").await.status, 204);
    accounts.broken_log.store(false, Ordering::SeqCst);
    while accounts.recorded.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn on_loopback_a_token_of_lyra_narrows_and_others_are_the_functions_own() {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    let token = accounts.grant(Some("acme"), Some("ada"), &[Scope::Read]).secret;
    let gateway = start_among(Config::default(), None, Arc::clone(&accounts)).await;
    assert_eq!(gateway.get("/v1/whoami").await.json()["by"], "local");
    assert_eq!(gateway.get("/v1/workers").await.status, OK);
    assert_eq!(gateway.with(token.reveal(), "GET /v1/whoami", "").await.json()["name"], "acme/ada");
    assert_eq!(gateway.with(token.reveal(), "GET /v1/workers", "").await.status, 403);
    let revoked = format!("lyra_{}", "x".repeat(43));
    assert_eq!(gateway.with(&revoked, "GET /v1/functions", "").await.status, 401, "a revoked one does not widen");
    assert_eq!(gateway.with("something of my own", "GET /fn/default/web/", "").await.status, 207);
    let headers = gateway.worker.http_calls.lock()[0].headers.clone();
    assert!(headers.contains_key("authorization"), "what is none of Lyra's is passed on");
    assert_eq!(Scopes::ALL, serde_json::from_value(gateway.get("/v1/whoami").await.json()["scopes"].clone()).unwrap());
}

#[tokio::test]
async fn what_goes_on_ends_with_its_token() {
    let accounts = Arc::new(FakeAccounts::default());
    let [kept, revoked] = [(); 2].map(|()| accounts.grant(Some("default"), None, &[Scope::Read]));
    let gateway = start(&accounts).await;
    let follow = async |token: &str| {
        let request = http::Request::get("/v1/functions/echo/logs?follow=true")
            .header("host", "localhost")
            .header("authorization", bearer(token));
        gateway.open(request.body(String::new()).unwrap()).await
    };
    let ended = follow(revoked.secret.reveal()).await;
    assert_eq!(ended.status().as_u16(), OK);
    let target = format!("DELETE /v1/tokens/{}", revoked.token.id);
    assert_eq!(gateway.with(OPERATOR, &target, "").await.status, 204);
    ended.into_body().collect().await.unwrap();
    let mut kept = follow(kept.secret.reveal()).await;
    assert_eq!(kept.status().as_u16(), OK);
    // A watch that is made anew tells all tokens again, which ends nothing.
    accounts.cut();
    while accounts.watches.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let more = tokio::time::timeout(Duration::from_millis(200), kept.body_mut().frame()).await;
    assert!(!matches!(more, Ok(None)), "it goes on");
}
