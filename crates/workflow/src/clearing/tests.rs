//! What is deleted and what stays, over real files.

use std::sync::Arc;

use lyra_kit::{Clock, Random, telemetry};
use lyra_store::objects::History;
use lyra_store::{DirectoryBlobs, SqliteObjects, SqliteRuns};
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, Timestamp, WorkflowName};
use lyra_wire::Workflows;
use lyra_wire::workflows::{NewRun, NewWorkflow};
use serde_json::{Value, json};

use super::*;
use crate::enact::tests::doubles::{FakeControl, FakeEnds, FakeWorker, NoQuotas};
use crate::{Config, Deps};

const ADDS: &str = "
name: adds
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: add
      type: Addition
      dataIns:
        - { name: firstSummand, type: number, source: adds/n }
        - { name: secondSummand, type: number, source: 1 }
        - { name: waitTimeIn, type: number, source: 0 }
      dataOuts: [{ name: sum, type: number }]
dataOuts: [{ name: sum, type: number, source: add/sum }]
";

fn adds(more: &str) -> NewWorkflow {
    NewWorkflow {
        name: WorkflowName::new("adds").expect("a name"),
        definition: format!("{ADDS}{more}"),
        mappings: json!([{"functionType": "Addition", "resources": [{"type": "Demo", "properties": {}}]}]),
        schedule: None,
    }
}

/// The role over real files.
pub(crate) struct Site {
    /// Kept for as long as the files are used.
    pub(crate) dir: tempfile::TempDir,
    pub(crate) service: Service,
}

impl Site {
    async fn new() -> Site {
        let config = Config { unused_every: Duration::from_secs(1_000_000), ..Config::default() };
        Site::with(config, Clock::simulated(Timestamp::from_millis(1_700_000_000_000))).await
    }

    pub(crate) async fn with(config: Config, clock: Clock) -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        Site::on(dir, config, clock, Arc::new(FakeEnds::default())).await
    }

    /// On what is in the directory.
    pub(crate) async fn on(dir: tempfile::TempDir, config: Config, clock: Clock, ends: Arc<FakeEnds>) -> Site {
        let objects = SqliteObjects::open(&dir.path().join("objects.db"), History::default(), None).expect("opens");
        let deps = Deps {
            objects: Arc::new(objects),
            blobs: Arc::new(DirectoryBlobs::open(&dir.path().join("blobs")).expect("opens")),
            runs: Arc::new(SqliteRuns::open(&dir.path().join("runs.db"), None).expect("opens")),
            control: Arc::new(FakeControl::default()),
            quotas: Arc::new(NoQuotas),
            default_quota: lyra_types::quota::Quota::default(),
            ends,
            worker: Arc::new(FakeWorker::default()),
            clock,
            random: Random::seeded(1),
            metrics: telemetry::Metrics::new(),
            public_only: false,
            alone: true,
            identity: crate::Identity {
                name: "local".to_owned(),
                address: String::new(),
                role: lyra_wire::Role::Workflow,
            },
        };
        Site { dir, service: Service::start(config, deps).await.expect("starts") }
    }

    pub(crate) async fn deploy(&self, more: &str) -> u64 {
        self.service.deploy(&tenant(), adds(more)).await.expect("deployed").version
    }

    pub(crate) async fn run(&self, id: &str) -> Value {
        let id = RunId::new(id).expect("an id");
        let name = WorkflowName::new("adds").expect("a name");
        let input = json!({"n": 1}).as_object().expect("an object").clone();
        let new = NewRun { input, id: Some(id.clone()), ..NewRun::default() };
        self.service.start(&tenant(), &name, new).await.expect("started");
        let run = self.service.run(&tenant(), &id, Duration::from_secs(60)).await.expect("the run");
        assert_eq!(run.status, RunStatus::Succeeded);
        Value::from(run.output.expect("an output"))
    }

    async fn blobs(&self) -> usize {
        self.service.engine().deps().blobs.list().await.expect("listed").len()
    }

    /// Two looks, with the grace in between.
    async fn collect(&self) -> usize {
        let mut unused = HashMap::new();
        assert_eq!(self.service.collect(&mut unused).await.expect("a round"), 0, "not at first sight");
        tokio::time::sleep(Duration::from_secs(3_601)).await;
        self.service.collect(&mut unused).await.expect("a round")
    }
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

