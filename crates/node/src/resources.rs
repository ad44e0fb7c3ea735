//! The Kubernetes-style API on a gateway: that of this process, or that of the control role elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use lyra_gateway::{ResourceCaller, ResourceServer};
use lyra_resources::{Caller, ResourceApi, Status};
use lyra_wire::Control;
use lyra_wire::resources::{ResourceAnswer, ResourceRequest, to_header_map, to_pairs};

/// Passes requests to the resource API in this process.
pub(crate) struct InProcess(pub(crate) Arc<ResourceApi>);

#[async_trait]
impl ResourceServer for InProcess {
    async fn handle(&self, caller: ResourceCaller, request: Request<Body>) -> Response<Body> {
        let caller = match caller.tenants {
            None => Caller::operator(caller.name),
            Some(tenants) => Caller::of_tenants(caller.name, tenants).with_scopes(caller.scopes),
        };
        self.0.handle(&caller, request).await.map(Body::new)
    }
}

/// Largest request that is passed on, in bytes: a little more than what the API itself takes.
const MAX_REQUEST: usize = 4 << 20;

/// Passes requests to the control role in another process.
pub(crate) struct ThroughControl(pub(crate) Arc<dyn Control>);

#[async_trait]
impl ResourceServer for ThroughControl {
    async fn handle(&self, caller: ResourceCaller, request: Request<Body>) -> Response<Body> {
        self.pass_on(caller, request).await.unwrap_or_else(|status| {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let mut response = Response::new(Body::from(status.to_json().to_string()));
            *response.status_mut() = code;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if status.details.retry_after_seconds > 0 {
                response.headers_mut().insert(RETRY_AFTER, status.details.retry_after_seconds.into());
            }
            response
        })
    }
}

impl ThroughControl {
    async fn pass_on(&self, caller: ResourceCaller, request: Request<Body>) -> Result<Response<Body>, Status> {
        let away = |error: lyra_types::Error| Status::unavailable(error.detail, 1);
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, MAX_REQUEST)
            .await
            .map_err(|_| Status::new(413, "RequestEntityTooLarge", format!("limit is {MAX_REQUEST} bytes")))?;
        let passed = ResourceRequest {
            caller: caller.name,
            tenants: caller.tenants.map(|tenants| tenants.into_iter().collect()),
            scopes: caller.scopes,
            method: parts.method.to_string(),
            uri: parts.uri.to_string(),
            headers: to_pairs(&parts.headers),
            body,
        };
        let mut answer = self.0.resources(passed).await.map_err(away)?;
        let Some(ResourceAnswer::Head(code, headers)) = answer.next().await.transpose().map_err(away)? else {
            return Err(Status::unavailable("control broke off its answer", 1));
        };
        let data = answer.map(|piece| match piece {
            Ok(ResourceAnswer::Data(data)) => Ok(data),
            Ok(ResourceAnswer::Head(..)) => Err(std::io::Error::other("control sent two heads")),
            Err(error) => Err(std::io::Error::other(error.detail)),
        });
        let mut response = Response::new(Body::from_stream(data));
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
        *response.headers_mut() = to_header_map(&headers);
        Ok(response)
    }
}
