//! Quotas: what is not let in, how it is told, and when it is let in again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lyra_types::api::{Page, QuotaUse, QuotaView};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{Error, Result};
use lyra_wire::Quotas;
use lyra_wire::control::PageQuery;
use lyra_wire::quotas::{Claim, Limit, Share, Shares};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Gateway, OK, start};

/// Quotas in memory, of which one gateway has all.
#[derive(Default)]
pub struct FakeQuotas {
    set: Mutex<BTreeMap<QuotaKey, Quota>>,
    number: AtomicU64,
}

fn view(key: &QuotaKey, quota: Quota) -> QuotaView {
    QuotaView {
        tenant: key.tenant.to_string(),
        function: key.function.as_ref().map(ToString::to_string),
        quota,
        is_default: false,
        used: QuotaUse::default(),
        functions: Vec::new(),
    }
}

#[async_trait]
impl Quotas for FakeQuotas {
    async fn quota(&self, key: &QuotaKey) -> Result<QuotaView> {
        Ok(view(key, self.set.lock().get(key).cloned().unwrap_or_default()))
    }

    async fn quotas(&self, _: PageQuery) -> Result<Page<QuotaView>> {
        let items = self.set.lock().iter().map(|(key, quota)| view(key, quota.clone())).collect();
        Ok(Page { items, next: None })
    }

    async fn set_quota(&self, key: &QuotaKey, quota: Quota) -> Result<QuotaView> {
        quota.check(key.function.is_some())?;
        self.set.lock().insert(key.clone(), quota.clone());
        Ok(view(key, quota))
    }

    async fn remove_quota(&self, key: &QuotaKey) -> Result<()> {
        self.set.lock().remove(key).map(drop).ok_or_else(|| Error::not_found("quota of", key))
    }

