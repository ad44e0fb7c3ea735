//! Documents about the server: which groups, versions and resources there are, and which version the server is.

use http::{Method, Response};
use lyra_types::resources::{Application, ApplicationSession};
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::{Request, method_not_allowed, openapi};
use crate::Status;
use crate::kind::{Kind, Names};

/// The version of the Kubernetes API whose conventions are followed.
const KUBERNETES: (&str, &str) = ("1", "32");

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];
const EVENT_VERBS: [&str; 3] = ["get", "list", "watch"];

fn kinds() -> [Names; 2] {
    [Application::NAMES, ApplicationSession::NAMES]
}

/// Answers a request for a document.
pub(super) fn answer(path: &str, request: &Request<'_>) -> Result<Response<Body>, Status> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(method_not_allowed());
    }
    if path.starts_with("/openapi") {
        return openapi::answer(path, request);
    }
    request.accept.check()?;
    let path = path.trim_matches('/');
    if let (Some(version), "api" | "apis") = (request.accept.discovery, path) {
        let document = aggregated(path, version);
        let mut response = answer::json(200, &request.accept, &document);
        let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        if let Ok(media) = http::HeaderValue::from_str(&media) {
            response.headers_mut().insert(http::header::CONTENT_TYPE, media);
        }
        return Ok(response);
    }
    let document = match path {
        "version" => version(),
        "api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group("lyra.dev")]}),
        "api/v1" => resources("v1", core()),
        "apis/lyra.dev" => group("lyra.dev"),
        "apis/lyra.dev/v1" => resources("lyra.dev/v1", own()),
        // Not listed, since they are none of what a client is to manage, but there.
        "apis/events.k8s.io" => group("events.k8s.io"),
        "apis/events.k8s.io/v1" => resources("events.k8s.io/v1", vec![events()]),
        "apis/authorization.k8s.io" => group("authorization.k8s.io"),
        "apis/authorization.k8s.io/v1" => resources(
            "authorization.k8s.io/v1",
            vec![
                review("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
                review("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
            ],
        ),
        "apis/authentication.k8s.io" => group("authentication.k8s.io"),
        "apis/authentication.k8s.io/v1" => {
            resources("authentication.k8s.io/v1", vec![review("selfsubjectreviews", "SelfSubjectReview")])
        }
        _ => return Err(Status::no_such_path()),
    };
    Ok(answer::json(200, &request.accept, &document))
}

/// The version of the server, as `kubectl version` reads it.
fn version() -> Value {
    let (major, minor) = KUBERNETES;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+lyra-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group_version: &str, resources: Vec<Value>) -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

fn own() -> Vec<Value> {
    let mut list = Vec::new();
    for names in kinds() {
        list.push(json!({
            "name": names.plural, "singularName": names.singular, "namespaced": true, "kind": names.kind,
            "verbs": VERBS, "shortNames": names.short, "categories": names.categories,
        }));
        list.push(json!({
            "name": format!("{}/status", names.plural), "singularName": "", "namespaced": true, "kind": names.kind,
            "verbs": STATUS_VERBS,
        }));
    }
    list
}

fn core() -> Vec<Value> {
    let namespaces = json!({
        "name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace",
        "verbs": ["create", "get", "list", "watch"], "shortNames": ["ns"],
    });
    vec![events(), namespaces]
}

fn events() -> Value {
    json!({
        "name": "events", "singularName": "event", "namespaced": true, "kind": "Event", "verbs": EVENT_VERBS,
        "shortNames": ["ev"],
    })
}

fn review(name: &str, kind: &str) -> Value {
    json!({"name": name, "singularName": "", "namespaced": false, "kind": kind, "verbs": ["create"]})
}

/// All groups, or the core one, with all of their resources, in one document.
fn aggregated(root: &str, version: &str) -> Value {
    let discovered = |group: &str, resource: &Value, subresources: Vec<Value>| {
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let kind = json!({"group": group, "version": "v1", "kind": resource["kind"]});
        let mut discovered = json!({
            "resource": resource["name"], "responseKind": kind, "scope": scope,
            "singularResource": resource["singularName"], "verbs": resource["verbs"],
        });
        for name in ["shortNames", "categories"] {
            if let Some(value) = resource.get(name) {
                discovered[name] = value.clone();
            }
        }
        if !subresources.is_empty() {
            discovered["subresources"] = subresources.into();
        }
        discovered
    };
    let (name, resources) = match root {
        "api" => ("", core().iter().map(|resource| discovered("", resource, Vec::new())).collect::<Vec<_>>()),
        _ => {
            let list = own();
            let pairs = list.chunks(2).map(|pair| {
                let kind = json!({"group": "lyra.dev", "version": "v1", "kind": pair[1]["kind"]});
                let status = json!({"subresource": "status", "responseKind": kind, "verbs": STATUS_VERBS});
                discovered("lyra.dev", &pair[0], vec![status])
            });
            ("lyra.dev", pairs.collect())
        }
    };
    let mut metadata = json!({"creationTimestamp": null});
    if !name.is_empty() {
        metadata["name"] = name.into();
    }
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": [{
            "metadata": metadata,
            "versions": [{"version": "v1", "resources": resources, "freshness": "Current"}],
        }],
    })
}
