//! A workflow role in memory: runs end when a test says so.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::api::Page;
use lyra_types::api::workflows::{Completion, Made, NewPart, NewRun, NewWorkflow, Started, Waiting};
use lyra_types::workflow::{Run, RunStatus, TaskCounts, TraceToken, Workflow, WorkflowVersion, no_such_run};
use lyra_types::{Code, Error, FieldError, Result, RunId, TenantName, Timestamp, WorkflowName};
use lyra_wire::control::PageQuery;
use lyra_wire::workflows::{RunCommand, RunQuery, WorkflowLoad, WorkflowMember, WorkflowProcess, WorkflowUse};
use lyra_wire::{Role, Workflows};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;

const TIME: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The role.
#[derive(Default)]
pub struct FakeWorkflows {
    versions: Mutex<BTreeMap<WorkflowName, Vec<NewWorkflow>>>,
    pub inputs: Mutex<BTreeMap<RunId, Map<String, Value>>>,
    pub completed: Mutex<Vec<(String, Completion)>>,
    runs: watch::Sender<BTreeMap<RunId, Run>>,
}

impl FakeWorkflows {
    /// Ends a run.
    pub fn end(&self, id: &str, status: RunStatus, output: Value) {
        let id = RunId::new(id).unwrap();
        self.runs.send_modify(|runs| {
            let run = runs.get_mut(&id).unwrap();
            run.status = status;
            run.output = output.as_object().cloned();
        });
    }

    fn known(&self, id: &RunId) -> Result<Run> {
        self.runs.borrow().get(id).cloned().ok_or_else(|| no_such_run(id))
    }

    fn workflow_of(&self, name: &WorkflowName) -> Result<Vec<NewWorkflow>> {
        self.versions.lock().get(name).cloned().ok_or_else(|| Error::not_found("workflow", name))
    }
}

fn counted<T>(items: Vec<T>, page: &PageQuery) -> Page<T> {
    let begin = page.cursor.as_ref().map_or(0, |cursor| cursor.parse().unwrap_or(0));
    let more = items.len() > begin + page.limit;
    let next = more.then(|| (begin + page.limit).to_string());
    Page { items: items.into_iter().skip(begin).take(page.limit).collect(), next }
}

#[async_trait]
impl Workflows for FakeWorkflows {
    async fn deploy(&self, _: &TenantName, workflow: NewWorkflow) -> Result<Made> {
        if workflow.definition == "bad" {
            let mut fault = FieldError::new("definition", "function \"a\": the source \"b/c\" does not exist");
            (fault.line, fault.column) = (Some(7), Some(3));
            return Err(Error::new(Code::InvalidField, "the workflow has 1 fault").with_field(fault));
        }
        let mut versions = self.versions.lock();
        let known = versions.entry(workflow.name.clone()).or_default();
        let created = known.last() != Some(&workflow);
        if created {
            known.push(workflow.clone());
        }
        Ok(Made { name: workflow.name, version: known.len() as u64, created, warnings: Vec::new() })
    }

    async fn workflows(&self, _: &TenantName, page: PageQuery) -> Result<Page<Workflow>> {
        let versions = self.versions.lock();
        let each = versions.iter().map(|(name, known)| Workflow {
            name: name.clone(),
            version: known.len() as u64,
            created_at: TIME,
            schedule: None,
        });
        Ok(counted(each.collect(), &page))
    }

    async fn workflow(&self, _: &TenantName, name: &WorkflowName, version: Option<u64>) -> Result<WorkflowVersion> {
        let known = self.workflow_of(name)?;
        let version = version.unwrap_or(known.len() as u64);
        let found = known.get(version as usize - 1).ok_or_else(|| Error::not_found("version", version))?;
        Ok(WorkflowVersion {
            name: name.clone(),
            version,
            definition: found.definition.clone(),
            mappings: found.mappings.clone(),
            created_at: TIME,
            schedule: None,
        })
    }

    async fn delete_workflow(&self, _: &TenantName, name: &WorkflowName) -> Result<()> {
        self.workflow_of(name)?;
        self.versions.lock().remove(name);
        Ok(())
    }

    async fn start(&self, tenant: &TenantName, name: &WorkflowName, run: NewRun) -> Result<Started> {
        let version = self.workflow_of(name)?.len() as u64;
        let next = RunId::new(&format!("run_{}", self.inputs.lock().len())).unwrap();
        let id = run.id.unwrap_or(next);
        if let Some(known) = self.inputs.lock().get(&id) {
            return match *known == run.input {
                true => Ok(Started { id, created: false }),
                false => Err(Error::new(Code::IdempotencyMismatch, "the id was used with another input")),
            };
        }
        self.inputs.lock().insert(id.clone(), run.input);
        let run = Run {
            id: id.clone(),
            tenant: tenant.clone(),
            workflow: name.clone(),
            version: run.version.unwrap_or(version),
            status: RunStatus::Running,
            created_at: TIME,
            ended_at: None,
            output: None,
            error: None,
            tasks: TaskCounts::default(),
            parent: None,
            schedule: None,
            traceparent: run.traceparent,
            stuck: None,
        };
        self.runs.send_modify(|runs| drop(runs.insert(id.clone(), run)));
        Ok(Started { id, created: true })
    }

