//! The longest time of a run: its starter's, the operator's, and anew after a redrive.

use std::time::Duration;

use lyra_kit::Clock;
use lyra_types::workflow::{Run, RunStatus};
use lyra_types::{Code, RunId, TenantName, WorkflowName};
use lyra_wire::Workflows;
use lyra_wire::workflows::{Completion, NewRun, NewWorkflow, RunCommand};
use serde_json::json;

use crate::Config;
use crate::clearing::tests::Site;

const WAITS: &str = "
name: waits
workflowBody:
  - function: { name: ask, type: \"lyra:callback\", dataOuts: [{ name: ok, type: boolean }] }
dataOuts: [{ name: ok, type: boolean, source: ask/ok }]
";

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

async fn site(run_timeout: Duration) -> Site {
    let site = Site::with(Config { run_timeout, ..Config::default() }, Clock::system()).await;
    let name = WorkflowName::new("waits").expect("a name");
    let new = NewWorkflow { name, definition: WAITS.to_owned(), mappings: json!([]), schedule: None };
    site.service.deploy(&tenant(), new).await.expect("deployed");
    site
}

impl Site {
    async fn waits(&self, timeout_ms: Option<u64>) -> Result<RunId, lyra_types::Error> {
        let name = WorkflowName::new("waits").expect("a name");
        let new = NewRun { timeout_ms, ..NewRun::default() };
        self.service.start(&tenant(), &name, new).await.map(|started| started.id)
    }

    async fn failed(&self, id: &RunId) -> Run {
        let run = self.service.run(&tenant(), id, Duration::from_secs(30)).await.expect("the run");
        assert_eq!(run.status, RunStatus::Failed, "{run:?}");
        run
    }
}

fn cause(run: Run) -> (String, String) {
    let cause = run.error.expect("an error").cause;
    (cause.code, cause.message)
}

#[tokio::test]
async fn a_run_fails_when_the_time_is_over_that_it_was_started_with() {
    let site = site(Duration::from_secs(3_600)).await;
    let id = site.waits(Some(50)).await.expect("started");
    let (code, message) = cause(site.failed(&id).await);
    assert_eq!(code, "timeout");
    assert_eq!(message, "the run did not end within 0.05 s, the time that it was started with");
    let none = site.waits(Some(0)).await.expect_err("no time at all");
    assert_eq!((none.code, none.errors[0].field.as_str()), (Code::InvalidField, "timeout_ms"));
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn nobody_gives_a_run_more_time_than_the_operator() {
    let site = site(Duration::from_millis(50)).await;
    for timeout_ms in [Some(u64::MAX), None] {
        let id = site.waits(timeout_ms).await.expect("started");
        let (code, message) = cause(site.failed(&id).await);
        assert_eq!(code, "timeout");
        assert!(message.ends_with("0.05 s, the time that runs have here (workflow.run_timeout)"), "{message}");
    }
    site.service.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_that_is_redriven_has_its_time_anew() {
    let site = site(Duration::from_secs(3_600)).await;
    let id = site.waits(Some(3_000)).await.expect("started");
    site.failed(&id).await;
    site.service.command(&tenant(), &id, RunCommand::Redrive).await.expect("redriven");
    let token = loop {
        let waiting = site.service.waiting(&tenant(), &id).await.expect("under way");
        if let Some(task) = waiting.into_iter().next() {
            break task.token.expect("a token");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let output = json!({"ok": true}).as_object().expect("an object").clone();
    site.service.complete(&token, Completion::Output(output)).await.expect("in time");
    let run = site.service.run(&tenant(), &id, Duration::from_secs(30)).await.expect("the run");
    assert_eq!(run.status, RunStatus::Succeeded);
    site.service.stop(Duration::ZERO).await;
}
