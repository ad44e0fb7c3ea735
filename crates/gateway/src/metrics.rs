//! Metrics of the gateway. The worker counts invocations; here are requests and connections.

use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use lyra_kit::Clock;
use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

/// All metrics of the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections that were refused because there were too many.
    pub refused: IntCounter,
    /// Connections that were not secured, by reason.
    pub handshakes_failed: IntCounterVec,
    /// When the certificate that is shown ends.
    pub certificate_until: IntGauge,
    /// Functions in the route table.
    pub routes: IntGauge,
    denied: IntCounterVec,
    /// Tokens that are known.
    pub grants: IntGauge,
    /// Seconds since control was last heard of tokens.
    pub grants_age: IntGauge,
    /// Entries of the audit log that found no place.
    pub audit_lost: IntCounter,
    /// Calls that a quota did not let in, by limit.
    pub quota_refused: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        Metrics {
            requests: registry.counter(
                "lyra_http_requests_total",
                "HTTP requests by route, method and class of status",
                &["route", "method", "status"],
            ),
            seconds: registry.histogram(
                "lyra_http_request_seconds",
                "Time from a request's headers to its response's headers",
                &["route"],
            ),
            connections: registry
                .gauge("lyra_http_connections", "Open HTTP connections", &[])
                .with_label_values::<&str>(&[]),
            refused: registry
                .counter("lyra_http_connections_refused_total", "Connections refused at the limit", &[])
                .with_label_values::<&str>(&[]),
            handshakes_failed: registry.counter(
                "lyra_http_tls_failed_total",
                "Connections on which TLS was not agreed, by reason: plain_http, timeout or broken",
                &["reason"],
            ),
            certificate_until: registry
                .gauge("lyra_http_tls_certificate_until_seconds", "Unix time at which the certificate ends", &[])
                .with_label_values::<&str>(&[]),
            routes: registry
                .gauge("lyra_gateway_routes", "Functions in the route table", &[])
                .with_label_values::<&str>(&[]),
            denied: registry.counter(
                "lyra_gateway_denied_total",
                "Requests that were not let in, by reason: no_token, unknown_token, expired_token, stale, oidc, scope, tenant or foreign",
                &["reason"],
            ),
            grants: registry
                .gauge("lyra_gateway_tokens", "Tokens kept by control that this gateway knows", &[])
                .with_label_values::<&str>(&[]),
            grants_age: registry
                .gauge("lyra_gateway_tokens_age_seconds", "Time since control last said which tokens are good", &[])
                .with_label_values::<&str>(&[]),
            quota_refused: registry.counter(
                "lyra_quota_refused_total",
                "Calls and jobs that a quota did not let in, by limit: rate, concurrency, memory_mb or cpu_ms",
                &["limit"],
            ),
            audit_lost: registry
                .counter("lyra_gateway_audit_lost_total", "Entries of the audit log that found no place", &[])
                .with_label_values::<&str>(&[]),
        }
    }

    /// Counts a request that was not let in.
    pub(crate) fn denied(&self, reason: &str) {
        self.denied.with_label_values(&[reason]).inc();
    }

    /// Handles for one route and method.
    pub(crate) fn route(&self, route: &'static str, method: &'static str) -> RouteMetrics {
        RouteMetrics {
            requests: self.requests.clone(),
            seconds: self.seconds.clone(),
            route,
            method,
            by_class: Default::default(),
            histogram: OnceLock::new(),
        }
    }
}

/// Handles for one route and method, made when they are first needed.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    route: &'static str,
    method: &'static str,
    by_class: [OnceLock<IntCounter>; 6],
    histogram: OnceLock<Histogram>,
}

impl RouteMetrics {
    /// Counts a request.
    pub(crate) fn observe(&self, status: StatusCode, took: Duration) {
        const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let class = usize::from(status.as_u16() / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        self.by_class[class]
            .get_or_init(|| self.requests.with_label_values(&[self.route, self.method, CLASSES[class]]))
            .inc();
        self.histogram.get_or_init(|| self.seconds.with_label_values(&[self.route])).observe(took.as_secs_f64());
    }
}

/// Counts the requests of one route.
#[derive(Clone)]
pub(crate) struct Measure {
    pub metrics: std::sync::Arc<RouteMetrics>,
    pub clock: Clock,
}

impl<S> tower::Layer<S> for Measure {
    type Service = Measured<S>;
    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, measure: self.clone() }
    }
}

/// A route that is counted.
#[derive(Clone)]
pub(crate) struct Measured<S> {
    inner: S,
    measure: Measure,
}

impl<S> tower::Service<Request<Body>> for Measured<S>
where
    S: tower::Service<Request<Body>, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let measure = self.measure.clone();
        let begun = measure.clock.instant();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            measure.metrics.observe(response.status(), measure.clock.instant().duration_since(begun));
            Ok(response)
        })
    }
}
