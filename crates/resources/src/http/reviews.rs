//! Questions about access: `kubectl auth can-i`, `kubectl auth whoami`.
//!
//! Clients send them in protobuf, and do not fall back to JSON; the few messages are read here (numbers of
//! `k8s.io/api/authorization/v1/generated.proto`). The answers are JSON, which every client takes.

use http::{Method, Response};
use prost::Message;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::content::{media_type, read};
use super::target::Review;
use super::{Request, method_not_allowed};
use crate::{Access, Caller, ResourceApi, Status};

/// Media type of Kubernetes' protobuf.
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What may be done to objects.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// What a protobuf body begins with.
const MAGIC: &[u8] = b"k8s\0";

#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(bytes = "bytes", tag = "2")]
    raw: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct AccessReview {
    #[prost(message, optional, tag = "2")]
    spec: Option<AccessSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct AccessSpec {
    #[prost(message, optional, tag = "1")]
    resource: Option<ResourceAttributes>,
    #[prost(message, optional, tag = "2")]
    path: Option<PathAttributes>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceAttributes {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    verb: String,
    #[prost(string, tag = "3")]
    group: String,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(string, tag = "6")]
    subresource: String,
}

#[derive(Clone, PartialEq, Message)]
struct PathAttributes {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    verb: String,
}

#[derive(Clone, PartialEq, Message)]
struct RulesReview {
    #[prost(message, optional, tag = "2")]
    spec: Option<RulesSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct RulesSpec {
    #[prost(string, tag = "1")]
    namespace: String,
}

/// The message within a protobuf body.
pub(super) fn unwrap(body: &[u8]) -> Result<bytes::Bytes, Status> {
    body.strip_prefix(MAGIC)
        .and_then(|body| Unknown::decode(body).ok())
        .map(|unknown| unknown.raw)
        .ok_or_else(|| Status::bad_request("the body of the request is not Kubernetes' protobuf"))
}

fn decode<M: Message + Default>(request: &Request<'_>) -> Result<Option<M>, Status> {
    if media_type(&request.content_type) != PROTOBUF {
        return Ok(None);
    }
    let message = M::decode(unwrap(&request.body)?);
    message.map(Some).map_err(|_| Status::bad_request("the body of the request can't be decoded"))
}

pub(super) fn answer(review: Review, _: &ResourceApi, request: &Request<'_>) -> Result<Response<Body>, Status> {
    if request.method != Method::POST {
        return Err(method_not_allowed());
    }
    let document = match review {
        Review::Access => access(request)?,
        Review::Rules => rules(request)?,
        Review::Subject => json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
            "status": {"userInfo": {"username": request.caller.name, "groups": groups(request.caller)}},
        }),
    };
    Ok(answer::json(201, &request.accept, &document))
}

fn groups(caller: &Caller) -> Vec<String> {
    let mut groups = vec!["system:authenticated".to_owned()];
    match &caller.access {
        Access::Operator => groups.push("system:masters".to_owned()),
        Access::Tenants(tenants) => groups.extend(tenants.iter().map(|tenant| format!("lyra:tenant:{tenant}"))),
    }
    groups
}

fn access(request: &Request<'_>) -> Result<Value, Status> {
    let spec = match decode::<AccessReview>(request)? {
        Some(review) => review.spec.unwrap_or_default(),
        None => {
            let (value, _) = read(&request.content_type, &request.body)?;
            let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            AccessSpec {
                resource: value.pointer("/spec/resourceAttributes").map(|_| ResourceAttributes {
                    namespace: text("/spec/resourceAttributes/namespace"),
                    verb: text("/spec/resourceAttributes/verb"),
                    group: text("/spec/resourceAttributes/group"),
                    resource: text("/spec/resourceAttributes/resource"),
                    subresource: text("/spec/resourceAttributes/subresource"),
                }),
                path: value.pointer("/spec/nonResourceAttributes").map(|_| PathAttributes {
                    path: text("/spec/nonResourceAttributes/path"),
                    verb: text("/spec/nonResourceAttributes/verb"),
                }),
            }
        }
    };
    let (allowed, reason) = match (&spec.resource, &spec.path) {
        (Some(attributes), _) => may(request.caller, attributes),
        (None, Some(attributes)) => (may_path(request.caller, attributes), ""),
        (None, None) => {
            return Err(Status::bad_request("spec: resourceAttributes or nonResourceAttributes must be given"));
        }
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    Ok(json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
        "status": status,
    }))
}

fn may(caller: &Caller, attributes: &ResourceAttributes) -> (bool, &'static str) {
    let known = match (attributes.group.as_str(), attributes.resource.as_str()) {
        ("*", _) | (_, "*") => matches!(caller.access, Access::Operator),
        ("lyra.dev", "applications" | "applicationsessions") => {
            matches!(attributes.subresource.as_str(), "" | "status")
        }
        ("" | "events.k8s.io", "events") => matches!(attributes.verb.as_str(), "get" | "list" | "watch" | "*"),
        ("", "namespaces") => return (caller.may(None) || caller.may(Some(&attributes.namespace)), ""),
        ("authorization.k8s.io" | "authentication.k8s.io", _) => return (attributes.verb == "create", ""),
        _ => false,
    };
    if !known {
        return (false, "there is no such resource");
    }
    let resource = match attributes.subresource.as_str() {
        "" => attributes.resource.clone(),
        subresource => format!("{}/{subresource}", attributes.resource),
    };
    let namespace = Some(attributes.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    (caller.may_do(&attributes.verb, &resource, namespace), "")
}

fn may_path(caller: &Caller, attributes: &PathAttributes) -> bool {
    let open = ["/api", "/apis", "/openapi", "/version", "/healthz", "/readyz"];
    let under =
        |root: &&str| attributes.path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    caller.may(None) || (attributes.verb == "get" && open.iter().any(under))
}

fn rules(request: &Request<'_>) -> Result<Value, Status> {
    let namespace = match decode::<RulesReview>(request)? {
        Some(review) => review.spec.unwrap_or_default().namespace,
        None => {
            let (value, _) = read(&request.content_type, &request.body)?;
            value.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    };
    let mut rules = vec![
        json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}),
        json!({"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}),
    ];
    for resource in ["applications", "applications/status", "applicationsessions", "applicationsessions/status"] {
        let may = |verb: &&str| request.caller.may_do(verb, resource, Some(&namespace));
        let verbs: Vec<&str> = match may(&"*") {
            true => vec!["*"],
            false => VERBS.into_iter().filter(may).collect(),
        };
        if !verbs.is_empty() {
            rules.push(json!({"verbs": verbs, "apiGroups": ["lyra.dev"], "resources": [resource]}));
        }
    }
    if request.caller.may_do("get", "events", Some(&namespace)) {
        rules.push(
            json!({"verbs": ["get", "list", "watch"], "apiGroups": ["", "events.k8s.io"], "resources": ["events"]}),
        );
    }
    Ok(json!({
        "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
        "status": {
            "incomplete": false,
            "resourceRules": rules,
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi",
                "/openapi/*", "/version"]}],
        },
    }))
}
