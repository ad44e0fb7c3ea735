//! What quotas cost a call: `cargo run --release -p lyra-fleet --example quota_cost`.
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::collections::HashMap;

use lyra_fleet::quota::{Called, Entry, Meters};
use lyra_kit::Clock;
use lyra_kit::telemetry::Metrics;
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{FunctionName, Result, TenantName};
use lyra_wire::quotas::{Claim, Limit, Share, Shares};

/// Calls that are measured together.
const CALLS: u32 = 2_000_000;

async fn measure(what: &str, meters: &Meters) -> Result<()> {
    let (clock, tenant, function) = (Clock::system(), TenantName::new("acme")?, FunctionName::new("f")?);
    let called = Called { tenant: &tenant, function: Some(&function), memory_mb: 128 };
    let begun = clock.instant();
    for _ in 0..CALLS {
        drop(std::hint::black_box(meters.enter(called, Entry::Call).await?));
    }
    println!("{what:>24}: {:.1} ns a call", begun.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let meters = Meters::new(Clock::system(), 1, false, Metrics::new().counter("refused_total", "Refused", &["limit"]));
    measure("no quota", &meters).await?;
    let quota = Quota { rate: Some(1e6), concurrency: Some(1_000), memory_mb: Some(1_000_000), ..Quota::default() };
    let share = Share {
        rate: Some(u64::from(u32::MAX) * 1_000_000),
        burst: Some(4_000_000_000),
        concurrency: Some(1_000),
        memory_mb: Some(1_000_000),
    };
    for (what, name) in [("another tenant's quota", "other"), ("the tenant's quota", "acme")] {
        let key = QuotaKey { tenant: TenantName::new(name)?, function: None };
        let limit = Limit { key, quota: quota.clone(), share, spent_until: None, shared: false };
        let answer =
            Shares { session: 1, number: 1, tell_all: false, whole: true, limits: vec![limit], gone: Vec::new() };
        let share = |_: Claim| std::future::ready(Ok(answer.clone()));
        let follow = meters.follow(share, || std::future::ready(HashMap::new()));
        let clock = Clock::system();
        tokio::select! {
            () = follow => {}
            () = clock.sleep(std::time::Duration::from_millis(50)) => {}
        }
        measure(what, &meters).await?;
    }
    Ok(())
}
