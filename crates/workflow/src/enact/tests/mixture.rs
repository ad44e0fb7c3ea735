//! The same function type on every kind of resource gives the same output, and failures name the resource.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::Clock;
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
            "hangs" => std::future::pending().await,
            _ => demo::enact("Addition", &enactment.input).await,
        }
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
    let resource = of(ResourceKind::Workflow { name: "hangs".to_owned() });
    let failure = all.enact(&enactment("sub", &json!({})), &resource).await.expect_err("it hangs");
    assert_eq!((failure.cause.code.as_str(), failure.cause.resource.as_deref()), ("timeout", Some("workflow:hangs")));
    let slow = json!({"firstSummand": 2, "secondSummand": 40, "waitTimeIn": 3_600_000});
    let demo = of(ResourceKind::Demo {});
    assert_eq!(code(all.enact(&enactment("Addition", &slow), &demo).await), ("timeout".to_owned(), true));
    let image = of(ResourceKind::Local { image: "x".to_owned() });
    assert_eq!(code(all.enact(&enactment("f", &json!({})), &image).await), ("unsupported".to_owned(), false));
}
