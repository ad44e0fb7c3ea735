//! Who hears of the jobs of which function: set by users, pinned to each job when it is accepted.
//!
//! Every control process follows the records, so that accepting a job asks nobody. What must hold: whoever gets the answer that
//! destinations were set, and hands in a job at the same process, has it told to them; other processes know within the time of a watch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::{Clock, Random};
use lyra_store::objects::{Change, Check, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::delivery::{DestinationRequest, DestinationsRequest, DestinationsView};
use lyra_types::{Code, Error, FunctionName, Result, TenantName};
use parking_lot::RwLock;

use super::record::{DESTINATIONS, Destinations, Notice, Target, destinations_key, parse_key, put, read};
use super::webhook::{Caller, check_secret, make_secret};
use crate::functions::Table;

/// Records read at once.
const PAGE: usize = 1_000;
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// A job that so many deliveries led to is told to nobody: functions that are each other's destinations would never end.
pub(super) const MAX_DEPTH: u32 = 8;

type Known = HashMap<(TenantName, FunctionName), Arc<Pinned>>;

/// The notice of a function's jobs.
struct Pinned {
    notice: Notice,
    /// As a job carries it that no delivery led to.
    text: Arc<str>,
}

/// Who hears of what.
pub(crate) struct Directory {
    objects: Arc<dyn Objects>,
    table: Arc<Table>,
    clock: Clock,
    random: Random,
    pub(super) caller: Arc<Caller>,
    known: RwLock<Known>,
}

fn pinned(notice: Notice) -> Result<Pinned> {
    let text = serde_json::to_string(&notice).map_err(|_| Error::internal("a notice can't be written"))?;
    Ok(Pinned { notice, text: text.into() })
}

impl Directory {
    pub(super) fn new(deps: &crate::Deps, table: Arc<Table>, caller: Arc<Caller>) -> Directory {
        Directory {
            objects: Arc::clone(&deps.objects),
            table,
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            caller,
            known: RwLock::default(),
        }
    }

    /// The notice of a new job; `None` where nobody wants to hear of its end.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where the job's own destinations are none.
    pub(crate) fn notice(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        own: Option<&DestinationsRequest>,
        depth: u32,
    ) -> Result<Option<Arc<str>>> {
        if depth > MAX_DEPTH {
            tracing::warn!(%tenant, %function, depth, "a job that deliveries led to is told to nobody: is it a loop?");
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
        let Some(found) = known.get(&(tenant.clone(), function.clone())).cloned() else { return Ok(None) };
        drop(known);
        if depth == 0 {
            return Ok(Some(Arc::clone(&found.text)));
        }
        Ok(Some(pinned(Notice { depth, ..found.notice.clone() })?.text))
    }

    /// What a request means, and the secret that was made for it.
    fn target(
        &self,
        tenant: &TenantName,
        field: &str,
        asked: &DestinationRequest,
        may_make: bool,
    ) -> Result<(Target, bool)> {
        if let Some(url) = &asked.url {
            self.caller.check(url, &format!("{field}.url"))?;
            let (secret, made) = match &asked.secret {
                Some(secret) => {
                    check_secret(secret, &format!("{field}.secret"))?;
                    (secret.clone(), false)
                }
                None if may_make => (make_secret(&self.random), true),
                None => {
                    let reason = "is needed for a url: what is made here could not be shown";
                    return Err(Error::field(Code::InvalidField, format!("{field}.secret"), reason));
                }
            };
            return Ok((Target::Url { url: url.clone(), secret }, made));
        }
        let function = asked.function.clone().unwrap_or_default();
        let (name, _) = lyra_types::name::Qualifier::split(&function)?;
        if self.table.get(tenant, &name).is_none() {
            let reason = format!("there is no function {name}");
            return Err(Error::field(Code::InvalidField, format!("{field}.function"), reason));
        }
        Ok((Target::Function(function), false))
    }

    pub(super) async fn put(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        request: &DestinationsRequest,
    ) -> Result<DestinationsView> {
        request.check()?;
        self.check_function(tenant, function)?;
        let mut made = [false, false];
        let mut target = |place: usize, field, asked: &Option<DestinationRequest>| -> Result<Option<Target>> {
            let Some(asked) = asked else { return Ok(None) };
            let (target, new) = self.target(tenant, field, asked, true)?;
            made[place] = new;
            Ok(Some(target))
        };
        let on_success = target(0, "on_success", &request.on_success)?;
        let on_failure = target(1, "on_failure", &request.on_failure)?;
        let record = Destinations { on_success, on_failure, updated_at: self.clock.now() };
        let change = put(destinations_key(tenant, function), &record)?;
        self.commit(Vec::new(), change).await?;
        // Those who follow hear of it a moment later; whoever asked may hand in a job at once.
        self.learn(tenant, function, Some(&record))?;
        if self.table.get(tenant, function).is_none() {
            // It was deleted meanwhile, maybe before this was written.
            self.delete(tenant, function).await?;
            return Err(Error::not_found("function", function));
        }
        tracing::info!(%tenant, %function, "destinations set");
        let mut view = record.view(function);
        let shown = [(&mut view.on_success, &record.on_success), (&mut view.on_failure, &record.on_failure)];
        for ((view, target), made) in shown.into_iter().zip(made) {
            if let (Some(view), Some(Target::Url { secret, .. }), true) = (view, target, made) {
                view.secret = Some(secret.clone());
            }
        }
        Ok(view)
    }

    fn check_function(&self, tenant: &TenantName, function: &FunctionName) -> Result<()> {
        self.table.get(tenant, function).map(drop).ok_or_else(|| Error::not_found("function", function))
    }

    pub(super) async fn get(&self, tenant: &TenantName, function: &FunctionName) -> Result<Destinations> {
        let entry = self.objects.get(&destinations_key(tenant, function)).await?;
        let entry = entry.ok_or_else(|| Error::not_found("destinations", format_args!("of function {function}")))?;
        read(&entry)
    }

    pub(super) async fn delete(&self, tenant: &TenantName, function: &FunctionName) -> Result<()> {
        let key = destinations_key(tenant, function);
        let there = self.commit(vec![Check::Exists(key.clone())], Change::Delete(key)).await?;
        self.learn(tenant, function, None)?;
        match there {
            true => Ok(()),
            false => Err(Error::not_found("destinations", format_args!("of function {function}"))),
        }
    }

    async fn commit(&self, checks: Vec<Check>, change: Change) -> Result<bool> {
        match self.objects.txn(Txn { checks, changes: vec![change] }).await {
            Ok(_) => Ok(true),
            Err(TxnError::Failed { .. }) => Ok(false),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }

    fn learn(&self, tenant: &TenantName, function: &FunctionName, record: Option<&Destinations>) -> Result<()> {
        let name = (tenant.clone(), function.clone());
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

    /// Follows the records, for ever.
    pub(super) async fn follow(&self) {
        loop {
            if let Err(error) = self.follow_once().await {
                tracing::warn!(%error, "destinations can't be followed");
            }
            self.clock.sleep(AGAIN).await;
        }
    }

    /// Reads all, and returns the revision from which changes are to be heard.
    pub(super) async fn fill(&self) -> Result<u64> {
        let (mut after, mut from, mut names) = (None::<String>, None, Vec::new());
        loop {
            let listing = self.objects.list(DESTINATIONS, PAGE, after.as_deref()).await?;
            from.get_or_insert(listing.revision + 1);
            for entry in &listing.entries {
                let Some(name) = name(&entry.key) else { continue };
                self.learn(&name.0, &name.1, Some(&read(entry)?))?;
                names.push(name);
            }
            after = listing.entries.last().map(|entry| entry.key.clone());
            if !listing.more {
                break;
            }
        }
        let names: std::collections::HashSet<_> = names.into_iter().collect();
        self.known.write().retain(|name, _| names.contains(name));
        Ok(from.unwrap_or_default())
    }

    async fn follow_once(&self) -> Result<()> {
        let from = self.fill().await?;
        let unavailable = |error: lyra_store::objects::WatchError| Error::new(Code::Unavailable, error.to_string());
        let mut changes = self.objects.watch(DESTINATIONS, from).await.map_err(unavailable)?;
        while let Some(batch) = changes.next().await {
            for event in batch.map_err(unavailable)?.events {
                let Some((tenant, function)) = name(&event.key) else { continue };
                let record = self.objects.get(&event.key).await?.map(|entry| read(&entry)).transpose()?;
                self.learn(&tenant, &function, record.as_ref())?;
            }
        }
        Ok(())
    }
}

fn name(key: &str) -> Option<(TenantName, FunctionName)> {
    let (tenant, function) = parse_key(DESTINATIONS, key)?;
    Some((tenant, FunctionName::new(function).ok()?))
}
