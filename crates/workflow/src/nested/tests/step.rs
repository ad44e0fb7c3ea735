//! Sub-runs that stand still with the run around them, that wait for room under a quota, and runs that are deleted.

use lyra_store::objects::{Change, Txn};
use lyra_types::Timestamp;
use lyra_types::quota::{Quota, QuotaKey};
use lyra_wire::quotas::quota_key;

use super::*;

impl Site {
    /// The run, once it has this status.
    async fn comes_to_be(&self, id: &RunId, status: RunStatus) {
        while self.service.run(&tenant(), id, Duration::ZERO).await.expect("the run").status != status {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn first_of(&self, name: &str) -> RunId {
        let query = RunQuery { workflow: Some(WorkflowName::new(name).expect("a name")), ..RunQuery::default() };
        let query = RunQuery { page: lyra_wire::control::PageQuery { limit: 1, cursor: None }, ..query };
        loop {
            if let Some(run) = self.service.runs(&tenant(), query.clone()).await.expect("runs").items.pop() {
                return run.id;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn approve(&self, id: &RunId) {
        let token = loop {
            let waiting = self.service.waiting(&tenant(), id).await.unwrap_or_default();
            if let Some(task) = waiting.into_iter().next() {
                break task.token.expect("a token");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let output = json!({"ok": true}).as_object().expect("an object").clone();
        self.service.complete(&token, Completion::Output(output)).await.expect("completed");
    }

    /// Tells a run something that may be about to be taken up by its process.
    async fn told(&self, id: &RunId, command: RunCommand) {
        while let Err(error) = self.service.command(&tenant(), id, command).await {
            assert_eq!(error.code, Code::Unavailable, "{error}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn may(&self, quota: Quota) {
        let key = quota_key(&QuotaKey { tenant: tenant(), function: None });
        let value = Bytes::from(serde_json::to_vec(&quota).expect("JSON"));
        let txn = Txn { checks: Vec::new(), changes: vec![Change::Put(key, value)] };
        self.service.objects().txn(txn).await.expect("set");
    }

    async fn tries(&self, name: &str, input: Value) -> Result<RunId, Error> {
        let input = input.as_object().expect("an object").clone();
        let name = WorkflowName::new(name).expect("a name");
        self.service.start(&tenant(), &name, NewRun { input, ..NewRun::default() }).await.map(|started| started.id)
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_paused_has_its_sub_runs_stand_still_which_costs_its_task_no_time() {
    let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
    let dir = tempfile::tempdir().expect("a directory");
    let site = Site::on(dir, Config::default(), clock, Arc::new(FakeEnds::default())).await;
    site.has("ask", ASK, json!([])).await;
    site.has("parent", &PARENT.replace("TIME", "1h"), sub("Ask", "ask")).await;
    let whole = PARENT.replace("name: parent", "name: whole").replace("parent/n", "whole/n");
    site.has("whole", &whole.replace("TIME", "1h"), sub("Ask", "parent")).await;
    let id = site.start("whole", json!({"n": 1})).await;
    let (middle, inner) = (site.first_of("parent").await, site.first_of("ask").await);
    site.service.command(&tenant(), &id, RunCommand::Pause).await.expect("paused");
    site.comes_to_be(&middle, RunStatus::Paused).await;
    site.comes_to_be(&inner, RunStatus::Paused).await;
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    site.comes_to_be(&inner, RunStatus::Paused).await;
    site.service.command(&tenant(), &id, RunCommand::Resume).await.expect("resumed");
    site.comes_to_be(&inner, RunStatus::Running).await;
    site.approve(&inner).await;
    site.comes_to_be(&id, RunStatus::Succeeded).await;
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_part_elsewhere_is_paused_with_its_run_and_goes_on_with_it() {
    let (site, target) = (site(|_| ()).await, elsewhere().await);
    site.has("cuts", EDGE, cut_to(&target)).await;
    let id = site.start("cuts", json!({"n": 1})).await;
    let part = part_of(&asked(&target, "POST /v1/cuts").await);
    let part = part["id"].as_str().expect("an id").to_owned();
    for (command, verb) in [(RunCommand::Pause, "pause"), (RunCommand::Resume, "resume")] {
        site.service.command(&tenant(), &id, command).await.expect("told");
        asked(&target, &format!("POST /v1/runs/{part}/{verb}")).await;
    }
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_tenant_starts_no_more_runs_than_its_quota_says_and_its_sub_runs_wait_for_room() {
    let site = site(|_| ()).await;
    site.may(Quota { runs: Some(2), ..Quota::default() }).await;
    site.has("ask", ASK, json!([])).await;
    site.has("child", CHILD, demo()).await;
    site.has("each", EACH, sub("Child", "child")).await;
    let first = site.start("ask", json!({"n": 1})).await;
    site.service.command(&tenant(), &first, RunCommand::Pause).await.expect("paused");
    site.start("ask", json!({"n": 2})).await;
    let refused = site.tries("ask", json!({"n": 3})).await.expect_err("no room");
    assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::LimitReached, "quota.runs"));
    assert_eq!(refused.detail, "the quota of tenant default is reached: 2 runs of workflows; as many have not ended");
    assert_eq!(site.service.usage(&tenant()).await.expect("counted").runs, 2);
    site.service.command(&tenant(), &first, RunCommand::Cancel).await.expect("cancelled");
    site.start("ask", json!({"n": 3})).await;
    let refused = site.service.command(&tenant(), &first, RunCommand::Redrive).await.expect_err("no room");
    assert_eq!(refused.code, Code::LimitReached);
    // One run and one sub-run find room at a time.
    site.may(Quota { runs: Some(4), ..Quota::default() }).await;
    let id = site.start("each", json!({"list": [1, 2, 3]})).await;
    let run = site.ended(&id).await;
    assert_eq!(Value::from(run.output.expect("an output")), json!({"sums": [2, 3, 4]}));
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_tenant_stores_no_more_workflows_than_its_quota_says() {
    let site = site(|_| ()).await;
    site.may(Quota { workflows: Some(2), ..Quota::default() }).await;
    site.has("ask", ASK, json!([])).await;
    let made = |name: &str, text: &str| NewWorkflow {
        name: WorkflowName::new(name).expect("a name"),
        definition: text.to_owned(),
        mappings: json!([]),
        schedule: None,
    };
    // Of those that come together as many pass as there is room for.
    let (one, two) = (tenant(), tenant());
    let both = tokio::join!(site.service.deploy(&one, made("one", ASK)), site.service.deploy(&two, made("two", ASK)),);
    let (passed, refused) = match both {
        (Ok(made), Err(error)) | (Err(error), Ok(made)) => (made, error),
        other => panic!("one of them: {other:?}"),
    };
    assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::LimitReached, "quota.workflows"));
    site.has("ask", &format!("{ASK}# another version"), json!([])).await;
    assert_eq!(site.service.usage(&tenant()).await.expect("counted").workflows, 2);
    site.service.delete_workflow(&tenant(), &passed.name).await.expect("deleted");
    site.has("three", ASK, json!([])).await;
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_that_has_ended_is_deleted_with_all_it_holds_and_one_that_goes_on_is_not() {
    let site = site(|config| config.inline_bytes = 0).await;
    site.has("ask", ASK, json!([])).await;
    site.has("child", CHILD, demo()).await;
    site.has("each", EACH, sub("Child", "child")).await;
    site.has("parent", &PARENT.replace("TIME", "1h"), sub("Ask", "ask")).await;
    let blobs = async || site.service.engine().deps().blobs.list().await.expect("listed").len();
    let before = blobs().await;
    let id = site.start("each", json!({"list": [1, 2]})).await;
    site.ended(&id).await;
    assert!(blobs().await > before, "outputs stand in the blob store");
    let kept = site.runs_of("child", 2).await;
    for run in kept.iter().map(|run| &run.id).chain([&id]) {
        site.service.delete_run(&tenant(), run).await.expect("deleted");
        assert_eq!(site.service.run(&tenant(), run, Duration::ZERO).await.expect_err("gone").code, Code::NotFound);
    }
    assert_eq!(blobs().await, before);
    assert_eq!(site.service.delete_run(&tenant(), &id).await.expect_err("gone").code, Code::NotFound);

    let whole = site.start("parent", json!({"n": 1})).await;
    let inner = site.first_of("ask").await;
    let refused = site.service.delete_run(&tenant(), &whole).await.expect_err("it goes on");
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.detail.contains("cancel it first"), "{}", refused.detail);
    site.told(&inner, RunCommand::Cancel).await;
    site.ended(&whole).await;
    site.service.delete_run(&tenant(), &inner).await.expect("deleted");
    site.service.command(&tenant(), &whole, RunCommand::Redrive).await.expect("it is there to be redriven");
    let inner = site.first_of("ask").await;
    site.told(&inner, RunCommand::Pause).await;
    let refused = site.service.delete_run(&tenant(), &inner).await.expect_err("it is paused");
    assert_eq!(refused.code, Code::Conflict);
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_is_deleted_once_those_who_hear_of_its_end_have_been_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let ends = Arc::new(FakeEnds { wants: true, away: true, ..FakeEnds::default() });
    let site = Site::on(dir, Config::default(), Clock::system(), ends).await;
    site.has("child", CHILD, demo()).await;
    let id = site.start("child", json!({"n": 1})).await;
    site.ended(&id).await;
    let refused = site.service.delete_run(&tenant(), &id).await.expect_err("its end is owed");
    assert_eq!((refused.code, refused.retry_after), (Code::Unavailable, Some(Duration::from_secs(1))));
    site.service.stop(Duration::ZERO).await;
}
