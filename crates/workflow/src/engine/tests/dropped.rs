//! Starts whose caller goes away in the middle.

use lyra_store::runs::RunFilter;

use super::*;

#[tokio::test]
async fn a_start_whose_caller_goes_away_is_carried_out_or_was_none() {
    let site = Site::new();
    let runs = site.store();
    let engine = site.engine(&runs, doubling(), 1, true).await;
    for n in 0..40_u64 {
        let id = format!("r{n}");
        let document = chain(1, "");
        let start = begin(&engine, &document, mapping(&["http://a.test"]), &id, json!({"n": 1}));
        // The first ones are given up, the last ones may not be.
        drop(tokio::time::timeout(Duration::from_micros(n * 50), start).await);
    }
    for _ in 0..1_000 {
        let all = RunFilter { workflow: None, status: None, before: None, limit: 100 };
        let known = runs.list(TenantName::default_tenant(), all).await.expect("runs");
        if !known.is_empty() && known.iter().all(|run| run.status == RunStatus::Succeeded) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a run that the store has is run by nobody");
}
