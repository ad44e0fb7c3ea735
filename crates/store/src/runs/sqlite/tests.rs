use super::*;
use crate::runs::RunUpdate;
use lyra_types::WorkflowName;

fn new(id: &str, owner: u64) -> NewRunRecord {
    NewRunRecord {
        tenant: TenantName::default_tenant(),
        id: RunId::new(id).expect("an id"),
        workflow: WorkflowName::new("w").expect("a name"),
        version: 1,
        fingerprint: [7; 32],
        now: Timestamp::from_millis(1_000),
        owner,
        head: Bytes::from_static(b"head"),
        batch: Bytes::from_static(b"0"),
        summary: Bytes::from_static(b"{}"),
    }
}

fn batch(id: &str, fence: u64, number: u64, body: &'static str, end: bool) -> Append {
    Append {
        tenant: TenantName::default_tenant(),
        id: RunId::new(id).expect("an id"),
        fence,
        number,
        batch: Bytes::from_static(body.as_bytes()),
        update: end.then(|| RunUpdate {
            status: RunStatus::Succeeded,
            ended_at: Some(Timestamp::from_millis(2_000)),
            summary: Bytes::from_static(b"done"),
            output: Some(Bytes::from_static(b"out")),
        }),
    }
}

fn open(dir: &tempfile::TempDir) -> SqliteRuns {
    SqliteRuns::open(&dir.path().join("runs.db"), None).expect("opens")
}

#[tokio::test]
async fn a_run_is_made_once_by_id_and_its_journal_is_read_back_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let runs = open(&dir);
    assert_eq!(runs.create(new("a", 1)).await.expect("made"), CreatedRun::New { fence: 1 });
    assert_eq!(runs.create(new("a", 9)).await.expect("known"), CreatedRun::Known);
    let other = NewRunRecord { fingerprint: [8; 32], ..new("a", 1) };
    assert!(matches!(runs.create(other).await, Err(RunsError::Mismatch(_))));
    runs.append(batch("a", 1, 1, "1", false)).await.expect("appended");
    // The writer does not know that it was written, and repeats it.
    runs.append(batch("a", 1, 1, "1", false)).await.expect("repeated");
    assert!(matches!(runs.append(batch("a", 1, 3, "3", false)).await, Err(RunsError::Gap { .. })));
    runs.append(batch("a", 1, 2, "2", true)).await.expect("ended");
    drop(runs);
    let runs = open(&dir);
    let (tenant, id) = (TenantName::default_tenant(), RunId::new("a").expect("an id"));
    let (head, batches) = runs.journal(tenant.clone(), id.clone()).await.expect("there");
    assert_eq!((head.as_ref(), batches), (&b"head"[..], vec!["0".into(), "1".into(), "2".into()]));
    let (record, output) = runs.get(tenant.clone(), id, true).await.expect("there");
    assert_eq!((record.status, output.as_deref()), (RunStatus::Succeeded, Some(&b"out"[..])));
    assert_eq!(runs.counts().await.expect("counted"), [0, 0, 1, 0, 0]);
    let filter = RunFilter { limit: 10, status: Some(RunStatus::Running), ..RunFilter::default() };
    assert!(runs.list(tenant, filter).await.expect("listed").is_empty());
}

#[tokio::test]
async fn only_the_newest_owner_appends() {
    let dir = tempfile::tempdir().expect("a directory");
    let runs = open(&dir);
    let at = Timestamp::from_millis;
    runs.create(new("a", 1)).await.expect("made");
    runs.renew(1, at(1_000), Duration::from_secs(10)).await.expect("lives");
    assert!(runs.take(2, at(5_000), false, 10).await.expect("asked").is_empty(), "its owner lives");
    let taken = runs.take(2, at(12_000), false, 10).await.expect("asked");
    assert_eq!((taken.len(), taken[0].fence, taken[0].batches.len()), (1, 2, 1));
    assert!(matches!(runs.append(batch("a", 1, 1, "1", true)).await, Err(RunsError::Fenced(_))));
    runs.append(batch("a", 2, 1, "1", true)).await.expect("the new owner writes");
    assert!(runs.take(3, at(99_000), true, 10).await.expect("asked").is_empty(), "it has ended");
    let again = runs.reopen(TenantName::default_tenant(), RunId::new("a").expect("an id"), 3).await.expect("reopened");
    assert_eq!((again.fence, again.batches.len()), (3, 2));
}

#[tokio::test]
async fn what_has_ended_is_forgotten_after_its_time_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let runs = open(&dir);
    runs.create(new("a", 1)).await.expect("made");
    runs.create(new("b", 1)).await.expect("made");
    runs.append(batch("a", 1, 1, "1", true)).await.expect("ended");
    assert_eq!(runs.sweep(Timestamp::from_millis(1_500), 10).await.expect("swept"), 0);
    assert_eq!(runs.sweep(Timestamp::from_millis(2_500), 10).await.expect("swept"), 1);
    let left = runs.list(TenantName::default_tenant(), RunFilter { limit: 10, ..RunFilter::default() }).await;
    assert_eq!(left.expect("listed").iter().map(|run| run.id.as_str().to_owned()).collect::<Vec<_>>(), ["b"]);
}
