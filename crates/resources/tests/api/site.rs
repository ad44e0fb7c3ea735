//! A server with requests to it, without sockets between.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use lyra_resources::http::Body;
use lyra_resources::{Caller, ResourceApi};
use serde_json::{Value, json};

use crate::server::Server;

pub const SESSIONS: &str = "/apis/lyra.dev/v1/namespaces/game1/applicationsessions";
pub const APPLICATIONS: &str = "/apis/lyra.dev/v1/namespaces/game1/applications";

pub struct Site {
    dir: tempfile::TempDir,
    pub server: Server,
}

impl Site {
    pub async fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("objects.db"), ([127, 0, 0, 1], 0).into()).await;
        Site { dir, server }
    }

    pub async fn restart(self) -> Site {
        self.server.stop().await;
        let server = Server::start(&self.dir.path().join("objects.db"), ([127, 0, 0, 1], 0).into()).await;
        Site { dir: self.dir, server }
    }

    pub fn api(&self) -> Arc<ResourceApi> {
        self.server.api.clone()
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl ToString,
    ) -> Response<Body> {
        self.send_as(&Caller::operator("admin"), method, path, headers, body).await
    }

    pub async fn send_as(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl ToString,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.api().handle(caller, request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await
    }

    /// Status code and body of an answer.
    pub async fn json(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        read(self.send(method, path, &[], body).await).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.json(Method::GET, path, Value::Null).await
    }

    pub async fn create(&self, name: &str) -> Value {
        let (code, created) = self.json(Method::POST, SESSIONS, session(name)).await;
        assert_eq!(code, 201, "{created}");
        created
    }

    pub async fn patch(&self, path: &str, media: &str, patch: Value) -> (u16, Value) {
        read(self.send(Method::PATCH, path, &[("content-type", media)], patch).await).await
    }

    pub async fn watch(&self, path: &str) -> Lines {
        let response = self.send(Method::GET, path, &[], "").await;
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body(), text: String::new() }
    }
}

pub async fn read(response: Response<Body>) -> (u16, Value) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The lines of a watch.
pub struct Lines {
    pub body: Body,
    pub text: String,
}

impl Lines {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let event = serde_json::from_str(line).unwrap();
                self.text = rest.to_owned();
                return Some(event);
            }
            let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await.expect("an event comes");
            self.text.push_str(std::str::from_utf8(frame?.unwrap().data_ref().unwrap()).unwrap());
        }
    }

    /// Kind and name of the next event.
    pub async fn told(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub fn session(name: &str) -> Value {
    json!({"apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": name, "labels": {"n": name}},
        "spec": {"applicationName": "echo"}})
}

pub fn application(name: &str) -> Value {
    json!({"apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "main", "function": "echo@3", "ports": [{"containerPort": 80}]}],
        "scalingPolicy": {"maximumInstance": 3, "scalingPolicyType": "idle_session_number",
            "idleSessionNumThreshold": {"low": 1, "high": 2}}}})
}

pub fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}
