//! The same function type on every kind of resource gives the same output, and failures name the resource.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::Clock;
use lyra_types::TenantName;
use serde_json::{Value, json};

use super::doubles::Site;
use super::target::{Act, Target};
use super::{code, enactment, json};
use crate::enact::http::{Config, Http};
use crate::enact::{Enact, Enactables, Enactment, Failure, Nested, demo};
use crate::mapping::{Mapping, Resource, ResourceKind, Transfer};

/// Runs that add, as everything here does.
struct Adding;

#[async_trait]
impl Nested for Adding {
    async fn workflow(&self, enactment: &Enactment, name: &str) -> Result<Bytes, Failure> {
        match name {
            "late" => Err(Failure::passing("timeout", "it was too late")),
            _ => demo::enact("Addition", &enactment.input).await,
        }
    }

    async fn stands_for(&self, _: &TenantName, name: &str) -> Result<String, Failure> {
        Ok(format!("program of {name}"))
    }

    async fn cut(&self, enactment: &Enactment, _: &str, _: Option<&str>) -> Result<Bytes, Failure> {
        demo::enact("Addition", &enactment.input).await
    }
}

fn enactables(site: Site) -> Enactables {
    let http = Http::new(Config::default(), Clock::system()).expect("a client");
    Enactables::new(Arc::new(http), site.functions, Arc::new(Adding))
}

#[tokio::test]
async fn one_type_gives_one_output_on_any_resource() {
    let site = Site::new();
    site.deploy("add", &[1], 1);
    *site.worker.answer.lock() = Ok(Some("{\"sum\":42}"));
    let target = Target::with(
        |request| {
            let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let input: Value = serde_json::from_str(body).expect("the input is JSON");
            let sum = demo::compute("Addition", input.as_object().expect("an object")).expect("it adds");
            Act::json("200 OK", &Value::Object(sum).to_string())
        },
        None,
    )
    .await;
    let mapping = Mapping::parse(&json!([
        {"functionType": "Addition", "resources": [
            {"type": "Demo", "properties": {}},
            {"type": "Function", "properties": {"name": "add"}},
            {"type": "Serverless", "properties": {"Uri": target.url("/add")}},
            {"type": "Workflow", "properties": {"name": "adder@1"}},
        ]},
        {"functionType": "lyra:cut/edge", "resources": [{"type": "Cut", "properties": {"url": "http://edge:8080"}}]},
    ]));
    let mapping = mapping.expect("a good mapping");
    let all = enactables(site);
    let enactment = enactment("Addition", &json!({"firstSummand": 2, "secondSummand": 40, "waitTimeIn": 0}));
    for resource in mapping.types.iter().flat_map(|mapping| &mapping.resources) {
        let output = all.enact(&enactment, resource).await;
        assert_eq!(json(&output.expect("an output")), json!({"sum": 42}), "{}", resource.id());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_names_its_resource_and_nothing_outlives_its_deadline() {
    let all = enactables(Site::new());
    let of = |kind| Resource { kind, transmission: Transfer::default() };
    let resource = of(ResourceKind::Workflow { name: "late".to_owned() });
    let failure = all.enact(&enactment("sub", &json!({})), &resource).await.expect_err("it was late");
    assert_eq!((failure.cause.code.as_str(), failure.cause.resource.as_deref()), ("timeout", Some("workflow:late")));
    let slow = json!({"firstSummand": 2, "secondSummand": 40, "waitTimeIn": 3_600_000});
    let demo = of(ResourceKind::Demo {});
    assert_eq!(code(all.enact(&enactment("Addition", &slow), &demo).await), ("timeout".to_owned(), true));
    let image = of(ResourceKind::Local { image: "x".to_owned() });
    assert_eq!(code(all.enact(&enactment("f", &json!({})), &image).await), ("unsupported".to_owned(), false));
}

const TOKEN: &str = "s3cr\"t-of-some-length";

/// A URL with headers, one of which is a secret.
fn guarded(target: &Target, path: &str, secret: &str) -> Resource {
    let headers = json!({"X-Region": "eu", "Authorization": {"secret": secret, "prefix": "Bearer "}});
    let resource = json!({"type": "Serverless", "properties": {"Uri": target.url(path), "headers": headers}});
    let mapping = Mapping::parse(&json!([{"functionType": "f", "resources": [resource]}])).expect("a good mapping");
    mapping.types[0].resources[0].clone()
}

#[tokio::test]
async fn a_url_is_called_with_a_secret_that_is_in_no_error_and_no_output() {
    let site = Site::new();
    site.control.secrets.lock().insert("api-token", TOKEN);
    site.control.secrets.lock().insert("two-lines", "first\nsecond");
    let target = Target::with(
        |request| match request.split(' ').nth(1) {
            Some("/ok") => Act::json("200 OK", "{\"ok\":true}"),
            Some("/tells") => Act::json("200 OK", &json!({"you": format!("said {TOKEN}")}).to_string()),
            _ => Act::json("403 Forbidden", &json!({"no": TOKEN}).to_string()),
        },
        None,
    )
    .await;
    let all = enactables(site);
    let call = async |path: &str, secret: &str| {
        all.enact(&enactment("f", &json!({"n": 1})), &guarded(&target, path, secret)).await
    };
    assert_eq!(json(&call("/ok", "api-token").await.expect("an output")), json!({"ok": true}));
    let request = target.requests.lock()[0].clone();
    let lines: Vec<&str> = request.lines().collect();
    assert!(lines.contains(&format!("authorization: Bearer {TOKEN}").as_str()), "{request}");
    assert!(lines.contains(&"x-region: eu") && lines.iter().any(|line| line.starts_with("traceparent: ")), "{request}");
    for (path, secret, code) in [
        ("/refuses", "api-token", "http_403"),
        ("/tells", "api-token", "secret_in_answer"),
        ("/ok", "two-lines", "invalid_secret"),
        ("/ok", "unknown", "not_found"),
    ] {
        let failure = call(path, secret).await.expect_err(code);
        assert_eq!((failure.cause.code.as_str(), failure.retryable), (code, false), "{}", failure.cause.message);
        let told = format!("{failure:?}");
        assert!(!told.contains(TOKEN) && !told.contains("of-some-length"), "{told}");
    }
    assert_eq!(target.requests.lock().len(), 3, "without its secret it is not called");
}

#[tokio::test(start_paused = true)]
async fn what_a_resource_stands_for_changes_with_a_deploy() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    site.synced().await;
    let function = |name: &str| Resource {
        kind: ResourceKind::Function { name: name.to_owned(), job: false },
        transmission: Transfer::default(),
    };
    let tenant = TenantName::default_tenant();
    let (live, pinned) = (function("f@live"), function("f@1"));
    let before = (
        site.functions.stands_for(&tenant, "f").await.expect("known"),
        site.functions.stands_for(&tenant, "f@1").await.expect("known"),
    );
    site.deploy("f", &[1, 2], 2);
    site.synced().await;
    let all = enactables(site);
    let after =
        (all.stands_for(&tenant, &live).await.expect("known"), all.stands_for(&tenant, &pinned).await.expect("known"));
    assert_ne!(before.0, after.0, "live is another version");
    assert_eq!(before.1, after.1);
    assert!(all.stands_for(&tenant, &function("other")).await.is_err());
}
