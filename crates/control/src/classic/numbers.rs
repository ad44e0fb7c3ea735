//! The numbers by which classic jobs tell their user, and the ids that are made with them.
//!
//! What must hold: no number is ever given to two tenants, nor an id to two jobs. A tenant's number is derived from its name, so
//! that one who is removed and made anew has the same; where two names lead to one number, the later one gets its next.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lyra_kit::{Clock, Random};
use lyra_store::objects::{Change, Check, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::{Error, JobId, Result, TenantName};
use lyra_wire::classic::{ClassicJob, user_number};
use parking_lot::Mutex;

/// Numbers that are tried for one tenant. That so many are taken has no chance worth speaking of.
const TRIES: u32 = 32;
/// Tenants that are remembered.
const REMEMBERED: usize = 100_000;

/// Gives numbers and ids.
pub(crate) struct Numbers {
    objects: Arc<dyn Objects>,
    clock: Clock,
    random: Random,
    known: Mutex<HashMap<TenantName, u32>>,
    /// The second of the last id, and its sequence.
    last: Mutex<(u32, u32)>,
}

pub(super) fn key(number: u32) -> String {
    format!("classic/numbers/{number:08x}")
}

impl Numbers {
    pub(crate) fn new(deps: &crate::Deps) -> Numbers {
        Numbers {
            objects: Arc::clone(&deps.objects),
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            known: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// The tenant of a number.
    pub(super) async fn owner(&self, number: u32) -> Result<Option<TenantName>> {
        let Some(entry) = self.objects.get(&key(number)).await? else { return Ok(None) };
        Ok(std::str::from_utf8(&entry.value).ok().and_then(|name| TenantName::new(name).ok()))
    }

    /// The tenant's number; with `give`, it is given one where it has none.
    pub(super) async fn of(&self, tenant: &TenantName, give: bool) -> Result<Option<u32>> {
        if let Some(number) = self.known.lock().get(tenant) {
            return Ok(Some(*number));
        }
        let mut attempt = 0;
        while attempt < TRIES {
            let number = user_number(tenant, attempt);
            match self.owner(number).await? {
                Some(owner) if owner == *tenant => {
                    let mut known = self.known.lock();
                    if known.len() >= REMEMBERED {
                        known.clear();
                    }
                    known.insert(tenant.clone(), number);
                    return Ok(Some(number));
                }
                Some(_) => attempt += 1,
                None if !give => return Ok(None),
                None => {
                    let (checks, value) = (vec![Check::Absent(key(number))], Bytes::from(tenant.to_string()));
                    match self.objects.txn(Txn { checks, changes: vec![Change::Put(key(number), value)] }).await {
                        // Read again: it may have been somebody else who was first.
                        Ok(_) | Err(TxnError::Failed { .. }) => {}
                        Err(TxnError::Store(error)) => return Err(error.into()),
                    }
                }
            }
        }
        Err(Error::internal("no number is free for this user"))
    }

    /// The id of a new job of a classic function; `None` for a tenant that has no number, whose jobs have ids like all others.
    pub(crate) async fn job(&self, tenant: &TenantName) -> Result<Option<JobId>> {
        let Some(user) = self.of(tenant, false).await? else { return Ok(None) };
        let now = u32::try_from(self.clock.now().millis() / 1_000).unwrap_or(u32::MAX);
        let mut last = self.last.lock();
        *last = match *last {
            // A clock that went back does not make ids anew, and neither does a sequence that is used up.
            (seconds, sequence) if seconds >= now => match sequence.checked_add(1) {
                Some(next) => (seconds, next),
                None => (seconds + 1, 0),
            },
            // Half of the numbers are left to count up; where it begins is not to be guessed, nor met by another process.
            _ => (now, u32::try_from(self.random.u64() >> 33).unwrap_or_default()),
        };
        let (seconds, sequence) = *last;
        Ok(Some(ClassicJob { seconds, sequence, user }.id()))
    }
}
