//! Fair share between tenants: multi-queue fair queueing with sticky flows.
//!
//! A flow is a tenant. Each flow has a virtual time: the time that its calls have held places, over its weight. Calls of a
//! flow run in order of arrival, and a flow that is more than `throttle` ahead of the global virtual time, which is that of
//! the waiting flow furthest behind, is throttled. Among the others, the flow that was served last stays (its instances and
//! caches are in use), else the one furthest behind is served. As many calls run as there are places: those are the tokens
//! that the literature calls D.
//!
//! After M. Hedayati, K. Shen, M. Scott and M. Marty, "Multi-Queue Fair Queuing" (ATC 2019), P. Goyal, H. Vin and H. Cheng,
//! "Start-time Fair Queuing" (SIGCOMM 1996), and A. Fuerst and others, "MQFQ-Sticky: Fair Queueing For Serverless GPU
//! Functions" (arXiv 2507.08954). Other than there: flows are tenants, not functions; the sticky flow is the one served
//! last, not the longest; a flow without calls never holds the others back, so places are not left empty in anticipation.
//!
//! What holds: for two tenants whose calls wait, the time on places that their calls were let in for differs, over any
//! span and each over its weight, by at most twice `throttle` plus the longest call of each. A call is charged what is
//! expected of it when it is let in, and what it took in the end once it has ended, so that wrong estimates even out.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use lyra_types::TenantName;
use tokio::time::Instant;

use super::config;
use super::policy::{Candidate, Charge, Choice, Policy};
use super::shortest::nanos;
use crate::characteristics::Record;

/// Parts of a nanosecond in virtual time, so that a division by a weight loses nothing that matters.
const SCALE: u128 = 1 << 20;

/// Flows are looked through for those that can be forgotten when there are so many.
const FORGET_FROM: usize = 1_024;

#[derive(Debug)]
struct Flow {
    weight: u32,
    /// Start tag of its next call.
    start: u128,
    in_flight: usize,
    waiting: BTreeSet<u64>,
}

/// The accounts of all tenants.
#[derive(Debug)]
pub(super) struct FairShare {
    config: config::FairShare,
    throttle: u128,
    /// The global virtual time. Never goes back.
    now: u128,
    /// The greatest start tag there is.
    latest: u128,
    in_flight: usize,
    flows: Vec<Flow>,
    /// Numbers of closed accounts.
    free: Vec<u32>,
    by_tenant: HashMap<TenantName, u32>,
    /// Flows whose calls wait, by start tag.
    backlogged: BTreeSet<(u128, u32)>,
    sticky: Option<u32>,
    forget_at: usize,
}

impl FairShare {
    pub(super) fn new(config: config::FairShare) -> FairShare {
        FairShare {
            throttle: config.throttle.as_nanos().saturating_mul(SCALE),
            config,
            now: 0,
            latest: 0,
            in_flight: 0,
            flows: Vec::new(),
            free: Vec::new(),
            by_tenant: HashMap::new(),
            backlogged: BTreeSet::new(),
            sticky: None,
            forget_at: FORGET_FROM,
        }
    }

    /// The tenant's account, opened at the global virtual time.
    fn flow(&mut self, tenant: &TenantName) -> u32 {
        if let Some(flow) = self.by_tenant.get(tenant) {
            return *flow;
        }
        if self.by_tenant.len() >= self.forget_at {
            self.forget();
        }
        let account =
            Flow { weight: self.config.weight(tenant).get(), start: self.now, in_flight: 0, waiting: BTreeSet::new() };
        let flow = match self.free.pop() {
            Some(flow) => {
                self.flows[flow as usize] = account;
                flow
            }
            None => {
                self.flows.push(account);
                u32::try_from(self.flows.len() - 1).expect("fewer tenants than 2^32 have calls here")
            }
        };
        self.by_tenant.insert(tenant.clone(), flow);
        flow
    }