#[tokio::test(start_paused = true)]
async fn what_nobody_refers_to_goes_and_what_anybody_does_stays() {
    let site = Site::new().await;
    assert_eq!((site.deploy("").await, site.deploy("# again").await), (1, 2));
    assert_eq!(site.run("r").await, json!({"sum": 2}));
    // One program, since both texts mean the same, and two texts.
    assert_eq!(site.blobs().await, 3);
    site.service.engine().deps().blobs.put(Bytes::from_static(b"left by a kill")).await.expect("put");
    assert_eq!(site.collect().await, 1);
    assert_eq!(site.blobs().await, 3);

    site.service.delete_workflow(&tenant(), &WorkflowName::new("adds").expect("a name")).await.expect("deleted");
    assert_eq!(site.collect().await, 2, "the run holds its program");
    let trace = site.service.trace(&tenant(), &RunId::new("r").expect("an id"), 0, 100).await.expect("a trace");
    assert!(!trace.is_empty());
    let (engine, id) = (site.service.engine(), RunId::new("r").expect("an id"));
    assert!(engine.forget(&tenant(), &id, site.service.clock().now()).await.expect("forgotten"));
    assert_eq!(site.collect().await, 1);
    assert_eq!(site.blobs().await, 0);
    assert_eq!(site.deploy("").await, 1, "all of it can come back");
    assert_eq!(site.run("r").await, json!({"sum": 2}));
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_be_referred_to_is_not_deleted() {
    let site = Site::new().await;
    let text = Bytes::from_static(b"the same as before");
    let digest = site.service.engine().deps().blobs.put(text.clone()).await.expect("put").0;
    let mut unused = HashMap::new();
    site.service.collect(&mut unused).await.expect("a round");
    tokio::time::sleep(Duration::from_secs(3_601)).await;
    let (pinned, _) = site.service.put_pinned(text.clone()).await.expect("pinned");
    assert_eq!(pinned, digest);
    assert_eq!(site.service.collect(&mut unused).await.expect("a round"), 0);
    assert_eq!(site.blobs().await, 1);
    // Where nothing came to refer to it, its pin ends, and it goes.
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert_eq!(site.collect().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_goes_with_its_workflows_and_runs() {
    let site = Site::new().await;
    site.deploy("").await;
    site.run("r").await;
    let other = TenantName::new("other").expect("a name");
    site.service.deploy(&other, adds("# theirs")).await.expect("deployed");
    let waits = "
name: waits
workflowBody:
  - function: { name: ask, type: \"lyra:callback\", dataOuts: [{ name: ok, type: boolean }] }
dataOuts: [{ name: ok, type: boolean, source: ask/ok }]
";
    let waits = NewWorkflow { definition: waits.to_owned(), mappings: json!([]), ..adds("") };
    site.service.deploy(&tenant(), waits).await.expect("deployed");
    let name = WorkflowName::new("adds").expect("a name");
    site.service.start(&tenant(), &name, NewRun::default()).await.expect("started");
    let mut rounds = 0;
    while !site.service.clear(&tenant()).await.expect("a round") {
        tokio::time::sleep(Duration::from_millis(250)).await;
        rounds += 1;
        assert!(rounds < 100, "it comes to an end");
    }
    assert!(rounds > 0, "a run that is under way is cancelled first");
    assert!(site.service.workflows(&tenant(), Default::default()).await.expect("listed").items.is_empty());
    assert!(site.service.runs(&tenant(), Default::default()).await.expect("listed").items.is_empty());
    assert_eq!(site.service.workflows(&other, Default::default()).await.expect("listed").items.len(), 1);
}