    async fn share(&self, _: Claim) -> Result<Shares> {
        let whole = |(key, quota): (&QuotaKey, &Quota)| Limit {
            key: key.clone(),
            quota: quota.clone(),
            share: Share {
                rate: quota.rate.map(|rate| (rate * 1e6) as u64),
                burst: quota.burst().map(|burst| u64::from(burst) * 1_000),
                concurrency: quota.concurrency.map(u64::from),
                memory_mb: quota.memory_mb.map(u64::from),
            },
            spent_until: None,
            shared: false,
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let limits = self.set.lock().iter().map(whole).collect();
        Ok(Shares { session: 1, number, tell_all: false, whole: true, limits, gone: Vec::new() })
    }
}

async fn limit(gateway: &Gateway, path: &str, quota: &str) {
    let headers = [("content-type", "application/json")];
    let answer = gateway.send(&format!("PUT {path}"), &headers, quota.to_owned()).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
}

const OF_TENANT: &str = "/v1/tenants/default/quota";

#[tokio::test]
async fn a_rate_holds_calls_jobs_and_triggers_together_before_their_event_is_read() {
    let gateway = start().await;
    limit(&gateway, OF_TENANT, r#"{"rate":0.001,"burst":3}"#).await;
    assert_eq!(gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status, OK);
    assert_eq!(gateway.send("POST /v1/functions/echo/invoke?async=1", &[], "1").await.status, 202);
    assert_eq!(gateway.get("/fn/default/web/").await.status, 207);
    for target in ["POST /v1/functions/echo/invoke", "POST /v1/functions/echo/invoke?async=1", "GET /fn/default/web/"] {
        // What is no JSON was not looked at.
        let refused = gateway.send(target, &[], "no json").await;
        assert_eq!(refused.fault(), (429, "limit_reached".into()), "{target}");
        let problem = refused.problem();
        assert_eq!(problem.errors[0].field, "quota.rate");
        assert!(problem.detail.contains("tenant default") && problem.detail.contains("3.6/h"), "{}", problem.detail);
        let after: u64 = refused.header("retry-after").parse().unwrap();
        assert!((900..=1_001).contains(&after), "{after}");
        let of_call = ["lyra-invocation-id", "lyra-version", "server-timing"];
        if target.contains("async") {
            assert!(
                of_call.iter().all(|name| !refused.headers.contains_key(*name)),
                "a job that was not made is no call"
            );
        } else {
            let [id, version, timing] = of_call.map(|name| refused.header(name));
            assert!(id.starts_with("inv_") && timing.starts_with("queue;dur="), "{id} {timing}");
            assert_eq!((version, refused.headers.contains_key("lyra-start")), ("1", false));
        }
    }
    let metrics = gateway.get("/metrics").await;
    assert!(metrics.text().contains("lyra_quota_refused_total{limit=\"rate\"} 3"), "{}", metrics.text());
    // Others are not touched, and reads neither.
    assert_eq!(gateway.get("/v1/functions").await.status, OK);
    assert_eq!(gateway.send(&format!("DELETE {OF_TENANT}"), &[], "").await.status, 204);
    assert_eq!(gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status, OK);
}

#[tokio::test]
async fn a_rate_holds_parts_of_other_workflows_too_but_not_those_who_wait_for_them() {
    let gateway = start().await;
    limit(&gateway, OF_TENANT, r#"{"rate":0.001,"burst":1}"#).await;
    let cut = async |id: &str| {
        let body = format!(r#"{{"id":"{id}","graph":{{"tasks":[]}},"mappings":[],"input":{{}}}}"#);
        gateway.send("POST /v1/cuts", &[("content-type", "application/json")], body).await
    };
    for _ in 0..3 {
        assert_eq!(cut("one").await.status, 202);
    }
    assert_eq!(cut("two").await.fault(), (429, "limit_reached".into()));
}

#[tokio::test]
async fn a_functions_quota_holds_that_function_only_and_costs_its_tenant_nothing() {
    let gateway = start().await;
    limit(&gateway, OF_TENANT, r#"{"rate":0.001,"burst":3}"#).await;
    limit(&gateway, &format!("{OF_TENANT}/functions/echo"), r#"{"rate":0.001,"burst":1}"#).await;
    assert_eq!(gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status, OK);
    for _ in 0..5 {
        let refused = gateway.send("POST /v1/functions/echo/invoke", &[], "1").await;
        assert_eq!(refused.status, 429);
        assert!(refused.problem().detail.contains("function echo of tenant default"), "{}", refused.text());
    }
    assert_eq!(gateway.send("POST /v1/functions/cat/invoke", &[], "1").await.status, OK);
    assert_eq!(gateway.send("POST /v1/functions/cat/invoke", &[], "1").await.status, OK);
    assert!(gateway.send("POST /v1/functions/cat/invoke", &[], "1").await.problem().detail.contains("tenant default"));
}

async fn hang(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        format!("POST /v1/functions/hang/invoke HTTP/1.1\r\nhost: {}\r\ncontent-length: 1\r\n\r\n1", gateway.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    gateway.worker.hanging.notified().await;
    stream
}

#[tokio::test]
async fn a_place_is_held_until_its_call_ends_also_by_its_client_going_away() {
    let gateway = start().await;
    for (quota, field) in [(r#"{"concurrency":1}"#, "quota.concurrency"), (r#"{"memory_mb":200}"#, "quota.memory_mb")] {
        limit(&gateway, OF_TENANT, quota).await;
        let hanging = hang(&gateway).await;
        let refused = gateway.send("POST /v1/functions/echo/invoke", &[], "1").await;
        assert_eq!(refused.fault(), (429, "limit_reached".into()));
        assert_eq!((refused.header("retry-after"), &*refused.problem().errors[0].field), ("1", field));
        assert_eq!(gateway.send("POST /v1/functions/echo/invoke?async=1", &[], "1").await.status, 202, "it runs later");
        drop(hanging);
        let again = async {
            while gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status != OK {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.expect("the place is free again");
    }
}

#[tokio::test]
async fn what_can_be_no_quota_is_refused_by_field() {
    let gateway = start().await;
    let headers = [("content-type", "application/json")];
    for (body, field) in [
        (r#"{"rate":0}"#, "rate"),
        (r#"{"burst":1}"#, "burst"),
        (r#"{"rat":1}"#, "rat"),
        (r#"{"cpu_ms":1,"cpu_period":"week"}"#, "cpu_period"),
    ] {
        let refused = gateway.send(&format!("PUT {OF_TENANT}"), &headers, body).await;
        assert_eq!((refused.status, &*refused.problem().errors[0].field), (422, field), "{body}");
    }
    let of_function = format!("PUT {OF_TENANT}/functions/echo");
    assert_eq!(gateway.send(&of_function, &headers, r#"{"functions":1}"#).await.status, 422);
    assert_eq!(gateway.get("/v1/quotas").await.json()["items"], serde_json::json!([]));
}