    /// Closes the accounts that would be opened again just as they are.
    fn forget(&mut self) {
        let (flows, free, now) = (&self.flows, &mut self.free, self.now);
        self.by_tenant.retain(|_, flow| {
            let account = &flows[*flow as usize];
            let keep = account.in_flight > 0 || !account.waiting.is_empty() || account.start > now;
            if !keep {
                free.push(*flow);
            }
            keep
        });
        // Numbers break ties: they must not depend on the order of a hash table.
        free.sort_unstable();
        self.sticky = None;
        self.forget_at = (self.by_tenant.len() * 2).max(FORGET_FROM);
    }

    /// Moves a flow to another start tag.
    fn set_start(&mut self, flow: u32, start: u128) {
        let account = &mut self.flows[flow as usize];
        if !account.waiting.is_empty() {
            self.backlogged.remove(&(account.start, flow));
            self.backlogged.insert((start, flow));
        }
        account.start = start;
        self.latest = self.latest.max(start);
    }

    fn advance(&mut self) {
        if let Some((least, _)) = self.backlogged.first() {
            self.now = self.now.max(*least);
        }
    }

    fn next_flow(&self) -> Option<u32> {
        let bound = self.now.saturating_add(self.throttle);
        let may_stay =
            |flow: &u32| self.flows.get(*flow as usize).is_some_and(|f| !f.waiting.is_empty() && f.start < bound);
        // At `throttle` 0 no flow is before the bound, and the one furthest behind is next.
        self.sticky.filter(may_stay).or_else(|| self.backlogged.first().map(|(_, flow)| *flow))
    }

    fn take(&mut self, flow: u32, order: u64) {
        let account = &mut self.flows[flow as usize];
        if account.waiting.remove(&order) && account.waiting.is_empty() {
            self.backlogged.remove(&(account.start, flow));
        }
    }
}

impl Policy for FairShare {
    fn push(&mut self, candidate: Candidate) {
        let flow = self.flow(candidate.record.tenant());
        let account = &mut self.flows[flow as usize];
        if account.waiting.is_empty() {
            // What it did not use while it had no calls is not saved up.
            account.start = account.start.max(self.now);
            self.backlogged.insert((account.start, flow));
        }
        account.waiting.insert(candidate.order);
    }

    fn pop(&mut self, _: Instant) -> Option<Choice> {
        self.advance();
        let flow = self.next_flow()?;
        let order = *self.flows[flow as usize].waiting.first()?;
        self.take(flow, order);
        self.sticky = Some(flow);
        Some(Choice { order, aged: false })
    }

    fn remove(&mut self, order: u64, record: &Record) {
        if let Some(flow) = self.by_tenant.get(record.tenant()).copied() {
            self.take(flow, order);
        }
    }

    fn clear(&mut self) {
        self.backlogged.clear();
        for flow in &mut self.flows {
            flow.waiting.clear();
        }
    }

    fn began(&mut self, record: &Record) -> Charge {
        let flow = self.flow(record.tenant());
        let expected = record.expected();
        let amount = nanos(expected.exec + expected.warm);
        self.in_flight += 1;
        let account = &mut self.flows[flow as usize];
        account.in_flight += 1;
        let begins = account.start.max(if account.waiting.is_empty() { self.now } else { 0 });
        let next = begins + u128::from(amount) * SCALE / u128::from(account.weight);
        self.set_start(flow, next);
        if self.backlogged.is_empty() {
            // Nobody is kept waiting by it: nobody will have to wait for what others used meanwhile.
            self.now = self.now.max(begins);
        }
        Charge { flow, amount }
    }

    fn ended(&mut self, charge: Charge, held: Duration) {
        let Some(account) = self.flows.get_mut(charge.flow as usize) else { return };
        account.in_flight -= 1;
        self.in_flight -= 1;
        let of = |nanos: u64| u128::from(nanos) * SCALE / u128::from(account.weight);
        let start = account.start.saturating_add(of(nanos(held))).saturating_sub(of(charge.amount));
        self.set_start(charge.flow, start);
        if self.in_flight == 0 && self.backlogged.is_empty() {
            // All is idle: a new busy time begins, and nobody owes anything.
            self.now = self.now.max(self.latest);
        }
    }

    fn meters(&self) -> bool {
        true
    }
}

#[cfg(test)]
impl FairShare {
    /// Accounts that are open.
    pub(super) fn open(&self) -> usize {
        self.by_tenant.len()
    }
}
