//! Workflows as they are kept: an object for each with its newest version, one for each version; texts and compiled
//! graphs in the blob store.
//!
//! Keys: `workflows/TENANT/NAME` and `workflow-versions/TENANT/NAME/NUMBER`, in one transaction. A version never
//! changes. `workflow-gates/TENANT`: written with each new workflow of a tenant that has a quota of them. What runs hold
//! is the digest of the compiled graph, so a deleted workflow's runs go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use lyra_afcl::graph::{CUT_TYPE, TaskKind};
use lyra_afcl::{Diagnostics, Graph};
use lyra_kit::Clock;
use lyra_store::objects::{Change, Check, Entry, Txn};
use lyra_store::{Blobs, Objects, TxnError};
use lyra_types::api::Page;
use lyra_types::function::Digest;
use lyra_types::workflow::{Workflow, WorkflowVersion};
use lyra_types::{Code, Error, FieldError, Result, TenantName, Timestamp, WorkflowName};
use lyra_wire::control::PageQuery;
use lyra_wire::hooks::{workflow_destinations_key, workflow_key as newest_key};
use lyra_wire::workflows::{Made, NewPart, NewWorkflow, Schedule};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Compiled;
use crate::engine::program::{CALLBACK, DELAY};
use crate::mapping::{Mapping, Resource, ResourceKind, Transfer, TypeMapping};
use crate::quota;
use crate::timetable::{self, Timed};

/// Most items of a page.
const PAGE: usize = 1_000;
/// Tries of a deploy that another one comes between.
const TRIES: usize = 8;

/// One version, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub version: u64,
    pub created_at: Timestamp,
    /// Digest of the definition's text.
    pub definition: String,
    /// The mapping as it was handed in.
    pub mappings: Value,
    /// Digest of the [`Compiled`] graph.
    pub program: String,
    /// When runs are started by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

pub(crate) struct Definitions {
    pub objects: Arc<dyn Objects>,
    pub blobs: Arc<dyn Blobs>,
    pub clock: Clock,
}

/// What the keys of all versions begin with.
pub(crate) const VERSIONS: &str = "workflow-versions/";
/// What the keys of the gates of tenants begin with, which makers of workflows under a quota pass one after the other.
const GATES: &str = "workflow-gates/";

fn versions_prefix(tenant: &TenantName, name: &WorkflowName) -> String {
    format!("{VERSIONS}{tenant}/{name}/")
}

fn version_key(tenant: &TenantName, name: &WorkflowName, version: u64) -> String {
    format!("{}{version:010}", versions_prefix(tenant, name))
}

