//! Who hears of the jobs of which function and the runs of which workflow: set by users, pinned to each job when it is accepted and to
//! each run when it is started.
//!
//! Every control process follows the records, so that accepting a job asks nobody. What must hold: whoever gets the answer that
//! destinations were set, and hands in a job at the same process, has it told to them; other processes know within the time of a watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lyra_kit::{Clock, Random, Tasks};
use lyra_store::objects::{Batch, Change, Check, Entry, Pages, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::delivery::{DestinationRequest, DestinationsRequest, DestinationsView};
use lyra_types::{Code, Error, Result, Secret, TenantName};
use lyra_wire::hooks::workflow_key;
use parking_lot::RwLock;

use super::record::{DESTINATIONS, Destinations, Notice, Subject, Target, parse_key, put, read};
use super::sealed::Vault;
use super::webhook::{Caller, check_secret, make_secret};
use crate::following::{Follows, follow};
use crate::functions::Table;

/// Records read at once.
const PAGE: usize = 1_000;
/// A job that so many deliveries led to is told to nobody: functions that are each other's destinations would never end.
pub(super) const MAX_DEPTH: u32 = 8;

type Known = HashMap<(TenantName, Subject), Arc<Pinned>>;

/// The notice of a function's jobs, or of a workflow's runs.
struct Pinned {
    notice: Notice,
    /// As a job or a run carries it that no delivery led to.
    text: Arc<str>,
}

/// Who hears of what.
pub(crate) struct Directory {
    objects: Arc<dyn Objects>,
    table: Arc<Table>,
    clock: Clock,
    random: Random,
    vault: Vault,
    pub(super) caller: Arc<Caller>,
    known: RwLock<Known>,
    /// What is known is complete up to this revision of the store.
    revision: AtomicU64,
}

fn pinned(notice: Notice) -> Result<Pinned> {
    let text = serde_json::to_string(&notice).map_err(|_| Error::internal("a notice can't be written"))?;
    Ok(Pinned { notice, text: text.into() })
}

impl Directory {
    pub(super) fn new(deps: &crate::Deps, table: Arc<Table>, caller: Arc<Caller>, vault: Vault) -> Directory {
        Directory {
            objects: Arc::clone(&deps.objects),
            table,
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            vault,
            caller,
            known: RwLock::default(),
            revision: AtomicU64::default(),
        }
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The notice of a new job or run; `None` where nobody wants to hear of its end.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where its own destinations are none; [`Code::Unavailable`] where their secrets can't be sealed.
    pub(crate) fn notice(
        &self,
        tenant: &TenantName,
        of: &Subject,
        own: Option<&DestinationsRequest>,
        depth: u32,
    ) -> Result<Option<Arc<str>>> {
        if depth > MAX_DEPTH {
            tracing::warn!(%tenant, %of, depth, "a job that deliveries led to is told to nobody: is it a loop?");
            return Ok(None);
        }
        if let Some(own) = own {
            own.check()?;
            let target = |field, asked: &Option<DestinationRequest>| {
                asked.as_ref().map(|asked| self.target(tenant, field, asked, false).map(|found| found.0)).transpose()
            };
            let on_success = target("destinations.on_success", &own.on_success)?;
            let on_failure = target("destinations.on_failure", &own.on_failure)?;
            return Ok(Some(pinned(Notice { on_success, on_failure, depth })?.text));
        }
        let known = self.known.read();
        if known.is_empty() {
            return Ok(None);
        }
        let Some(found) = known.get(&(tenant.clone(), of.clone())).cloned() else { return Ok(None) };
        drop(known);
        if depth == 0 {
            return Ok(Some(Arc::clone(&found.text)));
        }
        Ok(Some(pinned(Notice { depth, ..found.notice.clone() })?.text))
    }

    /// What calls of this URL are signed with now, where the subject has it as a destination.
    pub(super) fn current(&self, tenant: &TenantName, of: &Subject, url: &str) -> Option<Target> {
        let found = self.known.read().get(&(tenant.clone(), of.clone())).cloned()?;
        let targets = [&found.notice.on_success, &found.notice.on_failure];
        let same = |target: &&Target| matches!(target, Target::Url { url: known, .. } if known == url);
        targets.into_iter().flatten().find(same).cloned()
    }

    /// What a request means, and the secret that was made for it.
    fn target(
        &self,
        tenant: &TenantName,
        field: &str,
        asked: &DestinationRequest,
        may_make: bool,
    ) -> Result<(Target, Option<Secret>)> {
        if let Some(url) = &asked.url {
            self.caller.check(url, &format!("{field}.url"))?;
            let (secret, made) = match &asked.secret {
                Some(secret) => {
                    check_secret(secret, &format!("{field}.secret"))?;
                    (secret.clone(), None)
                }
                None if may_make => {
                    let made = make_secret(&self.random);
                    (made.clone(), Some(made))
                }
                None => {
                    let reason = "is needed for a url: what is made here could not be shown";
                    return Err(Error::field(Code::InvalidField, format!("{field}.secret"), reason));
                }
            };
            let secret = self.vault.seal(tenant, url, &secret)?;
            return Ok((Target::Url { url: url.clone(), secret }, made));
        }
        let function = asked.function.clone().unwrap_or_default();
        let (name, _) = lyra_types::name::Qualifier::split(&function)?;
        if self.table.get(tenant, &name).is_none() {
            let reason = format!("there is no function {name}");
            return Err(Error::field(Code::InvalidField, format!("{field}.function"), reason));
        }
        Ok((Target::Function(function), None))
    }

    pub(super) async fn put(
        &self,
        tenant: &TenantName,
        of: &Subject,
        request: &DestinationsRequest,
    ) -> Result<DestinationsView> {
        request.check()?;
        let missing = || Error::not_found(of.kind(), of.name());
        let is_there = || match of {
            Subject::Function(name) => self.table.get(tenant, name).is_some(),
            // The transaction finds that out.
            Subject::Workflow(_) => true,
        };
        if !is_there() {
            return Err(missing());
        }
        let mut made = [None, None];
        let mut target = |place: usize, field, asked: &Option<DestinationRequest>| -> Result<Option<Target>> {
            let Some(asked) = asked else { return Ok(None) };
            let (target, secret) = self.target(tenant, field, asked, true)?;
            made[place] = secret;
            Ok(Some(target))
        };
        let on_success = target(0, "on_success", &request.on_success)?;
        let on_failure = target(1, "on_failure", &request.on_failure)?;
        let record = Destinations { on_success, on_failure, updated_at: self.clock.now() };
        let checks = match of {
            Subject::Function(_) => Vec::new(),
            Subject::Workflow(name) => vec![Check::Exists(workflow_key(tenant, name))],
        };
        if !self.commit(checks, put(of.key(tenant), &record)?).await? {
            return Err(missing());
        }
        // Those who follow hear of it a moment later; whoever asked may hand in a job at once.
        self.learn(tenant, of, Some(&record))?;
        if !is_there() {
            // It was deleted meanwhile, maybe before this was written.
            self.delete(tenant, of).await?;
            return Err(missing());
        }
        tracing::info!(%tenant, %of, "destinations set");
        let mut view = record.view(of);
        for (view, made) in [&mut view.on_success, &mut view.on_failure].into_iter().zip(made) {
            if let Some(view) = view {
                view.secret = made;
            }
        }
        Ok(view)
    }

    pub(super) async fn get(&self, tenant: &TenantName, of: &Subject) -> Result<Destinations> {
        let entry = self.objects.get(&of.key(tenant)).await?;
        let entry = entry.ok_or_else(|| none(of))?;
        read(&entry)
    }

    pub(super) async fn delete(&self, tenant: &TenantName, of: &Subject) -> Result<()> {
        let key = of.key(tenant);
        let there = self.commit(vec![Check::Exists(key.clone())], Change::Delete(key)).await?;
        self.learn(tenant, of, None)?;
        match there {
            true => Ok(()),
            false => Err(none(of)),
        }
    }

    async fn commit(&self, checks: Vec<Check>, change: Change) -> Result<bool> {
        match self.objects.txn(Txn { checks, changes: vec![change] }).await {
            Ok(_) => Ok(true),
            Err(TxnError::Failed { .. }) => Ok(false),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }

    fn learn(&self, tenant: &TenantName, of: &Subject, record: Option<&Destinations>) -> Result<()> {
        let name = (tenant.clone(), of.clone());
        match record {
            Some(Destinations { on_success, on_failure, .. }) => {
                let (on_success, on_failure) = (on_success.clone(), on_failure.clone());
                let pinned = pinned(Notice { on_success, on_failure, depth: 0 })?;
                self.known.write().insert(name, Arc::new(pinned));
            }
            None => drop(self.known.write().remove(&name)),
        }
        Ok(())
    }

    /// Reads all, then follows what changes, for ever.
    pub(super) async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<()> {
        self.fill().await?;
        let this = Arc::clone(self);
        let follow = async move { follow(this.as_ref(), this.objects.as_ref(), &this.clock).await };
        tasks.spawn_cancellable("destinations", follow);
        Ok(())
    }
}

impl Follows for Directory {
    const ALL: &'static str = DESTINATIONS;
    const WHAT: &'static str = "destinations";

    fn shown_revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    async fn fill(&self) -> Result<()> {
        let (mut pages, mut names) = (Pages::of(self.objects.as_ref(), DESTINATIONS, PAGE), HashSet::new());
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                let Some(name) = name(&entry.key) else { continue };
                if let Some(record) = readable(entry) {
                    self.learn(&name.0, &name.1, Some(&record))?;
                    names.insert(name);
                }
            }
        }
        self.known.write().retain(|name, _| names.contains(name));
        self.revision.store(pages.revision(), Ordering::Release);
        Ok(())
    }

    async fn show(&self, batch: &Batch) -> Result<()> {
        for event in &batch.events {
            let Some((tenant, of)) = name(&event.key) else { continue };
            let record = self.objects.get(&event.key).await?.as_ref().and_then(readable);
            self.learn(&tenant, &of, record.as_ref())?;
        }
        self.revision.store(batch.revision, Ordering::Release);
        Ok(())
    }
}

fn none(of: &Subject) -> Error {
    Error::new(Code::NotFound, format!("{of} has no destinations"))
}

/// A record that can't be read is none; the log says so.
fn readable(entry: &Entry) -> Option<Destinations> {
    read(entry).ok()
}

fn name(key: &str) -> Option<(TenantName, Subject)> {
    let (tenant, name) = parse_key(DESTINATIONS, key)?;
    Some((tenant, Subject::parse(name)?))
}
