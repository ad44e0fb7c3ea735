//! A server of the resource API alone, on loopback: plain HTTP, objects in an SQLite file, and callers who are whoever their
//! token says (`operator`, or names of tenants joined by `+`). For tests and for trying things out; not a part of Lyra.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use lyra_kit::{Clock, Random, Tasks};
use lyra_resources::http::Body;
use lyra_resources::{Admission, Caller, Deps, EventType, Operation, ResourceApi, Review, Settings, Status};
use lyra_store::objects::{History, SqliteObjects};
use lyra_types::TenantName;
use lyra_types::resources::{Application, ApplicationSession};
use tokio::net::TcpListener;

/// A controller of sorts: sessions of an application called `full` are refused, as a busy one's are.
struct Rules;

#[async_trait]
impl Admission for Rules {
    async fn application(&self, _: Review<'_, Application>) -> Result<(), Status> {
        Ok(())
    }

    async fn session(&self, review: Review<'_, ApplicationSession>) -> Result<(), Status> {
        if review.operation == Operation::Create {
            if review.object.spec.application_name == "full" {
                return Err(Status::too_many_requests("the application full has as many instances as it may", 1));
            }
            if review.object.metadata.annotations.contains_key("test/hold") {
                review.object.metadata.finalizers.push("lyra.dev/close".to_owned());
            }
        }
        Ok(())
    }
}

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves.
    pub api: Arc<ResourceApi>,
    objects: Arc<SqliteObjects>,
    tasks: Tasks,
}

impl Server {
    /// Starts a server on a free port, or on that of `listen`.
    pub async fn start(data: &Path, listen: SocketAddr) -> Server {
        let objects = SqliteObjects::open(data, History::default(), None).expect("the store opens");
        let objects = Arc::new(objects);
        let deps = Deps {
            objects: objects.clone(),
            clock: Clock::system(),
            random: Random::system(),
            admission: Arc::new(Rules),
        };
        let api = ResourceApi::start(deps, Settings::default()).await.expect("the API starts");
        let listener = TcpListener::bind(listen).await.expect("the port is free");
        let address = listener.local_addr().expect("it has an address");
        let tasks = Tasks::new();
        tasks.spawn_cancellable("listen", accept(listener, api.clone(), tasks.clone()));
        Server { address, api, objects, tasks }
    }

    /// Stops the server as a restart does: connections are cut.
    pub async fn stop(self) {
        self.api.stop().await;
        self.tasks.stop(std::time::Duration::from_secs(5)).await;
        self.objects.close().await;
    }

    /// Notes an event about an application.
    pub fn tell(&self, tenant: &str, application: &str, reason: &str, message: &str) {
        let tenant = TenantName::new(tenant).expect("a tenant");
        let object = self.api.applications().get(&tenant, application).expect("the application is there");
        self.api.events().record(object.object(), EventType::Normal, reason, message);
    }
}

async fn accept(listener: TcpListener, api: Arc<ResourceApi>, tasks: Tasks) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let api = api.clone();
        tasks.spawn_cancellable("connection", async move {
            let service = service_fn(move |request| answer(api.clone(), request));
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Who a request is from; nobody where its token is none.
fn caller(request: &Request<Incoming>) -> Option<Caller> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else { return Some(Caller::operator("admin")) };
    match value.to_str().ok()?.strip_prefix("Bearer ")? {
        "operator" => Some(Caller::operator("admin")),
        "nobody" => None,
        tenants => {
            let tenants: Option<Vec<TenantName>> = tenants.split('+').map(|name| TenantName::new(name).ok()).collect();
            Some(Caller::of_tenants("user", tenants?))
        }
    }
}

async fn answer(api: Arc<ResourceApi>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match caller(&request) {
        Some(caller) => api.handle(&caller, request).await,
        None => {
            let status = Status::new(401, "Unauthorized", "Unauthorized");
            let body = Full::new(Bytes::from(status.to_json().to_string())).boxed_unsync();
            let mut response = Response::new(body);
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            response
        }
    })
}
