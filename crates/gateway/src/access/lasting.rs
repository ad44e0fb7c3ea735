//! Answers that go on (watches, followed logs) end with the token that they were asked for with.

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http_body::Body as _;
use lyra_kit::Clock;

use super::Identity;

/// The same answer, broken off when the token is revoked, allows something else than before, or ends. An answer whose length is known is
/// as good as given, and left alone.
pub(crate) fn while_good(identity: &Identity, clock: &Clock, response: Response) -> Response {
    if response.body().size_hint().exact().is_some() || (identity.token.is_none() && identity.expires_at.is_none()) {
        return response;
    }
    let (over, clock) = (identity.over.clone(), clock.clone());
    let left = identity.expires_at.map(|end| end.since(clock.now()));
    let end = async move {
        let expired = async {
            match left {
                Some(left) => clock.sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over.cancelled() => {}
            () = expired => {}
        }
    };
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(end))))
}
