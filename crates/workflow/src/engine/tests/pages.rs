//! Traces page by page, and results that are kept for the next time.

use super::*;

#[tokio::test(start_paused = true)]
async fn pages_of_a_run_that_has_ended_read_its_journal_once() {
    let site = Site::new();
    let runs = site.store();
    let engine = site.engine(&runs, doubling(), 1, true).await;
    begin(&engine, &chain(20, ""), mapping(&["http://a.test"]), "r", json!({"n": 1})).await;
    ended(&engine, &runs, "r").await;
    let (tenant, id) = key("r");
    let page = async |from, limit| engine.trace(&tenant, &id, from, limit).await.expect("a page");
    let whole = page(0, 10_000).await;
    assert_eq!(engine.inner.pages.len(), 0, "there is no next page");
    let mut paged = Vec::new();
    while paged.len() < whole.len() {
        let next = page(paged.len() as u64, 7).await;
        paged.extend(next);
        assert!(engine.inner.pages.len() <= 1, "the same one goes on");
    }
    assert_eq!(paged, whole);
    assert!(page(whole.len() as u64, 7).await.is_empty());
    // Some were left out, and then others are asked for that have gone by.
    page(0, 3).await;
    assert_eq!(page(10, 3).await, whole[10..13]);
    assert_eq!(page(1, 3).await, whole[1..4]);
    assert!(engine.inner.pages.len() > 0);
    engine.inner.pages.clear(site.clock.instant() + Duration::from_secs(120));
    assert_eq!((engine.inner.pages.len(), page(13, 3).await.as_slice()), (0, &whole[13..16]));
}

/// Answers with how often it was called; what it is called by stands for what the test says.
struct Versioned {
    version: Mutex<&'static str>,
    calls: AtomicUsize,
}

#[async_trait]
impl Enact for Versioned {
    async fn stands_for(&self, _: &TenantName, _: &Resource) -> Result<String, Failure> {
        Ok((*self.version.lock()).to_owned())
    }

    async fn enact(&self, _: &Enactment, _: &Resource) -> Result<Bytes, Failure> {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Bytes::from(json!({"out": calls}).to_string()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_result_is_of_the_version_that_the_name_stands_for() {
    let site = Site::new();
    let runs = site.store();
    let enact = Arc::new(Versioned { version: Mutex::new("1"), calls: AtomicUsize::new(0) });
    let engine = site.engine(&runs, enact.clone(), 1, true).await;
    let document = chain(1, "      properties: [{ name: memo, value: true }]\n");
    for (id, version, out) in [("a", "1", 1), ("b", "1", 1), ("c", "2", 2), ("d", "2", 2), ("e", "1", 1)] {
        *enact.version.lock() = version;
        begin(&engine, &document, mapping(&["http://a.test"]), id, json!({"n": 1})).await;
        let (status, output, _) = ended(&engine, &runs, id).await;
        assert_eq!((status, output), (RunStatus::Succeeded, json!({"out": out})), "{id}");
    }
}
