//! The workflow role over gRPC: what is asked arrives as it was asked, and what is answered comes back as it was answered.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::api::Page;
use lyra_types::workflow::{Cause, Run, RunError, RunStatus, TaskCounts, TraceToken, Workflow, WorkflowVersion};
use lyra_types::{Code, Error, FieldError, Result, RunId, TenantName, Timestamp, WorkflowName};
use lyra_wire::control::PageQuery;
use lyra_wire::grpc::{self, RemoteWorkflows, Security};
use lyra_wire::workflows::{
    Completion, Made, NewPart, NewRun, NewWorkflow, Overlap, RunCommand, RunQuery, Schedule, ScheduledRun, Started,
    Waiting, WorkflowLoad, WorkflowMember, WorkflowProcess, WorkflowSchedule, WorkflowUse,
};
use lyra_wire::{Role, Workflows};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TIME: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Keeps what it is asked, as text, and answers with what there is room for in an answer.
#[derive(Default)]
struct Echo {
    asked: Mutex<Vec<String>>,
}

impl Echo {
    fn ask(&self, text: impl std::fmt::Debug) {
        self.asked.lock().push(format!("{text:?}"));
    }
}

fn run(id: &RunId) -> Run {
    let cause = Cause {
        code: "http_503".to_owned(),
        message: "no".to_owned(),
        name: Some("Busy".to_owned()),
        resource: Some("http://x/".to_owned()),
    };
    let causes = vec![cause.clone()];
    Run {
        id: id.clone(),
        tenant: TenantName::default_tenant(),
        workflow: name(),
        version: 3,
        status: RunStatus::Failed,
        created_at: TIME,
        ended_at: Some(TIME),
        output: Some(object()),
        error: Some(RunError { task: Some("resize[3]".to_owned()), attempts: 2, cause, causes }),
        tasks: TaskCounts { succeeded: 1, active: 2, failed_attempts: 3 },
        parent: None,
        schedule: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        stuck: Some("no".to_owned()),
    }
}

fn timed() -> WorkflowSchedule {
    let last = ScheduledRun { run: RunId::new("thumbs.1").unwrap(), at: Some(TIME) };
    WorkflowSchedule {
        cron: "0 6 * * *".to_owned(),
        time_zone: None,
        overlap: Overlap::Skip,
        input: object(),
        next: Some(TIME),
        last: Some(last),
    }
}

fn name() -> WorkflowName {
    WorkflowName::new("thumbs").unwrap()
}

fn object() -> Map<String, Value> {
    let value = json!({"a": [1, -2, 2.5, null, true, "ü", {"b": {}}], "big": u64::MAX, "small": i64::MIN});
    value.as_object().unwrap().clone()
}

fn token() -> TraceToken {
    TraceToken {
        seq: 7,
        step: "E".to_owned(),
        node: "resize".to_owned(),
        path: vec![1, 2],
        time: TIME,
        attempt: Some(1),
        resources: vec!["Demo".to_owned()],
        cause: None,
    }
}

#[async_trait]
impl Workflows for Echo {
    async fn deploy(&self, tenant: &TenantName, workflow: NewWorkflow) -> Result<Made> {
        self.ask((tenant, &workflow));
        if workflow.definition == "bad" {
            let mut fault = FieldError::new("definition", "is wrong");
            (fault.line, fault.column) = (Some(7), Some(3));
            return Err(Error::new(Code::InvalidField, "wrong").with_field(fault));
        }
        Ok(Made { name: workflow.name, version: 1, created: true, warnings: vec!["1:2: odd".to_owned()] })
    }