impl Definitions {
    /// Stores a workflow as a new version, unless the newest is the same. Its program and its text are in the blob store
    /// under these digests, and are not deleted meanwhile.
    pub(crate) async fn store(
        &self,
        tenant: &TenantName,
        new: NewWorkflow,
        (program, definition): (String, String),
        warnings: Vec<String>,
        most: Option<u32>,
    ) -> Result<Made> {
        for _ in 0..TRIES {
            let key = newest_key(tenant, &new.name);
            let known = self.objects.get(&key).await?;
            let newest: Option<Version> = known.as_ref().map(|entry| read(&entry.value)).transpose()?;
            // Who says nothing of a schedule leaves it as it is.
            let schedule = match new.schedule.clone() {
                Some(said) => said,
                None => newest.as_ref().and_then(|newest| newest.schedule.clone()),
            };
            if let Some(newest) = &newest
                && newest.program == program
                && newest.definition == definition
                && newest.mappings == new.mappings
                && newest.schedule == schedule
            {
                return Ok(Made { name: new.name, version: newest.version, created: false, warnings });
            }
            let version = Version {
                version: newest.map_or(1, |newest| newest.version + 1),
                created_at: self.clock.now(),
                definition: definition.clone(),
                mappings: new.mappings.clone(),
                program: program.clone(),
                schedule: schedule.clone(),
            };
            let timed_key = timetable::key(tenant, &new.name);
            let timed = self.objects.get(&timed_key).await?;
            // What runs it starts meanwhile is not to be lost.
            let mut checks = vec![unchanged(&key, known.as_ref()), unchanged(&timed_key, timed.as_ref())];
            let timed: Option<Timed> = timed.as_ref().map(timetable::read).transpose()?;
            let value = write(&version)?;
            let gate = match most.filter(|_| known.is_none()) {
                Some(most) => Some(self.gate(tenant, most).await?),
                None => None,
            };
            let mut changes = vec![
                Change::Put(key, value.clone()),
                Change::Put(version_key(tenant, &new.name, version.version), value),
                match schedule {
                    Some(schedule) => Change::Put(timed_key, write(&Timed::after(timed, schedule, self.clock.now()))?),
                    None => Change::Delete(timed_key),
                },
            ];
            if let Some((check, change)) = gate {
                checks.push(check);
                changes.push(change);
            }
            match self.objects.txn(Txn { checks, changes }).await {
                Ok(_) => return Ok(Made { name: new.name, version: version.version, created: true, warnings }),
                Err(TxnError::Failed { .. }) => {}
                Err(TxnError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::new(Code::Conflict, format!("workflow \"{}\" is being changed by others; try again", new.name)))
    }

    /// Lets one more workflow in under the tenant's quota. Whoever makes one writes the tenant's gate, if it is as it was when they were
    /// counted: of two that would pass together one comes later, and sees the other.
    async fn gate(&self, tenant: &TenantName, most: u32) -> Result<(Check, Change)> {
        let key = format!("{GATES}{tenant}");
        let gate = self.objects.get(&key).await?;
        let stored = self.count(tenant, most.into()).await?;
        if stored >= u64::from(most) {
            return Err(quota::too_many_workflows(tenant, most, stored));
        }
        Ok((unchanged(&key, gate.as_ref()), Change::Put(key, Bytes::new())))
    }

    /// How many workflows a tenant has, counted up to `most`.
    pub(crate) async fn count(&self, tenant: &TenantName, most: u64) -> Result<u64> {
        let prefix = format!("workflows/{tenant}/");
        let (mut count, mut after) = (0, None::<String>);
        loop {
            let listing = self.objects.list(&prefix, PAGE, after.as_deref()).await?;
            count += listing.entries.len() as u64;
            after = listing.entries.last().map(|last| last.key.clone());
            if !listing.more || count >= most || after.is_none() {
                return Ok(count.min(most));
            }
        }
    }

    /// The stored version, the newest where none is named.
    pub(crate) async fn version(
        &self,
        tenant: &TenantName,
        name: &WorkflowName,
        version: Option<u64>,
    ) -> Result<Version> {
        let key = version.map_or_else(|| newest_key(tenant, name), |version| version_key(tenant, name, version));
        let found = self.objects.get(&key).await?;
        let found = found.ok_or_else(|| match version {
            Some(version) => Error::not_found("workflow", format!("\"{name}@{version}\"")),
            None => Error::not_found("workflow", format!("\"{name}\"")),
        })?;
        read(&found.value)
    }

    /// A version with its texts.
    pub(crate) async fn get(
        &self,
        tenant: &TenantName,
        name: &WorkflowName,
        version: Option<u64>,
    ) -> Result<WorkflowVersion> {
        let found = self.version(tenant, name, version).await?;
        let timed = match version {
            None => self.objects.get(&timetable::key(tenant, name)).await?,
            Some(_) => None,
        };
        let timed = timed.as_ref().map(timetable::read).transpose()?;
        let text = self.blobs.get(&Digest(found.definition)).await?;
        let text = text.ok_or_else(|| Error::internal("the definition of a workflow is not in the blob store"))?;
        Ok(WorkflowVersion {
            name: name.clone(),
            version: found.version,
            definition: String::from_utf8_lossy(&text).into_owned(),
            mappings: found.mappings,
            created_at: found.created_at,
            schedule: timed.map(|timed| timed.shown(self.clock.now())),
        })
    }

    pub(crate) async fn list(&self, tenant: &TenantName, page: &PageQuery) -> Result<Page<Workflow>> {
        let prefix = format!("workflows/{tenant}/");
        let after = page.cursor.as_ref().map(|cursor| format!("{prefix}{cursor}"));
        let limit = page.limit.clamp(1, PAGE);
        let listing = self.objects.list(&prefix, limit, after.as_deref()).await?;
        let mut timed = self.timed(tenant, limit, page.cursor.as_deref()).await?;
        let mut items = Vec::with_capacity(listing.entries.len());
        for entry in &listing.entries {
            let name = WorkflowName::new(entry.key.strip_prefix(&prefix).unwrap_or_default())?;
            let newest: Version = read(&entry.value)?;
            let schedule = timed.remove(name.as_str()).map(|timed| timed.shown(self.clock.now()));
            items.push(Workflow { name, version: newest.version, created_at: newest.created_at, schedule });
        }
        let next = items.last().filter(|_| listing.more).map(|last| last.name.to_string());
        Ok(Page { items, next })
    }

    /// The schedules of a page of workflows, by name: of no more of them than there are workflows there.
    async fn timed(&self, tenant: &TenantName, limit: usize, after: Option<&str>) -> Result<HashMap<String, Timed>> {
        let prefix = timetable::of_tenant(tenant);
        let after = after.map(|cursor| format!("{prefix}{cursor}"));
        let listing = self.objects.list(&prefix, limit, after.as_deref()).await?;
        let named = listing.entries.iter().filter_map(|entry| Some((entry.key.strip_prefix(&prefix)?, entry)));
        named.map(|(name, entry)| Ok((name.to_owned(), timetable::read(entry)?))).collect()
    }

    /// Deletes all workflows of a tenant, with their versions and schedules.
    pub(crate) async fn delete_all(&self, tenant: &TenantName) -> Result<()> {
        let of = [format!("workflows/{tenant}/"), format!("{VERSIONS}{tenant}/"), timetable::of_tenant(tenant)];
        let prefixes = of.into_iter().map(Change::DeletePrefix);
        let changes = prefixes.chain([Change::Delete(format!("{GATES}{tenant}"))]).collect();
        match self.objects.txn(Txn { checks: Vec::new(), changes }).await {
            Ok(_) | Err(TxnError::Failed { .. }) => Ok(()),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }

    /// Deletes a workflow with its versions.
    pub(crate) async fn delete(&self, tenant: &TenantName, name: &WorkflowName) -> Result<()> {
        let key = newest_key(tenant, name);
        let txn = Txn {
            checks: vec![Check::Exists(key.clone())],
            changes: vec![
                Change::Delete(key),
                Change::DeletePrefix(versions_prefix(tenant, name)),
                Change::Delete(timetable::key(tenant, name)),
                Change::Delete(workflow_destinations_key(tenant, name)),
            ],
        };
        match self.objects.txn(txn).await {
            Ok(_) => Ok(()),
            Err(TxnError::Failed { .. }) => Err(Error::not_found("workflow", format!("\"{name}\""))),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }
}

/// That nobody has changed it since it was read.
fn unchanged(key: &str, read: Option<&Entry>) -> Check {
    match read {
        Some(entry) => Check::Modified(key.to_owned(), entry.modified),
        None => Check::Absent(key.to_owned()),
    }
}

pub(crate) fn read(bytes: &Bytes) -> Result<Version> {
    serde_json::from_slice(bytes).map_err(|error| Error::internal(format!("a stored workflow can't be read: {error}")))
}

fn write(value: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(value);
    bytes.map(Bytes::from).map_err(|error| Error::internal(format!("a workflow can't be written: {error}")))
}

/// Compiles and checks a document and its mapping; what is odd about it comes beside it.
pub(crate) fn compile(new: &NewWorkflow) -> Result<(Compiled, Vec<String>)> {
    let compiled = lyra_afcl::compile(&new.definition).map_err(|found| refused(&found))?;
    let mut warnings: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
    let (mut mapping, odd) = Mapping::parse_odd(&new.mappings)?;
    warnings.extend(odd);
    let mut graph = compiled.graph;
    let mut cuts = BTreeMap::new();
    for cut in std::mem::take(&mut graph.cuts) {
        let (parent, sub) = lyra_afcl::graph::cut(&graph, &cut)?;
        graph = parent;
        let function_type = format!("{CUT_TYPE}{}", cut.name);
        let is_mapped = mapping.types.iter().any(|of| of.function_type == function_type);
        // The mapping is late bound: it goes before the document.
        if let Some(url) = cut.url.filter(|_| !is_mapped) {
            let kind = ResourceKind::Cut { url, token: None };
            let resources = vec![Resource { kind, transmission: Transfer::default() }];
            mapping.types.push(TypeMapping { function_type, resources });
        }
        cuts.insert(cut.name, sub);
    }
    check_mapped(&graph, &mapping)?;
    for sub in cuts.values() {
        check_mapped(sub, &mapping)?;
    }
    Ok((Compiled { graph, mapping, cuts }, warnings))
}

/// A part that another Lyra sends, with a name for its runs. What came from outside is checked as if it were written by
/// hand.
pub(crate) fn part(part: &NewPart) -> Result<(Compiled, WorkflowName)> {
    let graph: Graph = serde_json::from_value(part.graph.clone())
        .map_err(|error| Error::field(Code::InvalidField, "graph", format!("is no enactment graph: {error}")))?;
    graph.validate()?;
    let mapping = Mapping::parse(&part.mappings)?;
    check_mapped(&graph, &mapping)?;
    let plain: String =
        graph.name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let plain: String = plain.chars().take(50).collect();
    let name =
        WorkflowName::new(&format!("part-{}", plain.trim_matches('-'))).or_else(|_| WorkflowName::new("part"))?;
    Ok((Compiled { graph, mapping, cuts: BTreeMap::new() }, name))
}

fn refused(found: &Diagnostics) -> Error {
    Error::from(found.clone())
}

/// Every type that is called must have a resource; the original finds that out when a run gets there.
fn check_mapped(graph: &Graph, mapping: &Mapping) -> Result<()> {
    let mut missing: Vec<&str> = Vec::new();
    for task in &graph.tasks {
        let TaskKind::Function { function_type, settings } = &task.kind else { continue };
        let alternatives = settings.catch.iter().flat_map(|catch| &catch.alternatives);
        for name in std::iter::once(function_type).chain(alternatives) {
            let own = name == DELAY || name == CALLBACK;
            let mapped = mapping.types.iter().any(|of| of.function_type == *name);
            if !own && !mapped && !missing.contains(&name.as_str()) {
                missing.push(name);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut error = Error::new(Code::InvalidField, "the type mapping lacks function types that the document uses");
    for name in missing {
        let reason = format!(
            "has no entry for the function type \"{name}\": add {{\"functionType\": \"{name}\", \"resources\": […]}}"
        );
        error = error.with_field(FieldError::new("mappings", reason));
    }
    Err(error)
}
