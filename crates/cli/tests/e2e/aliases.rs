//! `lyra fn alias` and `lyra fn rollback`.

use anyhow::Result;
use serde_json::json;

use super::start::{deploy, server};

#[tokio::test]
async fn aliases_are_set_shown_listed_used_and_deleted() -> Result<()> {
    let lyra = server().await?;
    for version in 1..=2 {
        deploy(&lyra, "a", &format!("export default () => {version}"), &[]).await?;
    }
    let view = lyra.cli(["fn", "alias", "a", "beta", "1", "-o", "json"]).await?.json()?;
    assert_eq!((&view["name"], &view["version"], &view["weights"]), (&json!("beta"), &json!(1), &json!({"1": 1})));
    assert_eq!(lyra.cli(["invoke", "a@beta"]).await?.ok()?, "1\n");
    assert_eq!(lyra.cli(["invoke", "a"]).await?.ok()?, "2\n");
    assert_eq!(lyra.cli(["invoke", "a@1"]).await?.ok()?, "1\n");
    assert_eq!(lyra.cli(["fn", "alias", "a", "-q"]).await?.ok()?, "beta\nlive\n");
    assert!(lyra.cli(["fn", "alias", "a", "live"]).await?.ok()?.contains("version:   2"));
    assert_eq!(lyra.cli(["fn", "alias", "a", "beta", "--delete"]).await?.ok()?, "alias beta of function a deleted\n");
    lyra.cli(["invoke", "a@beta"]).await?.expect(3)?;
    lyra.cli(["fn", "alias", "a", "beta"]).await?.expect(3)?;
    lyra.cli(["fn", "alias", "a", "live", "--delete"]).await?.expect(2)?;
    lyra.cli(["fn", "alias", "a", "live", "9"]).await?;
    assert_eq!(lyra.cli(["invoke", "a"]).await?.ok()?, "2\n", "a refused change has changed something");
    Ok(())
}

#[tokio::test]
async fn a_split_sends_calls_both_ways_and_a_rollback_takes_it_back() -> Result<()> {
    let lyra = server().await?;
    for version in 1..=2 {
        deploy(&lyra, "a", &format!("export default () => {version}"), &["--no-promote"]).await?;
    }
    lyra.cli(["fn", "alias", "a", "live", "1"]).await?.ok()?;
    let shown = lyra.cli(["fn", "alias", "a", "live", "1:50,2:50"]).await?.ok()?;
    assert!(shown.contains("1:50, 2:50"), "{shown}");
    let client = lyra.client()?;
    let name = "a".parse()?;
    let mut seen = std::collections::BTreeSet::new();
    // Sixty-four calls all going one way would be one chance in 2^63.
    for _ in 0..64 {
        seen.extend(client.invoke(&name, &lyra_types::name::Qualifier::Live, "null", None).await?.call.version);
    }
    assert_eq!(seen.into_iter().collect::<Vec<u64>>(), [1, 2]);
    let view = lyra.cli(["fn", "rollback", "a", "-o", "json"]).await?.json()?;
    assert_eq!(view["weights"], json!({"1": 1}));
    assert_eq!(lyra.cli(["invoke", "a"]).await?.ok()?, "1\n");
    Ok(())
}
