//! Kubernetes: a server that speaks the two requests on a scale and no other, with a real bearer token.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lyra_scaler::Kubernetes;
use lyra_scaler::backends::{Backend, Change, KubernetesBackend};
use lyra_wire::scaler::Load;
use parking_lot::Mutex;
use serde_json::{Value, json};

#[derive(Default)]
struct Cluster {
    replicas: Mutex<u32>,
    token: Mutex<String>,
    asked: Mutex<Vec<String>>,
}

fn status(code: StatusCode, message: &str) -> Response {
    (code, axum::Json(json!({ "kind": "Status", "message": message }))).into_response()
}

impl Cluster {
    fn answer(&self, headers: &HeaderMap, path: &[String; 3], patch: Option<&[u8]>) -> Response {
        let [namespace, plural, name] = path;
        self.asked.lock().push(format!("{plural}/{name}"));
        let bearer = format!("Bearer {}", self.token.lock());
        match headers.get("authorization").and_then(|value| value.to_str().ok()) {
            Some(said) if said == bearer => {}
            _ => return status(StatusCode::UNAUTHORIZED, "Unauthorized"),
        }
        if (namespace.as_str(), name.as_str()) != ("lyra", "worker") {
            return status(StatusCode::NOT_FOUND, "not found");
        }
        if let Some(patch) = patch {
            if headers.get("content-type").is_none_or(|kind| kind != "application/merge-patch+json") {
                return status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not a patch");
            }
            let patch: Value = serde_json::from_slice(patch).unwrap();
            *self.replicas.lock() = patch["spec"]["replicas"].as_u64().unwrap() as u32;
        }
        let replicas = *self.replicas.lock();
        // A scale of 0 has an empty specification, as Kubernetes writes it.
        let spec = if replicas == 0 { json!({}) } else { json!({ "replicas": replicas }) };
        let scale =
            json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": { "name": name }, "spec": spec });
        axum::Json(scale).into_response()
    }
}

async fn start(cluster: &Arc<Cluster>) -> String {
    type Parts = Path<(String, String, String)>;
    let read = async |State(of): State<Arc<Cluster>>, Path((ns, kind, name)): Parts, headers: HeaderMap| {
        of.answer(&headers, &[ns, kind, name], None)
    };
    let write = async |State(of): State<Arc<Cluster>>,
                       Path((ns, kind, name)): Parts,
                       headers: HeaderMap,
                       body: Bytes| { of.answer(&headers, &[ns, kind, name], Some(&body)) };
    let route = "/apis/apps/v1/namespaces/{namespace}/{kind}/{name}/scale";
    let router = Router::new().route(route, get(read).patch(write)).with_state(Arc::clone(cluster));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    lyra_kit::tasks::spawn("kubernetes", async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn change(from: u32, to: u32) -> Change {
    Change { from, to, reason: "queue", going: Vec::new() }
}

#[tokio::test]
async fn a_scale_is_read_and_changed_with_the_token_of_the_moment() {
    let cluster = Arc::new(Cluster::default());
    (*cluster.replicas.lock(), *cluster.token.lock()) = (2, "first-token".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "first-token\n").unwrap();
    let server = start(&cluster).await;
    let (namespace, name) = ("lyra".to_owned(), "worker".to_owned());
    let config = Kubernetes { server, namespace, name, token_file: token_file.clone(), ..Kubernetes::default() };
    let backend = KubernetesBackend::new(config.clone()).unwrap();
    let load = Load::default();
    assert_eq!(backend.current(&load).await.unwrap(), 2);
    backend.apply(&change(2, 5)).await.unwrap();
    assert_eq!(backend.current(&load).await.unwrap(), 5);
    assert_eq!(*cluster.replicas.lock(), 5);
    // Kubernetes rotates tokens of pods.
    "second-token".clone_into(&mut cluster.token.lock());
    let said = backend.current(&load).await.unwrap_err().to_string();
    assert!(said.contains("not taken") && !said.contains("first-token"), "{said}");
    std::fs::write(&token_file, "second-token").unwrap();
    assert_eq!(backend.current(&load).await.unwrap(), 5);
    backend.apply(&change(5, 0)).await.unwrap();
    assert_eq!(backend.current(&load).await.unwrap(), 0);
    let deployment = KubernetesBackend::new(Kubernetes { kind: "Deployment".to_owned(), ..config.clone() }).unwrap();
    deployment.apply(&change(0, 3)).await.unwrap();
    assert!(cluster.asked.lock().contains(&"deployments/worker".to_owned()));
    let other = KubernetesBackend::new(Kubernetes { name: "other".to_owned(), ..config }).unwrap();
    let said = other.current(&load).await.unwrap_err().to_string();
    assert!(said.contains("there is no StatefulSet other in lyra"), "{said}");
}

#[tokio::test]
async fn the_last_pods_of_a_stateful_set_go_and_those_of_a_deployment_are_not_known() {
    let of = |kind: &str| {
        let config = Kubernetes { kind: kind.to_owned(), ca_file: "".into(), ..Kubernetes::default() };
        KubernetesBackend::new(config).unwrap().going(&Load::default(), 5, 3)
    };
    assert_eq!(of("StatefulSet"), ["lyra-worker-3", "lyra-worker-4"]);
    assert!(of("Deployment").is_empty());
    let bad = Kubernetes { name: "../secrets".to_owned(), ..Kubernetes::default() };
    assert!(KubernetesBackend::new(bad).is_err());
}
