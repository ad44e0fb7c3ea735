//! Each function's own balancing policy, over three real workers.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lyra_testkit::Cluster;
use lyra_types::name::Qualifier;
use lyra_types::{Balancing, FunctionName};
use serde_json::Value;

const CALLS: usize = 12;

/// How many calls each worker has served, and how many of all were not cold.
async fn served(cluster: &Cluster, policy: &str) -> Result<(BTreeMap<String, u64>, usize)> {
    let name = FunctionName::new(policy)?;
    std::fs::write(cluster.scratch().join("code.js"), "export default (event) => event")?;
    let deploy = ["deploy", "code.js", "--name", policy, "--reuse", "--balancing", policy];
    cluster.commands().run(deploy).await?.ok()?;
    let client = cluster.client()?;
    let mut warm = 0;
    for _ in 0..CALLS {
        let answer = client.invoke(&name, &Qualifier::Live, "1", None).await?;
        warm += usize::from(answer.call.start.context("it says so")? != "cold");
    }
    let mut by_worker = BTreeMap::new();
    for instance in client.instances(1_000).await?.items {
        if instance.value.function == policy {
            *by_worker.entry(instance.value.worker).or_default() += instance.value.served;
        }
    }
    Ok((by_worker, warm))
}

#[tokio::test]
async fn each_function_has_its_calls_balanced_by_its_own_policy() -> Result<()> {
    let cluster = Cluster::start(3, &[]).await?;
    let (by_worker, warm) = served(&cluster, "round-robin").await?;
    assert_eq!(by_worker, [("w1", 4), ("w2", 4), ("w3", 4)].map(|(name, calls)| (name.to_owned(), calls)).into());
    assert!(warm >= CALLS - 3, "{warm} of {CALLS} were warm");
    for policy in ["bounded-hash", "ch-rlu", "locality-first"] {
        let (by_worker, warm) = served(&cluster, policy).await?;
        assert_eq!(by_worker.values().collect::<Vec<_>>(), [&(CALLS as u64)], "{policy}: {by_worker:?}");
        assert!(warm >= CALLS - 1, "{policy}: {warm} of {CALLS} were warm");
    }
    let spread = served(&cluster, "power-of-two").await?.0;
    assert!(spread.len() > 1, "{spread:?}");
    Ok(())
}

#[tokio::test]
async fn a_policy_is_shown_belongs_to_its_version_and_is_refused_when_there_is_none_such() -> Result<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let lyra = cluster.commands();
    std::fs::write(cluster.scratch().join("a.js"), "export default () => 1")?;
    lyra.run(["deploy", "a.js", "--balancing", "least-queued"]).await?.ok()?;
    assert!(lyra.run(["fn", "get", "a"]).await?.ok()?.contains("least-queued"));
    let refused = lyra.run(["deploy", "a.js", "--balancing", "at-random"]).await?.expect(2)?;
    assert!(
        refused.stderr.contains("\"at-random\" is not a policy") && refused.stderr.contains("ch-rlu"),
        "{}",
        refused.stderr
    );
    lyra.run(["deploy", "a.js"]).await?.ok()?;
    let shown: Value = serde_json::from_str(&lyra.run(["fn", "get", "a", "-o", "json"]).await?.ok()?)?;
    assert_eq!(shown["balancing"], Value::Null, "as the gateway is set");
    let first = cluster.client()?.version(&FunctionName::new("a")?, 1).await?;
    assert_eq!(first.value.settings.balancing, Some(Balancing::LeastQueued), "a version keeps its own");
    Ok(())
}
