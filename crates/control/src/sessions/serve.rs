//! The Kubernetes-style API for gateways in other processes.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::{BodyExt, Full};
use lyra_resources::{Caller, ResourceApi};
use lyra_types::{Code, Error, Result};
use lyra_wire::resources::{ResourceAnswer, ResourceRequest, to_header_map, to_pairs};

/// Answers a request: the head of the answer, then its body.
pub(crate) async fn serve(
    api: &Arc<ResourceApi>,
    request: ResourceRequest,
) -> Result<BoxStream<'static, Result<ResourceAnswer>>> {
    let caller = match request.tenants {
        None => Caller::operator(request.caller),
        Some(tenants) => Caller::of_tenants(request.caller, tenants).with_scopes(request.scopes),
    };
    let bad = |_| Error::new(Code::BadRequest, "a gateway passed on a request that is none");
    let mut passed = http::Request::builder()
        .method(request.method.as_str())
        .uri(request.uri.as_str())
        .body(Full::new(request.body))
        .map_err(bad)?;
    *passed.headers_mut() = to_header_map(&request.headers);
    let (head, body) = api.handle(&caller, passed).await.into_parts();
    let head = ResourceAnswer::Head(head.status.as_u16(), to_pairs(&head.headers));
    let body = body.into_data_stream().map(|data| {
        let broken = |error| Error::new(Code::Unavailable, format!("an answer broke off: {error}"));
        data.map(ResourceAnswer::Data).map_err(broken)
    });
    Ok(futures::stream::iter([Ok(head)]).chain(body).boxed())
}
