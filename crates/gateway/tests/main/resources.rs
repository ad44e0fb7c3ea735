//! The Kubernetes-style API on the gateway's listener.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use lyra_gateway::{Config, ResourceCaller, ResourceServer, Tokens};

use crate::client::{OK, start, start_serving};

/// What operators may do.
const ALL: &str = "deploy,invoke,read,admin,operator";

/// Tells what it was asked.
pub struct Echo;

#[async_trait]
impl ResourceServer for Echo {
    async fn handle(&self, caller: ResourceCaller, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let said = format!(
            "{}[{}] {} {} {}",
            caller.name,
            caller.scopes,
            parts.method,
            parts.uri,
            String::from_utf8_lossy(&body)
        );
        Response::new(Body::from(said))
    }
}

#[tokio::test]
async fn requests_of_the_resource_api_are_passed_on_with_who_asks() {
    let gateway = start_serving(Config::default(), Some(Arc::new(Echo))).await;
    let answer = gateway.send("PATCH /apis/lyra.dev/v1/applications?watch=1", &[], "body").await;
    assert_eq!(
        (answer.status, answer.text()),
        (OK, &*format!("local[{ALL}] PATCH /apis/lyra.dev/v1/applications?watch=1 body"))
    );
    assert_eq!(gateway.get("/api").await.text(), format!("local[{ALL}] GET /api "));
    assert_eq!(gateway.get("/openapi/v3").await.status, OK);
    assert_eq!(gateway.get("/v1/nothing").await.fault(), (404, "not_found".into()));
    assert!(gateway.get("/metrics").await.text().contains("route=\"/apis/{path}\",status=\"2xx\"} 3"));
    let version = gateway.get("/version").await.json();
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1."), "{version}");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_in_the_words_of_kubernetes() {
    let tokens = Tokens::parse("a-long-enough-token").unwrap();
    let config = Config { tokens, ..Config::default() };
    let gateway = start_serving(config, Some(Arc::new(Echo))).await;
    let refused = gateway.get("/apis").await;
    assert_eq!((refused.status, refused.header("content-type")), (401, "application/json"));
    assert_eq!((&refused.json()["kind"], &refused.json()["reason"]), (&"Status".into(), &"Unauthorized".into()));
    let answer = gateway.send("GET /apis", &[("authorization", "Bearer a-long-enough-token")], "").await;
    assert_eq!(answer.text(), format!("operator[{ALL}] GET /apis "));
}

#[tokio::test]
async fn without_a_resource_api_there_is_no_such_route() {
    assert_eq!(start().await.get("/apis").await.fault(), (404, "not_found".into()));
}