    async fn start_part(&self, tenant: &TenantName, part: NewPart) -> Result<Started> {
        if part.graph.get("tasks").is_none() {
            return Err(Error::field(Code::InvalidField, "graph", "has no tasks"));
        }
        let name = WorkflowName::new("part")?;
        let workflow =
            NewWorkflow { name: name.clone(), definition: String::new(), mappings: part.mappings, schedule: None };
        self.versions.lock().insert(name.clone(), vec![workflow]);
        self.start(tenant, &name, NewRun { input: part.input, id: Some(part.id), ..NewRun::default() }).await
    }

    async fn run(&self, _: &TenantName, id: &RunId, wait: Duration) -> Result<Run> {
        self.known(id)?;
        let mut runs = self.runs.subscribe();
        drop(tokio::time::timeout(wait, runs.wait_for(|runs| runs[id].status.is_final())).await);
        self.known(id)
    }

    async fn runs(&self, _: &TenantName, query: RunQuery) -> Result<Page<Run>> {
        let fits = |run: &&Run| {
            query.workflow.as_ref().is_none_or(|workflow| run.workflow == *workflow)
                && query.status.is_none_or(|status| run.status == status)
        };
        let runs = self.runs.borrow().values().filter(fits).cloned().collect();
        Ok(counted(runs, &query.page))
    }

    async fn command(&self, _: &TenantName, id: &RunId, command: RunCommand) -> Result<Run> {
        let status = match (command, self.known(id)?.status) {
            (RunCommand::Redrive, RunStatus::Failed | RunStatus::Cancelled) => RunStatus::Running,
            (_, status) if status.is_final() => return Err(Error::new(Code::Conflict, "the run has ended")),
            (RunCommand::Pause, _) => RunStatus::Paused,
            (RunCommand::Resume, _) => RunStatus::Running,
            (RunCommand::Cancel, _) => RunStatus::Cancelled,
            (RunCommand::Redrive, _) => return Err(Error::new(Code::Conflict, "the run goes on")),
        };
        self.end(id.as_str(), status, Value::Null);
        self.known(id)
    }

    async fn delete_run(&self, _: &TenantName, id: &RunId) -> Result<()> {
        if !self.known(id)?.status.is_final() {
            return Err(Error::new(Code::Conflict, "the run has not ended"));
        }
        self.runs.send_modify(|runs| drop(runs.remove(id)));
        Ok(())
    }

    async fn usage(&self, _: &TenantName) -> Result<WorkflowUse> {
        Ok(WorkflowUse::default())
    }

    async fn trace(&self, _: &TenantName, id: &RunId, from: u64, limit: usize) -> Result<Vec<TraceToken>> {
        self.known(id)?;
        let token = |seq| TraceToken {
            seq,
            step: "S".to_owned(),
            node: "resize".to_owned(),
            path: vec![seq as u32],
            time: TIME,
            attempt: None,
            resources: Vec::new(),
            cause: None,
        };
        Ok((from..5).take(limit).map(token).collect())
    }

    async fn waiting(&self, _: &TenantName, id: &RunId) -> Result<Vec<Waiting>> {
        self.known(id)?;
        let (run, task, token) = (id.clone(), "approve".to_owned(), Some("cb_1".to_owned()));
        Ok(vec![Waiting { run, task, token, since: TIME, input: Map::new() }])
    }

    async fn clear(&self, _: &TenantName) -> Result<bool> {
        Ok(true)
    }

    async fn value(&self, token: &str) -> Result<Bytes> {
        match token {
            "good" => Ok(Bytes::from_static(b"[0,1,2,3]")),
            _ => Err(Error::new(Code::NotFound, "there is no value of this URL, or not any more")),
        }
    }

    async fn complete(&self, token: &str, completion: Completion) -> Result<()> {
        if token != "cb_1" && token != "cb_acme~r~0~~1~proof" {
            return Err(Error::not_found("waiting task", token));
        }
        self.completed.lock().push((token.to_owned(), completion));
        Ok(())
    }

    async fn members(&self) -> Result<Vec<WorkflowMember>> {
        let process = |name: &str, address: &str, role, leaving| {
            let (name, address) = (name.to_owned(), address.to_owned());
            WorkflowProcess { name, address, role, owner: 1, since: TIME, leaving }
        };
        let load = Some(WorkflowLoad { runs: 3, stuck: 1, calls: 2 });
        Ok(vec![
            WorkflowMember { process: process("c1", "", Role::Control, false), load },
            WorkflowMember { process: process("f1", "f1:7070", Role::Workflow, true), load },
            WorkflowMember { process: process("f2", "f2:7070", Role::Workflow, false), load: None },
        ])
    }
}
