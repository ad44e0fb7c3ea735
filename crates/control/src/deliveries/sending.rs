//! Tries of deliveries: when, how many at once, and what becomes of a delivery after each.
//!
//! What must hold: a delivery is tried until the other side has it, until its tries or its time are used up, and no longer; a tenant
//! whose destinations hang holds up no other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_store::objects::{Batch, Change, Check, Pages, WatchError};
use lyra_types::delivery::{DeliveryStatus, DeliveryTry};
use lyra_types::{Code, Error, JobId, Result, TenantName, Timestamp};
use lyra_wire::control::Submit;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::record::{ALL, Delivery, PENDING, Target, key, parse_key, pending_key, put, read};
use super::webhook::Message;
use super::{CHUNK, Deliveries};

/// Marks read at once.
const PAGE: usize = 1_000;
/// Longest sleep: a clock that was put forward is noticed after it.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest wait that an answer may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often old deliveries are looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// A delivery that has not ended.
type Name = (TenantName, String);

/// What is to be tried, and what is being tried.
#[derive(Default)]
struct Agenda {
    /// When each is due.
    due: Mutex<BTreeMap<Name, Timestamp>>,
    running: Mutex<HashSet<Name>>,
    /// A try has ended.
    ended: Notify,
}

impl Deliveries {
    /// Makes tries, for ever.
    pub(super) async fn send(self: &Arc<Self>) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "deliveries can't be followed");
            }
            self.clock.sleep(AGAIN).await;
        }
    }

    /// Reads what has not ended and makes its tries, until the store fails or forgets.
    async fn follow(self: &Arc<Self>) -> Result<()> {
        let agenda = Arc::new(Agenda::default());
        let mut pages = Pages::of(self.objects.as_ref(), PENDING, PAGE);
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                self.learn(&agenda, &entry.key).await?;
            }
        }
        let unavailable = |error: WatchError| Error::new(Code::Unavailable, error.to_string());
        let watched = self.objects.watch(PENDING, pages.revision() + 1).await.map_err(unavailable)?;
        let mut changes: BoxStream<'static, Result<Batch, WatchError>> = watched;
        loop {
            let next = self.start_due(&agenda);
            tokio::select! {
                changed = changes.next() => {
                    let Some(batch) = changed else { return Ok(()) };
                    for event in batch.map_err(unavailable)?.events {
                        self.learn(&agenda, &event.key).await?;
                    }
                }
                () = agenda.ended.notified() => {}
                () = self.clock.sleep(next.min(LONGEST)) => {}
            }
        }
    }

    /// Notes when a delivery is due, by its mark.
    async fn learn(&self, agenda: &Agenda, mark: &str) -> Result<()> {
        let Some((tenant, id)) = parse_key(PENDING, mark) else { return Ok(()) };
        let at = match self.read(&tenant, id).await {
            Ok((delivery, _)) if delivery.status == DeliveryStatus::Pending => {
                Some(delivery.next_attempt_at.unwrap_or_default())
            }
            Ok(_) => None,
            Err(error) if matches!(error.code, Code::NotFound | Code::Internal) => None,
            Err(error) => return Err(error),
        };
        let name = (tenant, id.to_owned());
        match at {
            Some(at) => drop(agenda.due.lock().insert(name, at)),
            None => drop(agenda.due.lock().remove(&name)),
        }
        Ok(())
    }

    /// Starts the tries that are due and for which there is room; returns when to look again.
    fn start_due(self: &Arc<Self>, agenda: &Arc<Agenda>) -> Duration {
        let now = self.clock.now();
        let mut running = agenda.running.lock();
        let mut by_tenant: HashMap<TenantName, usize> = HashMap::new();
        for (tenant, _) in running.iter() {
            *by_tenant.entry(tenant.clone()).or_default() += 1;
        }
        let (mut begin, mut next): (Vec<(Name, Timestamp)>, _) = (Vec::new(), LONGEST);
        for (name, at) in agenda.due.lock().iter() {
            if running.contains(name) {
                continue;
            }
            if *at > now {
                next = next.min(at.since(now) + Duration::from_millis(1));
                continue;
            }
            let of_tenant = by_tenant.entry(name.0.clone()).or_default();
            let room = running.len() + begin.len() < self.config.max_in_flight;
            if room && *of_tenant < self.config.max_in_flight_per_tenant {
                *of_tenant += 1;
                begin.push((name.clone(), *at));
            }
        }
        for (name, was_due) in begin {
            running.insert(name.clone());
            let (this, agenda) = (Arc::clone(self), Arc::clone(agenda));
            self.tries.spawn("deliver", async move {
                let next = this.attempt(&name.0, &name.1).await;
                let mut due = agenda.due.lock();
                // Where it is due otherwise by now, somebody has asked for it again since.
                let same = due.get(&name) == Some(&was_due);
                match next.filter(|_| same) {
                    _ if !same => {}
                    Some(at) => drop(due.insert(name.clone(), at)),
                    None => drop(due.remove(&name)),
                }
                drop(due);
                agenda.running.lock().remove(&name);
                agenda.ended.notify_one();
            });
        }
        next
    }

    /// Makes one try and writes down how it went; returns when the next is due, if there is one.
    async fn attempt(&self, tenant: &TenantName, id: &str) -> Option<Timestamp> {
        let (mut delivery, modified) = match self.read(tenant, id).await {
            Ok(found) => found,
            Err(error) if error.code == Code::NotFound => return None,
            Err(_) => return Some(self.clock.now() + AGAIN),
        };
        if delivery.status != DeliveryStatus::Pending {
            return None;
        }
        let mut asked_to_wait = None;
        let (one, has_it) = match &delivery.target {
            Target::Url { url, secret } => {
                let message = Message { id, body: Bytes::copy_from_slice(delivery.body.as_bytes()) };
                let secret = self.vault.open(tenant, url, secret).await;
                let called = self.caller.call(url, secret, message).await;
                asked_to_wait = called.retry_after;
                (called.shown, called.has_it)
            }
            Target::Function(function) => {
                let at = self.clock.now();
                let handed = self.hand_over(tenant, id, function, &delivery).await;
                delivery.started_job = handed.as_ref().ok().copied().or(delivery.started_job);
                let error = handed.err().map(|error| error.detail);
                let has_it = error.is_none();
                (DeliveryTry { at, duration_ms: 0, http_status: None, answer: None, error }, has_it)
            }
        };
        self.metrics.delivery_tries.with_label_values(&[if has_it { "ok" } else { "failed" }]).inc();
        let now = self.clock.now();
        delivery.tried(one);
        let tried_out = delivery.attempts >= self.config.max_attempts.max(1);
        if has_it {
            delivery.end(DeliveryStatus::Delivered, now);
        } else if tried_out || now.since(delivery.since) >= self.config.give_up_after {
            tracing::warn!(%tenant, delivery = id, attempts = delivery.attempts, "a delivery is given up");
            delivery.end(DeliveryStatus::Failed, now);
        } else {
            // Whoever says when to come back is believed, but not for ever.
            let wait = asked_to_wait.map(|wait| wait.clamp(self.config.retry.first, LONGEST_ASKED));
            let wait = wait.unwrap_or_else(|| self.config.retry.delay(delivery.attempts, &self.random));
            delivery.next_attempt_at = Some(now + wait);
        }
        if delivery.status != DeliveryStatus::Pending {
            self.metrics.deliveries.with_label_values(&[delivery.status.as_str()]).inc();
        }
        self.write_down(tenant, id, &delivery, modified).await
    }

    async fn write_down(&self, tenant: &TenantName, id: &str, delivery: &Delivery, modified: u64) -> Option<Timestamp> {
        let again = self.clock.now() + AGAIN;
        let key = key(tenant, id);
        let Ok(change) = put(key.clone(), delivery) else { return Some(again) };
        let mut changes = vec![change];
        if delivery.status != DeliveryStatus::Pending {
            changes.push(Change::Delete(pending_key(tenant, id)));
        }
        match self.commit(vec![Check::Modified(key, modified)], changes).await {
            Ok(true) => delivery.next_attempt_at,
            // Somebody asked for it again, or another leader has tried: it is looked at anew.
            Ok(false) => Some(again),
            Err(error) => {
                tracing::warn!(%error, delivery = id, "how a try went can't be written down: it is made again");
                Some(again)
            }
        }
    }

    /// Submits a job with the message as its event, the same one however often.
    async fn hand_over(&self, tenant: &TenantName, id: &str, function: &str, delivery: &Delivery) -> Result<JobId> {
        let (name, qualifier) = lyra_types::name::Qualifier::split(function)?;
        let route = self.table.get(tenant, &name).ok_or_else(|| Error::not_found("function", &name))?;
        let version = Arc::clone(route.resolve(&qualifier, self.random.u64())?);
        let event = Bytes::copy_from_slice(delivery.body.as_bytes());
        let idempotency_key = Some(format!("delivery/{id}/{}", delivery.since.millis()));
        let submit = Submit { id: None, version, event, idempotency_key, user: None, destinations: None };
        Ok(self.jobs.submit_after(submit, delivery.depth + 1).await?.id)
    }

    /// Forgets old deliveries, for ever.
    pub(super) async fn sweep(&self) {
        loop {
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(%error, "old deliveries can't be forgotten now");
            }
            self.clock.sleep(SWEEP).await;
        }
    }

    async fn sweep_once(&self) -> Result<()> {
        let oldest = self.clock.now() - self.config.keep;
        let mut counted: Option<(TenantName, usize)> = None;
        let mut pages = Pages::of(self.objects.as_ref(), ALL, CHUNK);
        while let Some(entries) = pages.next().await? {
            let mut changes = Vec::new();
            for entry in &entries {
                let Some((tenant, _)) = parse_key(ALL, &entry.key) else { continue };
                let count = match counted.take() {
                    Some((of, count)) if of == tenant => count + 1,
                    _ => 1,
                };
                counted = Some((tenant, count));
                let delivery: Delivery = read(entry)?;
                let is_over =
                    count > self.config.max_kept_per_tenant || delivery.finished_at.is_some_and(|at| at < oldest);
                if is_over && delivery.status != DeliveryStatus::Pending {
                    changes.push(Change::Delete(entry.key.clone()));
                }
            }
            if !changes.is_empty() {
                self.commit(Vec::new(), changes).await?;
            }
        }
        Ok(())
    }
}
