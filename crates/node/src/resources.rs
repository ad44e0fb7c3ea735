//! The Kubernetes-style API on a gateway of the same process.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};
use lyra_gateway::{ResourceCaller, ResourceServer};
use lyra_resources::{Caller, ResourceApi};

/// Passes requests to the resource API in this process.
pub(crate) struct InProcess(pub(crate) Arc<ResourceApi>);

#[async_trait]
impl ResourceServer for InProcess {
    async fn handle(&self, caller: ResourceCaller, request: Request<Body>) -> Response<Body> {
        let caller = match caller.tenants {
            None => Caller::operator(caller.name),
            Some(tenants) => Caller::of_tenants(caller.name, tenants),
        };
        self.0.handle(&caller, request).await.map(Body::new)
    }
}