    async fn workflows(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Workflow>> {
        self.ask((tenant, &page));
        Ok(Page {
            items: vec![Workflow { name: name(), version: 1, created_at: TIME, schedule: Some(timed()) }],
            next: page.cursor,
        })
    }

    async fn workflow(
        &self,
        tenant: &TenantName,
        name: &WorkflowName,
        version: Option<u64>,
    ) -> Result<WorkflowVersion> {
        self.ask((tenant, name, version));
        let (definition, mappings) = ("text".to_owned(), json!([{"functionType": "f"}]));
        Ok(WorkflowVersion {
            name: name.clone(),
            version: version.unwrap_or(9),
            definition,
            mappings,
            created_at: TIME,
            schedule: None,
        })
    }

    async fn delete_workflow(&self, tenant: &TenantName, name: &WorkflowName) -> Result<()> {
        self.ask((tenant, name));
        Ok(())
    }

    async fn start(&self, tenant: &TenantName, name: &WorkflowName, run: NewRun) -> Result<Started> {
        self.ask((tenant, name, &run));
        Ok(Started { id: run.id.unwrap_or_else(|| RunId::from_parts(1, 1)), created: true })
    }

    async fn start_part(&self, tenant: &TenantName, part: NewPart) -> Result<Started> {
        self.ask((tenant, &part));
        Ok(Started { id: part.id, created: false })
    }

    async fn run(&self, tenant: &TenantName, id: &RunId, wait: Duration) -> Result<Run> {
        self.ask((tenant, id, wait));
        Ok(run(id))
    }

    async fn runs(&self, tenant: &TenantName, query: RunQuery) -> Result<Page<Run>> {
        self.ask((tenant, &query));
        Ok(Page { items: vec![run(&RunId::from_parts(1, 1))], next: None })
    }

    async fn command(&self, tenant: &TenantName, id: &RunId, command: RunCommand) -> Result<Run> {
        self.ask((tenant, id, command));
        Ok(run(id))
    }

    async fn delete_run(&self, tenant: &TenantName, id: &RunId) -> Result<()> {
        self.ask((tenant, id));
        Ok(())
    }

    async fn usage(&self, tenant: &TenantName) -> Result<WorkflowUse> {
        self.ask(tenant);
        Ok(WorkflowUse { workflows: 4, runs: 5 })
    }

    async fn trace(&self, tenant: &TenantName, id: &RunId, from: u64, limit: usize) -> Result<Vec<TraceToken>> {
        self.ask((tenant, id, from, limit));
        Ok(vec![token()])
    }

    async fn waiting(&self, tenant: &TenantName, id: &RunId) -> Result<Vec<Waiting>> {
        self.ask((tenant, id));
        let (task, token) = ("approve".to_owned(), Some("cb_1".to_owned()));
        Ok(vec![Waiting { run: id.clone(), task, token, since: TIME, input: object() }])
    }

    async fn clear(&self, tenant: &TenantName) -> Result<bool> {
        self.ask(tenant);
        Ok(tenant.as_str() != "busy")
    }

    async fn value(&self, token: &str) -> Result<Bytes> {
        self.ask(token);
        Ok(Bytes::from_static(b"[1,\"\xc3\xbc\"]"))
    }

    async fn complete(&self, token: &str, completion: Completion) -> Result<()> {
        self.ask((token, &completion));
        Ok(())
    }

    async fn members(&self) -> Result<Vec<WorkflowMember>> {
        self.ask("members");
        let (name, address) = ("f1".to_owned(), "f1:7070".to_owned());
        let process = WorkflowProcess { name, address, role: Role::Workflow, owner: 7, since: TIME, leaving: false };
        Ok(vec![WorkflowMember { process, load: Some(WorkflowLoad { runs: 1, stuck: 2, calls: 3 }) }])
    }
}

/// Asks `asker` everything.
async fn ask_all(asker: &dyn Workflows) -> Vec<String> {
    let (tenant, id) = (TenantName::new("acme").unwrap(), RunId::new("mine").unwrap());
    let schedule =
        Schedule { cron: "0 6 * * *".to_owned(), time_zone: None, overlap: Overlap::Replace, input: object() };
    let workflow = NewWorkflow {
        name: name(),
        definition: "text".to_owned(),
        mappings: json!([]),
        schedule: Some(Some(schedule)),
    };
    let bad = NewWorkflow { definition: "bad".to_owned(), schedule: None, ..workflow.clone() };
    let unscheduled = NewWorkflow { schedule: Some(None), ..workflow.clone() };
    let page = PageQuery { limit: 5, cursor: Some("c".to_owned()) };
    let query = RunQuery { workflow: Some(name()), status: Some(RunStatus::Paused), page: page.clone() };
    let new = NewRun {
        input: object(),
        id: Some(id.clone()),
        version: Some(2),
        timeout_ms: Some(1_500),
        ..NewRun::default()
    };
    let error = Completion::Error { code: "refused".to_owned(), message: "no".to_owned() };
    let wait = Duration::from_millis(1_500);
    let part = NewPart {
        id: id.clone(),
        graph: json!({"name": "w"}),
        mappings: json!([]),
        input: object(),
        depth: 3,
        traceparent: None,
        user: Some("ada".into()),
    };
    let busy = TenantName::new("busy").unwrap();
    let mut answers = vec![
        format!("{:?}", asker.start_part(&tenant, part).await),
        format!("{:?}", asker.deploy(&tenant, workflow).await),
        format!("{:?}", asker.deploy(&tenant, bad).await),
        format!("{:?}", asker.deploy(&tenant, unscheduled).await),
        format!("{:?}", asker.workflows(&tenant, page).await),
        format!("{:?}", asker.workflow(&tenant, &name(), None).await),
        format!("{:?}", asker.workflow(&tenant, &name(), Some(2)).await),
        format!("{:?}", asker.delete_workflow(&tenant, &name()).await),
        format!("{:?}", asker.start(&tenant, &name(), new).await),
        format!("{:?}", asker.start(&tenant, &name(), NewRun::default()).await),
        format!("{:?}", asker.run(&tenant, &id, wait).await),
        format!("{:?}", asker.runs(&tenant, query).await),
        format!("{:?}", asker.trace(&tenant, &id, 3, 4).await),
        format!("{:?}", asker.waiting(&tenant, &id).await),
        format!("{:?}", asker.complete("cb_1", Completion::Output(object())).await),
        format!("{:?}", asker.complete("cb_1", error).await),
        format!("{:?}", asker.value("token").await),
        format!("{:?}", asker.delete_run(&tenant, &id).await),
        format!("{:?}", asker.usage(&tenant).await),
        format!("{:?}", asker.clear(&tenant).await),
        format!("{:?}", asker.clear(&busy).await),
        format!("{:?}", asker.members().await),
    ];
    for command in [RunCommand::Pause, RunCommand::Resume, RunCommand::Cancel, RunCommand::Redrive] {
        answers.push(format!("{:?}", asker.command(&tenant, &id, command).await));
    }
    answers
}

#[tokio::test]
async fn a_workflow_role_elsewhere_is_asked_and_answers_as_one_here() {
    let (here, elsewhere) = (Arc::new(Echo::default()), Arc::new(Echo::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut routes = grpc::routes();
    grpc::add_workflows(&mut routes, elsewhere.clone());
    let closing = CancellationToken::new();
    let until = closing.clone();
    let server = lyra_kit::tasks::spawn("server", async move {
        grpc::serve(listener, routes, &Security::Plain, until).await.unwrap();
    });
    let remote = RemoteWorkflows::new(&[address], &Security::Plain).unwrap();
    assert_eq!(ask_all(&remote).await, ask_all(&*here).await);
    assert_eq!(*elsewhere.asked.lock(), *here.asked.lock());
    drop(remote);
    closing.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn a_workflow_role_that_is_away_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let remote = RemoteWorkflows::new(&[address], &Security::Plain).unwrap();
    let error = remote.delete_workflow(&TenantName::default_tenant(), &name()).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
}
